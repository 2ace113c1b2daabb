//! A Kubernetes that the tests of one program share: its store, its control plane and its nodes.

use super::Kubelet;
use super::operator::OperatorProcess;
use crate::binaries::Kind;
use crate::cluster::Cluster;
use crate::kubernetes::ControlPlane;
use crate::kubernetes::rest::Rest;
use crate::secure::{self, Files, Sides};
use crate::wait;
use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Enough for five members on nodes of their own, and one more.
const NODES: usize = 6;

/// How long anything that Pods are part of may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);

const EVENT_TTL: &str = "--event-ttl=1h";

/// How much of each log is shown when a test fails.
const LOG_LINES: usize = 15;

/// It begins with the first test that asks for it and ends with the last one that has it.
static SHARED: Mutex<Weak<Lab>> = Mutex::new(Weak::new());

/// Everything that runs. What is declared first ends first.
#[derive(Debug)]
pub struct Lab {
    operator: OnceLock<OperatorProcess>,
    pub kubelet: Kubelet,
    pub plane: ControlPlane,
    /// The administrator's connection.
    pub rest: Rest,
    #[expect(
        dead_code,
        reason = "it is the API server's store for as long as it is held"
    )]
    store: Cluster,
    #[expect(dead_code, reason = "the store's certificates are read again")]
    files: Files,
    /// Tests come and go; what is shared has a runtime of its own.
    runtime: Runtime,
    pub dir: TempDir,
}

impl Lab {
    /// Runs a test in the shared one.
    ///
    /// # Errors
    /// When the lab does not start, or the test fails.
    pub fn run(test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let lab = Self::shared()?;
        let outcome = lab.runtime.block_on(Box::pin(test(&lab)));
        outcome.with_context(|| lab.logs())
    }

    /// Runs a test of the operator, which is started with the first of them.
    ///
    /// # Errors
    /// When the lab or the operator does not start, or the test fails.
    pub fn with_operator(test: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let lab = Self::shared()?;
        {
            // Held while it starts, so that there is one.
            let _shared = SHARED.lock();
            if lab.operator.get().is_none() {
                lab.runtime.block_on(Box::pin(lab.define_kinds()))?;
                let operator = OperatorProcess::start(lab.plane.kubeconfig(), lab.dir.path())?;
                lab.operator.get_or_init(|| operator);
            }
        }
        Self::run(test)
    }

    /// The operator.
    ///
    /// # Errors
    /// When this is no test of it.
    pub fn operator(&self) -> Result<&OperatorProcess> {
        self.operator
            .get()
            .context("an operator: the test asks for none")
    }

    /// Teaches the API server the kinds of quorate.dev, as the chart holds them.
    async fn define_kinds(&self) -> Result<()> {
        // At run time: checkouts that share a target directory share this program.
        let package = std::env::var_os("CARGO_MANIFEST_DIR").context("cargo runs the tests")?;
        let kinds = Path::new(&package).join("../charts/quorate/files/crds");
        let kinds = kinds.display().to_string();
        self.plane
            .kubectl(&["apply", "--server-side", "-f", &kinds], "")
            .await?;
        let wait = ["wait", "--for=condition=Established", "crd", "--all"];
        self.plane.kubectl(&wait, "").await?;
        Ok(())
    }

    /// The ends of all logs, for messages.
    fn logs(&self) -> String {
        let dir = self.dir.path();
        let mut files: Vec<PathBuf> = vec![dir.join("kubelet.log"), dir.join("operator/log")];
        let pods = std::fs::read_dir(self.dir.path().join("pods"));
        for pod in pods.into_iter().flatten().flatten() {
            let containers = std::fs::read_dir(pod.path())
                .into_iter()
                .flatten()
                .flatten();
            files.extend(containers.map(|container| container.path().join("log")));
        }
        let mut text = String::new();
        for file in files {
            // A folder without a log is of a container that never began.
            let Ok(log) = std::fs::read(&file) else {
                continue;
            };
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            text.push_str(&format!("\n{}:\n{tail}\n", file.display()));
        }
        text
    }

    fn shared() -> Result<Arc<Self>> {
        // Held while it starts, so that there is one.
        let mut shared = SHARED.lock();
        if let Some(lab) = shared.upgrade() {
            return Ok(lab);
        }
        let lab = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&lab);
        Ok(lab)
    }

    fn start() -> Result<Self> {
        let runtime = Runtime::new()?;
        let dir = tempfile::Builder::new().prefix("quorate-lab-").tempdir()?;
        let (files, store, plane, kubelet) = runtime.block_on(Box::pin(async {
            let files = Files::new()?;
            let flags = files.flags(Sides::BOTH);
            let tls = Some(files.tls());
            let store = secure::start(Kind::under_test()?, 1, Sides::BOTH, flags, tls).await?;
            let urls = secure::url(&store.members[0], true);
            let more = [EVENT_TTL.to_owned()];
            let plane = ControlPlane::start_with(&urls, &files, &more).await?;
            let kubelet = Kubelet::start(plane.kubeconfig(), dir.path(), NODES).await?;
            Ok::<_, anyhow::Error>((files, store, plane, kubelet))
        }))?;
        Ok(Self {
            operator: OnceLock::new(),
            kubelet,
            rest: plane.rest.clone(),
            plane,
            store,
            files,
            runtime,
            dir,
        })
    }

    /// Makes a namespace and waits until Pods can be made in it.
    ///
    /// # Errors
    /// When there is one by that name.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({"metadata": {"name": name}});
        self.rest.create("/api/v1/namespaces", &namespace).await?;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        let is_there = |answer: &crate::kubernetes::rest::Answer| answer.status == 200;
        self.rest
            .until("the default account", &account, is_there)
            .await?;
        Ok(())
    }

    /// Waits until an object says what is wanted; gives back what it said.
    ///
    /// # Errors
    /// When it does not in time, with what it said last.
    pub async fn until(
        &self,
        what: &str,
        path: &str,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let waited = wait::until(what, DEADLINE, async || {
            let answer = self.rest.raw("GET", path, None).await?;
            // What is not there yet is as good as empty.
            last = match answer.status {
                404 => Value::Null,
                _ => answer.ok()?,
            };
            Ok(wanted(&last).then(|| last.clone()))
        });
        match waited.await {
            Ok(value) => Ok(value),
            Err(error) => Err(error.context(format!("{path} says {last:#}"))),
        }
    }
}
