//! What is told of a container: how it ended, and its status.

use super::{Container, State};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

/// How much of a message or log is told.
const MESSAGE_BYTES_MAX: usize = 2_048;

impl Container {
    pub(super) fn message_path(&self) -> &str {
        self.spec
            .termination_message_path
            .as_deref()
            .unwrap_or("/dev/termination-log")
    }

    pub(super) fn message_file(&self) -> PathBuf {
        self.directory.join("message")
    }

    fn message(&self, code: i32) -> Option<String> {
        let read = |file: PathBuf| std::fs::read(file).unwrap_or_default();
        let mut bytes = read(self.message_file());
        let policy = self.spec.termination_message_policy.as_deref();
        if bytes.is_empty() && code != 0 && policy == Some("FallbackToLogsOnError") {
            bytes = read(self.directory.join("log"));
        }
        let tail = &bytes[bytes.len().saturating_sub(MESSAGE_BYTES_MAX)..];
        (!tail.is_empty()).then(|| String::from_utf8_lossy(tail).into_owned())
    }

    pub(super) fn terminated(&self, status: ExitStatus) -> ContainerStateTerminated {
        let code = status
            .code()
            .or(status.signal().map(|signal| 128 + signal))
            .unwrap_or(255);
        let since = match &self.state {
            State::Running(running) => Some(Time(running.since)),
            _ => None,
        };
        ContainerStateTerminated {
            exit_code: code,
            reason: Some(if code == 0 { "Completed" } else { "Error" }.to_owned()),
            message: self.message(code),
            started_at: since,
            finished_at: Some(Time(Timestamp::now())),
            container_id: Some(self.id()),
            ..Default::default()
        }
    }

    fn id(&self) -> String {
        format!("fake://{}-{}", self.spec.name, self.restarts)
    }

    /// As a kubelet tells it.
    pub(in crate::kubelet) fn status(&self) -> ContainerStatus {
        let mut state = ContainerState::default();
        match &self.state {
            State::Waiting { reason, message } => {
                let message = (!message.is_empty()).then(|| message.clone());
                state.waiting = Some(ContainerStateWaiting {
                    message,
                    reason: Some(reason.clone()),
                });
            }
            State::Running(running) => {
                let started_at = Some(Time(running.since));
                state.running = Some(ContainerStateRunning { started_at });
            }
            State::Terminated(ended) => state.terminated = Some(ended.clone()),
        }
        let last = ContainerState {
            terminated: self.last.clone(),
            ..Default::default()
        };
        let was_up = self.room.is_some();
        ContainerStatus {
            name: self.spec.name.clone(),
            image: self.image().to_owned(),
            image_id: if was_up {
                image_id(self.image())
            } else {
                String::new()
            },
            container_id: was_up.then(|| self.id()),
            ready: self.is_ready(),
            started: Some(self.is_started()),
            restart_count: self.restarts,
            last_state: Some(last),
            state: Some(state),
            ..Default::default()
        }
    }
}

/// The same for the same image, as a digest is.
fn image_id(image: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    let name = image.split('@').next().unwrap_or(image);
    format!("{name}@sha256:{:064x}", hasher.finish())
}
