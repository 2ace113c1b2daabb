//! Volumes for claims of the class `local`: folders of the node, made once a Pod needs them.

use super::kube::Kube;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;

/// Its name in the storage class, and on what it made.
const PROVISIONER: &str = "quorate.dev/e2e";

/// Between two watches, when one ends.
const PAUSE: Duration = Duration::from_millis(500);

/// The class of its volumes. They do not really grow, but the claim may be asked to.
const CLASS: &str = r#"{
  "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
  "metadata": {"name": "local", "annotations":
    {"storageclass.kubernetes.io/is-default-class": "true"}},
  "provisioner": "quorate.dev/e2e", "volumeBindingMode": "WaitForFirstConsumer",
  "reclaimPolicy": "Delete", "allowVolumeExpansion": true
}"#;

/// A task that ends when this is dropped.
#[derive(Debug)]
pub struct Provisioner {
    tasks: Vec<JoinHandle<()>>,
}

impl Provisioner {
    /// Makes the class and serves it with folders under `dir`.
    ///
    /// # Errors
    /// When the class is refused.
    pub async fn start(kube: &Kube, dir: &Path) -> Result<Self> {
        kube.apply(CLASS).await?;
        let tasks = ["pvc", "pv"].map(|kind| {
            let (kube, dir) = (kube.clone(), dir.to_owned());
            tokio::spawn(async move {
                loop {
                    if let Err(error) = watch(&kube, kind, &dir).await {
                        eprintln!("provisioner: {kind}: {error:#}");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            })
        });
        Ok(Self {
            tasks: tasks.into(),
        })
    }
}

impl Drop for Provisioner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Follows one kind until the watch ends.
async fn watch(kube: &Kube, kind: &str, dir: &Path) -> Result<()> {
    let columns = "jsonpath={.metadata.namespace} {.metadata.name}{\"\\n\"}";
    let args = ["get", kind, "--all-namespaces", "--watch", "-o", columns];
    let mut child = kube.kubectl_command(&args)?.spawn()?;
    let output = child.stdout.take().context("standard output")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        let mut words = line.split_whitespace();
        let done = match (kind, words.next(), words.next()) {
            ("pvc", Some(namespace), Some(name)) => provide(kube, namespace, name, dir).await,
            ("pv", Some(name), None) => reclaim(kube, name).await,
            _ => Ok(()),
        };
        if let Err(error) = done {
            eprintln!("provisioner: {line}: {error:#}");
        }
    }
    Ok(())
}

/// Makes the volume of a claim, once the scheduler has chosen the node.
async fn provide(kube: &Kube, namespace: &str, name: &str, dir: &Path) -> Result<()> {
    let Some(claim) = kube.get(&["pvc", "-n", namespace, name]).await? else {
        return Ok(());
    };
    let chosen = &claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"];
    let is_ours = claim["spec"]["storageClassName"] == "local";
    if !is_ours || claim["status"]["phase"] != "Pending" || chosen.is_null() {
        return Ok(());
    }
    let uid = claim["metadata"]["uid"].as_str().context("a claim's UID")?;
    let volume = format!("pvc-{uid}");
    let path = dir.join("volumes").join(&volume);
    std::fs::create_dir_all(&path)?;
    // As other provisioners of folders do; what lies in it has modes of its own.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
    kube.apply(&persistent_volume(&volume, &path, &claim).to_string())
        .await?;
    Ok(())
}

fn persistent_volume(name: &str, path: &Path, claim: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
        },
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "local",
            "local": {"path": path},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim["metadata"]["namespace"],
                "name": claim["metadata"]["name"],
                "uid": claim["metadata"]["uid"],
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]},
            ]}]}},
        },
    })
}

/// Removes a volume whose claim is gone, with all that is in it.
async fn reclaim(kube: &Kube, name: &str) -> Result<()> {
    let Some(volume) = kube.get(&["pv", name]).await? else {
        return Ok(());
    };
    let by = &volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"];
    if by != PROVISIONER || volume["status"]["phase"] != "Released" {
        return Ok(());
    }
    let path = volume["spec"]["local"]["path"].as_str().context("a path")?;
    if let Err(error) = std::fs::remove_dir_all(PathBuf::from(path))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    kube.kubectl(&["delete", "pv", name, "--wait=false"], "")
        .await?;
    Ok(())
}
