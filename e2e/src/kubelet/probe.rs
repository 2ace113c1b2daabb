//! Probes of a container, really executed, each by a task that goes with the run.

use super::Shared;
use super::launch::Room;
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ExecAction, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How soon somebody who was not well is asked again, at the latest.
const EAGER: Duration = Duration::from_millis(200);

/// What a probe has found; what was not asked for is taken as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Too few answers yet.
    Nothing,
    Good,
    Bad,
}

/// A probe that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Prober {
    found: watch::Receiver<Found>,
    task: AbortHandle,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Begins to ask.
    pub(super) fn start(
        shared: &Arc<Shared>,
        probe: &Probe,
        ports: Vec<(String, i32)>,
        address: Ipv4Addr,
        room: &Room,
    ) -> Self {
        let (tell, found) = watch::channel(Found::Nothing);
        let asker = Asker {
            shared: shared.clone(),
            probe: probe.clone(),
            ports,
            address,
            room: room.clone(),
        };
        let task = tokio::spawn(asker.run(tell)).abort_handle();
        Self { found, task }
    }

    pub(super) fn found(&self) -> Found {
        *self.found.borrow()
    }
}

struct Asker {
    shared: Arc<Shared>,
    probe: Probe,
    ports: Vec<(String, i32)>,
    address: Ipv4Addr,
    room: Room,
}

fn seconds(value: Option<i32>, usual: i32) -> Duration {
    Duration::from_secs(u64::try_from(value.unwrap_or(usual)).unwrap_or_default())
}

impl Asker {
    async fn run(self, tell: watch::Sender<Found>) {
        tokio::time::sleep(seconds(self.probe.initial_delay_seconds, 0)).await;
        let period = seconds(self.probe.period_seconds, 10);
        let patience = seconds(self.probe.timeout_seconds, 1);
        let (mut good, mut bad) = (0, 0);
        let mut counted = Instant::now();
        loop {
            let asked = tokio::time::timeout(patience, self.ask(patience)).await;
            let is_good = matches!(asked, Ok(Ok(())));
            if is_good {
                (good, bad) = (good + 1, 0);
            } else if good > 0 || bad == 0 || counted.elapsed() >= period {
                (good, bad) = (0, bad + 1);
                counted = Instant::now();
            }
            if good >= self.probe.success_threshold.unwrap_or(1) {
                tell.send_replace(Found::Good);
            } else if bad >= self.probe.failure_threshold.unwrap_or(3) {
                tell.send_replace(Found::Bad);
            }
            // Who is about to be well is asked more often; failures count by the period.
            let pause = if is_good { period } else { period.min(EAGER) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(&self, patience: Duration) -> Result<()> {
        if let Some(get) = &self.probe.http_get {
            return self.http(get).await;
        }
        if let Some(socket) = &self.probe.tcp_socket {
            let port = self.port(&socket.port)?;
            TcpStream::connect((self.address, port)).await?;
            return Ok(());
        }
        if let Some(ExecAction {
            command: Some(command),
        }) = &self.probe.exec
        {
            let output = self.room.exec(&self.shared, command, patience).await?;
            ensure!(output.status.success(), "{output:?}");
            return Ok(());
        }
        bail!("the fake kubelet knows no such probe")
    }

    fn port(&self, port: &IntOrString) -> Result<u16> {
        let number = match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                let named = self.ports.iter().find(|(known, _)| known == name);
                named.with_context(|| format!("no port {name:?}"))?.1
            }
        };
        Ok(u16::try_from(number)?)
    }

    async fn http(&self, get: &HTTPGetAction) -> Result<()> {
        let port = self.port(&get.port)?;
        let path = get.path.as_deref().unwrap_or("/");
        let host = self.address.to_string();
        let answer = match get.scheme.as_deref() {
            Some("HTTPS") => {
                // As a kubelet does, it takes any certificate and shows none.
                let identity = quorate_tls::Identity::load(quorate_tls::Options {
                    skip_verify: true,
                    calls_http1: true,
                    ..quorate_tls::Options::default()
                })?;
                let socket = quorate_tls::Socket::connect_tcp(&host, port).await?;
                crate::secure::get(identity.secure(socket, &host).await?, path).await?
            }
            _ => {
                let stream = TcpStream::connect((self.address, port)).await?;
                crate::secure::get(stream, path).await?
            }
        };
        let code = answer.split_whitespace().nth(1).context("a status")?;
        let code: u16 = code.parse()?;
        ensure!((200..400).contains(&code), "{code}");
        Ok(())
    }
}
