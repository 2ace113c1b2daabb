//! kubectl and helm on a cluster, whichever it is: the test's own, or the one of `KUBECONFIG`.

use crate::binaries::{helm_program, kubernetes_program};
use crate::wait::Patience;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long one command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(300);

/// The administrator's way to a cluster.
#[derive(Clone, Debug)]
pub struct Kube {
    /// Words before each command: what enters the sandbox, or nothing.
    prefix: Vec<String>,
    kubeconfig: PathBuf,
    /// Where kubectl and helm may write.
    home: PathBuf,
}

impl Kube {
    /// A way through `prefix`; what the tools cache lies under `home`.
    pub fn new(prefix: Vec<String>, kubeconfig: &Path, home: &Path) -> Self {
        Self {
            prefix,
            kubeconfig: kubeconfig.to_owned(),
            home: home.to_owned(),
        }
    }

    /// The words that a user would type before `kubectl …` or `helm …`.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn hint(&self) -> Result<String> {
        let kubectl = kubernetes_program("kubectl")?;
        let kubeconfig = self.kubeconfig.display();
        let prefix = self.prefix.join(" ");
        Ok(format!(
            "{prefix} {} --kubeconfig={kubeconfig}",
            kubectl.display()
        ))
    }

    /// A command with a program of either.
    fn command(&self, program: &Path) -> Command {
        let mut words = self.prefix.iter().cloned();
        let mut command = match words.next() {
            None => Command::new(program),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
        };
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env("HELM_CACHE_HOME", self.home.join("helm-cache"))
            .env("HELM_CONFIG_HOME", self.home.join("helm-config"))
            .env("HELM_DATA_HOME", self.home.join("helm-data"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// A kubectl command that the caller runs by itself.
    ///
    /// # Errors
    /// When it is missing.
    pub fn kubectl_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.command(&kubernetes_program("kubectl")?);
        command.args(args);
        Ok(command)
    }

    async fn run(mut command: Command, input: &str) -> Result<Output> {
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("standard input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = tokio::time::timeout(COMMAND_DEADLINE, child.wait_with_output()).await;
        output.context("the command hangs")?.context("the command")
    }

    /// Runs kubectl, whatever it ends with.
    ///
    /// # Errors
    /// When it is missing or hangs.
    pub async fn try_kubectl(&self, args: &[&str], input: &str) -> Result<Output> {
        let ran = Self::run(self.kubectl_command(args)?, input).await;
        ran.with_context(|| format!("kubectl {args:?}"))
    }

    /// Runs kubectl; gives back what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let output = self.try_kubectl(args, input).await?;
        success("kubectl", args, output)
    }

    /// Runs helm; gives back what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        let mut command = self.command(&helm_program()?);
        command.args(args);
        let output = Self::run(command, "").await;
        success(
            "helm",
            args,
            output.with_context(|| format!("helm {args:?}"))?,
        )
    }

    /// Applies a manifest as server-side apply does.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl(&args, manifest).await
    }

    /// Gets objects; `None` when there is none of that name.
    ///
    /// # Errors
    /// When kubectl fails.
    pub async fn get(&self, args: &[&str]) -> Result<Option<Value>> {
        let words = [&["get", "-o", "json", "--ignore-not-found"], args].concat();
        let text = self.kubectl(&words, "").await?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// Waits until what `args` get satisfies the condition, and gives it back. Null stands for
    /// what is not there.
    ///
    /// # Errors
    /// When the deadline passes; the message holds what was there last.
    pub async fn until(
        &self,
        what: &str,
        deadline: Duration,
        args: &[&str],
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let patience = Patience::new(what, deadline);
        loop {
            let last = match self.get(args).await {
                Ok(value) => value.unwrap_or(Value::Null),
                // The API server may be away for a moment.
                Err(error) => Value::String(format!("{error:#}")),
            };
            if condition(&last) {
                return Ok(last);
            }
            let paused = patience.pause().await;
            paused.with_context(|| format!("last seen of {args:?}: {last:#}"))?;
        }
    }

    /// Waits until nothing is left of what `args` name.
    ///
    /// # Errors
    /// When the deadline passes.
    pub async fn until_gone(&self, deadline: Duration, args: &[&str]) -> Result<()> {
        let gone =
            |value: &Value| value.is_null() || value["items"].as_array().is_some_and(Vec::is_empty);
        let what = format!("{args:?} to be gone");
        self.until(&what, deadline, args, gone).await?;
        Ok(())
    }
}

fn success(tool: &str, args: &[&str], output: Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{tool} {args:?}: {said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(String::from_utf8(output.stdout)?)
}
