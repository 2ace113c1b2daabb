//! Programs of a container: with its environment, where the names of Pods are known.

use super::Shared;
use super::rewrite::Rewriter;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// Where programs lie in every image.
pub(super) const PROGRAMS: &str = "/usr/bin";

/// The names of programs in an image, and what was built.
const PROGRAM_NAMES: &[(&str, &str)] = &[
    ("quorate", "quorate"),
    ("quorate-sidecar", "quorate-sidecar"),
    ("quoratectl", "quoratectl"),
    ("etcdctl", "quoratectl"),
    ("etcdutl", "quoratectl"),
];

/// Everything by which a program of a container is started.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) environment: BTreeMap<String, String>,
    pub(super) rewriter: Rewriter,
    pub(super) log: PathBuf,
}

/// A program with all that it started, killed when dropped.
#[derive(Debug)]
pub(super) struct Run {
    child: Child,
    pub(super) group: Pid,
}

impl Run {
    /// How it ended, if it did.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(super) fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            // As in a container, nothing outlives the first program.
            self.kill();
        }
        Ok(status)
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(super) async fn end(&mut self) -> Result<std::process::ExitStatus> {
        let status = self.child.wait().await?;
        self.kill();
        Ok(status)
    }

    /// kill -9 to all of it.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends a signal to all of it.
    pub(super) fn signal(&self, signal: Signal) {
        // Who has ended needs no signal.
        kill_process_group(self.group, signal).ok();
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder in which every image has its programs: names that lead to what was built.
///
/// # Errors
/// When the server was not built.
pub(super) fn programs(directory: &Path) -> Result<PathBuf> {
    let built = crate::binaries::our_program("quorate")?;
    let built = built.parent().context("a program lies in a folder")?;
    let folder = directory.join("bin");
    std::fs::create_dir_all(&folder)?;
    for (name, program) in PROGRAM_NAMES {
        // One that was not built is told by the container that wants it.
        std::os::unix::fs::symlink(built.join(program), folder.join(name))?;
    }
    Ok(folder)
}

impl Room {
    fn command(&self, shared: &Shared, argv: &[String]) -> Result<Command> {
        let (program, args) = argv.split_first().context("a command")?;
        let program = self.rewriter.text(program);
        let path = match program.contains('/') {
            true => PathBuf::from(&program),
            false => shared.programs.join(&program),
        };
        ensure!(
            path.is_file(),
            "exec: {program:?}: no such file in the image"
        );
        let (first, mut line) = shared.names.command(&path);
        line.extend(
            args.iter()
                .map(|arg| OsString::from(self.rewriter.text(arg))),
        );
        let mut command = Command::new(first);
        command
            .args(line)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .envs(&self.environment)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    /// Starts the container's own program; what it says goes to the log.
    ///
    /// # Errors
    /// When there is no such program.
    pub(super) fn start(&self, shared: &Shared, argv: &[String]) -> Result<Run> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let child = self
            .command(shared, argv)?
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let id = child.id().context("a process that just began")?;
        let group = Pid::from_raw(i32::try_from(id)?).context("a process ID is not zero")?;
        Ok(Run { child, group })
    }

    /// Runs another program beside it to its end, as `kubectl exec` and hooks do.
    ///
    /// # Errors
    /// When it cannot be started or takes longer than `deadline`.
    pub(super) async fn exec(
        &self,
        shared: &Shared,
        argv: &[String],
        deadline: Duration,
    ) -> Result<Output> {
        let mut command = self.command(shared, argv)?;
        let output = tokio::time::timeout(deadline, command.output()).await;
        Ok(output.with_context(|| format!("{argv:?} takes longer than {deadline:?}"))??)
    }
}
