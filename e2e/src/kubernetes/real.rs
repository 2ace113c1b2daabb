//! A whole Kubernetes of one node from the real programs, in namespaces of its own, on a store of
//! three members. Or, with `KUBECONFIG`, the cluster that a user has.

pub mod control;
pub mod kube;
pub mod load;
pub mod node;
pub mod prometheus;
pub mod provisioner;
pub mod sandbox;
pub mod space;

use crate::binaries::Kind;
use anyhow::{Context, Result};
use control::{Control, Identity, START_DEADLINE};
use kube::Kube;
use node::Node;
use provisioner::Provisioner;
use sandbox::Sandbox;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const COREDNS: &str = include_str!("real/coredns.yaml");

/// A cluster to run scenarios on.
#[derive(Debug)]
pub struct Real {
    pub kube: Kube,
    /// What is our own; nothing when the cluster is a user's.
    pub own: Option<Own>,
    // Declared last, hence dropped last.
    dir: TempDir,
}

/// The parts of a cluster that the harness started. Dropped from the top, so that nothing is
/// told to end after what it stands on.
#[derive(Debug)]
pub struct Own {
    pub provisioner: Provisioner,
    pub node: Node,
    pub control: Control,
    pub sandbox: Sandbox,
    pub identity: Identity,
}

impl Real {
    /// Starts one, or takes that of `KUBECONFIG`.
    ///
    /// # Errors
    /// When something is missing or does not become ready. Logs are then kept, and the message
    /// says where.
    pub async fn start() -> Result<Self> {
        // A short path: sockets lie below it.
        let dir = tempfile::Builder::new().prefix("qk-").tempdir()?;
        if let Some(kubeconfig) = std::env::var_os("KUBECONFIG") {
            let kube = Kube::new(Vec::new(), Path::new(&kubeconfig), dir.path());
            kube.kubectl(&["get", "--raw=/readyz"], "").await?;
            let own = None;
            return Ok(Self { kube, own, dir });
        }
        match start(dir.path()).await {
            Ok((kube, own)) => Ok(Self {
                kube,
                own: Some(own),
                dir,
            }),
            Err(error) => {
                let kept = keep_logs(dir.path())?;
                Err(error.context(format!("logs are in {}", kept.display())))
            }
        }
    }

    /// Says what went wrong, with the state of the cluster and its logs in a folder that stays.
    pub async fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let mut state = String::new();
        for args in [
            &[
                "get",
                "all,pvc,pv,secrets,configmaps,leases",
                "-A",
                "-o",
                "wide",
            ][..],
            &[
                "get",
                "quorateclusters,quoratemembers,quoratebackups",
                "-A",
                "-o",
                "yaml",
            ],
            &["get", "events", "-A", "--sort-by=.lastTimestamp"],
            &["describe", "pods", "-A"],
        ] {
            let said = match self.kube.try_kubectl(args, "").await {
                Ok(output) => [output.stdout, output.stderr].concat(),
                Err(error) => format!("{error:#}").into_bytes(),
            };
            state += &format!("# kubectl {args:?}\n{}\n", String::from_utf8_lossy(&said));
        }
        let kept = std::fs::write(self.dir.path().join("state.log"), state)
            .map_err(anyhow::Error::from)
            .and_then(|()| keep_logs(self.dir.path()));
        match kept {
            Ok(kept) => error.context(format!("logs are in {}", kept.display())),
            Err(other) => error.context(format!("its logs could not be kept: {other:#}")),
        }
    }

    /// A folder of the test's own, which goes with the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// Starts all of it, from the bottom.
async fn start(dir: &Path) -> Result<(Kube, Own)> {
    let store = store()?;
    let sandbox = Sandbox::new(dir)?;
    let identity = Identity::new(dir)?;
    let kube = Kube::new(sandbox.prefix(), &identity.kubeconfig("admin"), dir);
    let control = Control::start(&sandbox, &identity, store, &kube).await?;
    let node = Node::start(&sandbox, &identity, dir, &kube).await?;
    let provisioner = Provisioner::start(&kube, dir).await?;
    kube.apply(COREDNS).await?;
    let args = ["deployment", "-n", "kube-system", "coredns"];
    kube.until("a name server", START_DEADLINE, &args, |deployment| {
        deployment["status"]["readyReplicas"] == 1
    })
    .await?;
    let own = Own {
        provisioner,
        node,
        control,
        sandbox,
        identity,
    };
    Ok((kube, own))
}

/// What the API server keeps its objects in: Quorate, or what `QUORATE_E2E_STORE` names.
fn store() -> Result<Kind> {
    match std::env::var("QUORATE_E2E_STORE") {
        Ok(name) => Kind::parse(&name),
        Err(_) => Ok(Kind::Quorate),
    }
}

/// Copies the logs to where they stay.
fn keep_logs(dir: &Path) -> Result<PathBuf> {
    let kept = tempfile::Builder::new()
        .prefix("quorate-e2e-logs-")
        .tempdir()?
        .keep();
    copy_logs(dir, &kept)?;
    for pod in folders(&dir.join("pods"))? {
        for container in folders(&pod)? {
            let inner = container.strip_prefix(dir)?;
            copy_logs(&container, &kept.join(inner))?;
        }
    }
    Ok(kept)
}

/// The folders in a folder, which need not be there.
fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if dir.is_dir() {
        for entry in std::fs::read_dir(dir)? {
            found.push(entry?.path());
        }
    }
    found.retain(|path| path.is_dir());
    Ok(found)
}

fn copy_logs(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "log") {
            std::fs::copy(&path, to.join(path.file_name().context("a name")?))?;
        }
    }
    Ok(())
}
