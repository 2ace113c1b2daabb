//! One container of a Pod: its runs, why they ended, and when the next one may begin.

mod tell;

use super::Shared;
use super::environment::{Resolver, expand};
use super::launch::{PROGRAMS, Room, Run};
use super::mounts::Mounts;
use super::probe::{Found, Prober};
use super::rewrite::Rewriter;
use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, ContainerStateTerminated, Pod};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pause before the first restart; it doubles with each. A kubelet begins with 10 s.
const BACK_OFF: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// A run of this length clears the back-off.
const STEADY: Duration = Duration::from_secs(20);

/// An image of this tag is in no registry.
const MISSING_TAG: &str = ":missing";

#[derive(Debug)]
enum State {
    Waiting { reason: String, message: String },
    Running(Box<Running>),
    Terminated(ContainerStateTerminated),
}

#[derive(Debug)]
struct Running {
    run: Run,
    since: Timestamp,
    began: Instant,
    startup: Option<Prober>,
    readiness: Option<Prober>,
    liveness: Option<Prober>,
}

/// A container with all that it went through.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) spec: Spec,
    state: State,
    last: Option<ContainerStateTerminated>,
    restarts: i32,
    failures: u32,
    not_before: Option<Instant>,
    room: Option<Room>,
    directory: PathBuf,
}

/// What a start needs of its Pod.
pub(super) struct Surroundings<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) pod: &'a Pod,
    pub(super) mounts: &'a Mounts,
    pub(super) address: Ipv4Addr,
    /// The Pod's DNS name, when it has one.
    pub(super) name: Option<&'a str>,
}

impl Container {
    pub(super) fn new(spec: &Spec, directory: &Path) -> Self {
        Self {
            spec: spec.clone(),
            state: waiting("ContainerCreating", ""),
            last: None,
            restarts: 0,
            failures: 0,
            not_before: None,
            room: None,
            directory: directory.join(format!(".{}", spec.name)),
        }
    }

    pub(super) fn image(&self) -> &str {
        self.spec.image.as_deref().unwrap_or_default()
    }

    pub(super) fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Running(running) => Some(&running.run),
            _ => None,
        }
    }

    pub(super) fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.state {
            State::Running(running) => Some(&mut running.run),
            _ => None,
        }
    }

    pub(super) fn room(&self) -> Option<&Room> {
        self.room.as_ref()
    }

    /// How it ended, while it does not run.
    pub(super) fn exit_code(&self) -> Option<i32> {
        match &self.state {
            State::Terminated(ended) => Some(ended.exit_code),
            _ => None,
        }
    }

    /// Whether it is up and its startup probe has succeeded.
    pub(super) fn is_started(&self) -> bool {
        let State::Running(running) = &self.state else {
            return false;
        };
        let found = running.startup.as_ref().map(Prober::found);
        found.is_none_or(|found| found == Found::Good)
    }

    pub(super) fn is_ready(&self) -> bool {
        let State::Running(running) = &self.state else {
            return false;
        };
        let found = running.readiness.as_ref().map(Prober::found);
        self.is_started() && found.is_none_or(|found| found == Found::Good)
    }

    /// Notices an end, and a probe that says that the run is no good.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(super) fn look(&mut self, around: &Surroundings<'_>) -> Result<()> {
        let State::Running(running) = &mut self.state else {
            return Ok(());
        };
        let is_bad = |prober: &Option<Prober>| {
            prober
                .as_ref()
                .is_some_and(|prober| prober.found() == Found::Bad)
        };
        if is_bad(&running.startup) || is_bad(&running.liveness) {
            running.run.kill();
        }
        if let Some(status) = running.run.ended()? {
            let ended = self.terminated(status);
            self.end(ended);
            return Ok(());
        }
        // Liveness is asked once the start is over.
        let asks = running.liveness.is_none();
        if asks
            && let Some(probe) = self.spec.liveness_probe.clone()
            && self.is_started()
        {
            let prober = self.room.as_ref().map(|room| {
                let ports = ports(&self.spec);
                Prober::start(around.shared, &probe, ports, around.address, room)
            });
            if let State::Running(running) = &mut self.state {
                running.liveness = prober;
            }
        }
        Ok(())
    }

    /// Records an end, and when it may begin again.
    pub(super) fn end(&mut self, ended: ContainerStateTerminated) {
        if let State::Running(running) = &self.state
            && running.began.elapsed() > STEADY
        {
            self.failures = 0;
        }
        let pause = BACK_OFF
            .saturating_mul(1 << self.failures.min(10))
            .min(BACK_OFF_MAX);
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause);
        self.state = State::Terminated(ended);
    }

    /// Records that it has ended, when it is known how.
    pub(super) fn ended_with(&mut self, status: ExitStatus) {
        let ended = self.terminated(status);
        self.end(ended);
    }

    /// Begins the first run, or the next one when its time has come.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub(super) fn begin(&mut self, around: &Surroundings<'_>) -> Result<()> {
        if let State::Running(_) = self.state {
            return Ok(());
        }
        if self.image().ends_with(MISSING_TAG) {
            self.cannot_be_pulled();
            return Ok(());
        }
        if let State::Terminated(ended) = &self.state {
            self.last = Some(ended.clone());
            let pause = self
                .not_before
                .map(|at| at.saturating_duration_since(Instant::now()));
            let pause = pause.unwrap_or_default();
            if !pause.is_zero() {
                let text = format!(
                    "back-off {pause:.1?} restarting container={}",
                    self.spec.name
                );
                self.state = waiting("CrashLoopBackOff", &text);
            }
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        match self.enter(around) {
            Ok(room) => self.launch(around, room),
            Err(Refused(reason, message)) => {
                self.state = waiting(reason, &message);
                Ok(())
            }
        }
    }

    /// A kubelet first says that it tried, then that it waits before it tries again.
    fn cannot_be_pulled(&mut self) {
        let image = self.image().to_owned();
        let has_tried =
            matches!(&self.state, State::Waiting { reason, .. } if reason.contains("ImagePull"));
        self.state = match has_tried {
            true => {
                let text = format!("Back-off pulling image {image:?}: ErrImagePull: not found");
                waiting("ImagePullBackOff", &text)
            }
            false => waiting(
                "ErrImagePull",
                &format!("failed to resolve {image:?}: not found"),
            ),
        };
    }

    fn enter(&self, around: &Surroundings<'_>) -> Result<Room, Refused> {
        let config = |text: String| Refused("CreateContainerConfigError", text);
        std::fs::create_dir_all(&self.directory).map_err(|error| config(error.to_string()))?;
        let mut paths = around.mounts.paths(&self.spec);
        paths.push((
            PROGRAMS.to_owned(),
            around.shared.programs.display().to_string(),
        ));
        let message = self.message_file().display().to_string();
        paths.push((self.message_path().to_owned(), message));
        let rewriter = Rewriter::new(paths, around.address, around.name);
        let address = around.address.to_string();
        let resolver = Resolver {
            shared: around.shared,
            pod: around.pod,
            address: &address,
            rewrite: &|text| rewriter.text(text),
        };
        let mut environment = resolver.all(&self.spec).map_err(config)?;
        let spec = around.pod.spec.as_ref();
        let host = spec.and_then(|spec| spec.hostname.clone());
        let host = host
            .or_else(|| around.pod.metadata.name.clone())
            .unwrap_or_default();
        environment.entry("HOSTNAME".to_owned()).or_insert(host);
        environment
            .entry("RUST_BACKTRACE".to_owned())
            .or_insert_with(|| "1".to_owned());
        Ok(Room {
            environment,
            rewriter,
            log: self.directory.join("log"),
        })
    }

    fn launch(&mut self, around: &Surroundings<'_>, room: Room) -> Result<()> {
        let entry = |image: &str| {
            let name = image.split('@').next().unwrap_or(image);
            let name = name.rsplit('/').next().unwrap_or(name);
            vec![name.split(':').next().unwrap_or(name).to_owned()]
        };
        let command = self.spec.command.clone();
        let mut argv = command.unwrap_or_else(|| entry(self.image()));
        argv.extend(self.spec.args.iter().flatten().cloned());
        let argv: Vec<String> = argv
            .iter()
            .map(|arg| expand(arg, &room.environment))
            .collect();
        match std::fs::remove_file(self.message_file()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let run = match room.start(around.shared, &argv) {
            Ok(run) => run,
            Err(error) => {
                self.end(ContainerStateTerminated {
                    exit_code: 128,
                    reason: Some("StartError".to_owned()),
                    message: Some(format!("{error:#}")),
                    ..Default::default()
                });
                return Ok(());
            }
        };
        if self.last.is_some() {
            self.restarts += 1;
        }
        let prober = |probe: &Option<_>| {
            let probe = probe.as_ref()?;
            Some(Prober::start(
                around.shared,
                probe,
                ports(&self.spec),
                around.address,
                &room,
            ))
        };
        self.state = State::Running(Box::new(Running {
            run,
            since: Timestamp::now(),
            began: Instant::now(),
            startup: prober(&self.spec.startup_probe),
            readiness: prober(&self.spec.readiness_probe),
            liveness: None,
        }));
        self.room = Some(room);
        Ok(())
    }
}

/// Reason and message of a container that cannot be made.
struct Refused(&'static str, String);

fn waiting(reason: &str, message: &str) -> State {
    State::Waiting {
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

fn ports(spec: &Spec) -> Vec<(String, i32)> {
    let named = spec.ports.iter().flatten();
    named
        .filter_map(|port| Some((port.name.clone()?, port.container_port)))
        .collect()
}
