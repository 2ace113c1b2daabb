//! One server process: started on its own ports, watched through its log, killed, stopped, resumed.

use crate::binaries::Kind;
use crate::{rpc, wait};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The line that etcd, and we, print when a linearizable request works.
pub const READY_LINE: &str = "ready to serve client requests";

/// How long a start may take before a test gives up; an election on a busy machine is slow.
pub const START_DEADLINE: Duration = Duration::from_secs(60);

/// Below the kernel's range for outgoing connections, so that no such connection takes our port.
const PORTS: std::ops::Range<u16> = 27_000..32_000;

/// Returns a port on which nothing listens, and which this process hands out once.
///
/// # Errors
/// When every port is taken.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Test binaries that run at the same time start at different places.
    let first = (std::process::id() % 97) as u16 * 50;
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (first.wrapping_add(step)) % count;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port in {PORTS:?}")
}

/// How one member is started; it stays the same over restarts.
#[derive(Clone, Debug)]
pub struct Spec {
    pub kind: Kind,
    pub name: String,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub client_port: u16,
    pub peer_port: u16,
    /// Where the other members reach this one: its peer port, or a proxy before it.
    pub advertised_peer_port: u16,
    /// `name=url,…` of all members.
    pub initial_cluster: String,
    pub extra_flags: Vec<String>,
}

impl Spec {
    /// The flags, which are the same for etcd and Quorate.
    pub fn flags(&self) -> Vec<String> {
        let client_url = format!("http://127.0.0.1:{}", self.client_port);
        let mut flags = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.data_dir.display()),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            format!("--listen-peer-urls=http://127.0.0.1:{}", self.peer_port),
            format!(
                "--initial-advertise-peer-urls=http://127.0.0.1:{}",
                self.advertised_peer_port
            ),
            format!("--initial-cluster={}", self.initial_cluster),
            "--initial-cluster-token=e2e".to_owned(),
            "--initial-cluster-state=new".to_owned(),
        ];
        flags.extend(self.extra_flags.iter().cloned());
        flags
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// One member, running or not. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    pub spec: Spec,
    child: Option<Child>,
    /// Where in the log file the present run begins.
    log_start: u64,
}

impl Process {
    /// Starts the program; [`Process::ready`] waits until it serves.
    ///
    /// # Errors
    /// When the program is not there or cannot be started.
    pub fn start(spec: Spec) -> Result<Self> {
        let mut process = Self {
            spec,
            child: None,
            log_start: 0,
        };
        process.restart()?;
        Ok(process)
    }

    /// Starts it again on the same data directory and ports.
    ///
    /// # Errors
    /// When it still runs or cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        if self.child.is_some() {
            bail!("{} still runs", self.spec.name);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.spec.log)
            .with_context(|| format!("open {}", self.spec.log.display()))?;
        self.log_start = log.metadata()?.len();
        let child = Command::new(self.spec.kind.server()?)
            .args(self.spec.flags())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env("RUST_BACKTRACE", "1")
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits for the ready line and a linearizable read.
    ///
    /// # Errors
    /// When the process ends or the deadline passes; the message holds the end of its log.
    pub async fn ready(&mut self) -> Result<()> {
        self.ready_within(START_DEADLINE).await
    }

    /// As [`Process::ready`], for a start that has much to do.
    ///
    /// # Errors
    /// As [`Process::ready`].
    pub async fn ready_within(&mut self, deadline: Duration) -> Result<()> {
        let port = self.spec.client_port;
        let waited = wait::until("a member that serves", deadline, async || {
            if let Some(status) = self.exit_status()? {
                bail!("{} ended with {status}", self.spec.name);
            }
            if !self.log()?.contains(READY_LINE) {
                return Ok(None);
            }
            Ok(rpc::linearizable_read(port).await.ok())
        })
        .await;
        match waited {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(format!(
                "{} is not ready; its log ends:\n{}",
                self.spec.name,
                self.log_tail()?
            ))),
        }
    }

    /// The log of the present run.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let mut file = File::open(&self.spec.log)?;
        file.seek(SeekFrom::Start(self.log_start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The last lines of the log, for messages.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log_tail(&self) -> Result<String> {
        let log = self.log()?;
        let lines: Vec<&str> = log.lines().collect();
        Ok(lines[lines.len().saturating_sub(25)..].join("\n"))
    }

    /// The process ID while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How the process ended, if it did by itself.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// When it still runs at the deadline.
    pub async fn ended(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let status = wait::until("the end of a process", deadline, async || {
            self.exit_status()
        })
        .await
        .with_context(|| self.log_tail().unwrap_or_default())?;
        self.child = None;
        Ok(status)
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("a process to kill")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends a signal, such as [`Signal::STOP`], [`Signal::CONT`] or [`Signal::TERM`]. After
    /// `STOP` it has stopped when this returns: until then a signal is only on its way.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("a running process")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("a process ID is not zero")?;
        kill_process(pid, signal)?;
        if signal == Signal::STOP {
            let how = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            waitid(WaitId::Pid(pid), how)?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended(Duration::from_secs(30)).await
    }

    /// CPU time and memory so far.
    ///
    /// # Errors
    /// When it does not run.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.pid().context("a running process")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to kill.
            if child.kill().is_ok() {
                child.wait().ok();
            }
        }
    }
}

/// CPU time and memory of any process, from `/proc`.
///
/// # Errors
/// When there is no such process.
pub fn usage(pid: u32) -> Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets and may hold spaces.
    let (_, fields) = stat.rsplit_once(')').context("a stat line")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let user: u64 = fields.get(11).context("utime")?.parse()?;
    let system: u64 = fields.get(12).context("stime")?.parse()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let resident_pages: u64 = fields.get(21).context("rss")?.parse()?;
    Ok(Usage {
        cpu: Duration::from_micros((user + system) * 1_000_000 / ticks_per_second),
        resident_bytes: resident_pages * rustix::param::page_size() as u64,
    })
}
