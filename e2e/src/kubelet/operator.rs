//! The real operator as a process, which may be killed at any time and started again.

use crate::binaries::our_program;
use crate::process::free_port;
use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How soon another one takes over from one that was killed.
const LEASE_SECONDS: u32 = 3;

/// The program, running or killed. It is killed when dropped.
#[derive(Debug)]
pub struct OperatorProcess {
    kubeconfig: PathBuf,
    dir: PathBuf,
    child: Mutex<Option<Child>>,
}

impl OperatorProcess {
    /// Starts it for all namespaces; its log and certificates lie in `dir`.
    ///
    /// # Errors
    /// When it was not built.
    pub fn start(kubeconfig: &Path, dir: &Path) -> Result<Self> {
        let operator = Self {
            kubeconfig: kubeconfig.to_owned(),
            dir: dir.join("operator"),
            child: Mutex::default(),
        };
        std::fs::create_dir_all(&operator.dir)?;
        operator.restart()?;
        Ok(operator)
    }

    /// Starts it after it was killed.
    ///
    /// # Errors
    /// When it still runs or was not built.
    pub fn restart(&self) -> Result<()> {
        let mut child = self.child.lock();
        if child.is_some() {
            bail!("the operator still runs");
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        let started = Command::new(our_program("quorate-operator")?)
            .arg("run")
            .arg(format!("--listen=127.0.0.1:{}", free_port()?))
            .arg(format!("--lease-seconds={LEASE_SECONDS}"))
            .arg(format!("--run-dir={}", self.dir.join("run").display()))
            .arg("--log=info,quorate_operator=debug")
            .env("KUBECONFIG", &self.kubeconfig)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        *child = Some(started);
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child.lock().take().context("an operator to kill")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Fails when it has ended by itself, with the end of its log.
    ///
    /// # Errors
    /// When it has ended.
    pub fn is_running(&self) -> Result<()> {
        if let Some(child) = self.child.lock().as_mut()
            && let Some(status) = child.try_wait()?
        {
            bail!("the operator ended with {status}:\n{}", self.log()?);
        }
        Ok(())
    }

    /// Everything that it has said.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(self.log_file())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().take() {
            // It may have ended by itself; then there is nothing to kill.
            if child.kill().is_ok() {
                child.wait().ok();
            }
        }
    }
}
