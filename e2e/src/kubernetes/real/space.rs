//! A namespace with clusters of Quorate in it, as a user sees them through kubectl.

use super::kube::Kube;
use super::node::is_ready;
use crate::wait::Patience;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a cluster may take to become what it should be, on a busy machine.
pub const CONVERGE_DEADLINE: Duration = Duration::from_secs(300);

/// How long a command in a Pod is tried while members come and go.
const CTL_DEADLINE: Duration = Duration::from_secs(60);

/// A namespace of its own for one scenario.
#[derive(Debug)]
pub struct Space {
    pub kube: Kube,
    pub name: String,
}

/// Where a condition stands: its status and its reason.
pub fn condition<'a>(object: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|one| one["type"] == kind));
    found.map_or(("", ""), |one| {
        let text = |field: &str| one[field].as_str().unwrap_or_default();
        (text("status"), text("reason"))
    })
}

/// Whether the operator has brought the cluster to its spec, with so many members.
fn is_settled(cluster: &Value, replicas: usize) -> bool {
    let generation = &cluster["metadata"]["generation"];
    let status = &cluster["status"];
    !generation.is_null()
        && status["observedGeneration"] == *generation
        && status["readyMembers"] == replicas
        && status["replicas"] == replicas
        && condition(cluster, "Ready").0 == "True"
        && condition(cluster, "Converged").0 == "True"
}

impl Space {
    /// Makes the namespace.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn new(kube: &Kube, name: &str) -> Result<Self> {
        kube.kubectl(&["create", "namespace", name], "").await?;
        Ok(Self {
            kube: kube.clone(),
            name: name.to_owned(),
        })
    }

    /// Runs kubectl in it.
    ///
    /// # Errors
    /// When it fails.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let args = [&["-n", &self.name], args].concat();
        self.kube.kubectl(&args, "").await
    }

    /// Gets objects of it.
    ///
    /// # Errors
    /// When kubectl fails.
    pub async fn get(&self, args: &[&str]) -> Result<Value> {
        let args = [&["-n", &self.name], args].concat();
        Ok(self.kube.get(&args).await?.unwrap_or(Value::Null))
    }

    /// Waits for what `args` get to satisfy the condition.
    ///
    /// # Errors
    /// When the deadline passes.
    pub async fn until(
        &self,
        what: &str,
        deadline: Duration,
        args: &[&str],
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let args = [&["-n", &self.name], args].concat();
        self.kube.until(what, deadline, &args, condition).await
    }

    /// Applies an object of a kind in this namespace.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn apply(&self, kind: &str, name: &str, rest: &Value) -> Result<()> {
        let mut object = rest.clone();
        object["kind"] = kind.into();
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = self.name.as_str().into();
        if object["apiVersion"].is_null() {
            object["apiVersion"] = "v1".into();
        }
        self.kube.apply(&object.to_string()).await?;
        Ok(())
    }

    /// Applies a cluster by its spec.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn cluster(&self, name: &str, spec: &Value) -> Result<()> {
        let object = json!({"apiVersion": "quorate.dev/v1alpha1", "spec": spec});
        self.apply("QuorateCluster", name, &object).await
    }

    /// Changes a cluster's spec by a merge patch.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn edit(&self, cluster: &str, spec: &Value) -> Result<()> {
        let patch = json!({"spec": spec}).to_string();
        let args = [
            "patch",
            "quoratecluster",
            cluster,
            "--type=merge",
            "-p",
            &patch,
        ];
        self.kubectl(&args).await?;
        Ok(())
    }

    /// Waits until a cluster is as its spec wants it, with so many members.
    ///
    /// # Errors
    /// When it does not come to that in time, with what it was last.
    pub async fn settled(&self, cluster: &str, replicas: usize) -> Result<Value> {
        let what = format!("{cluster} with {replicas} members");
        let args = ["quoratecluster", cluster];
        self.until(&what, CONVERGE_DEADLINE, &args, |cluster| {
            is_settled(cluster, replicas)
        })
        .await
    }

    /// The Pods of a cluster's members.
    ///
    /// # Errors
    /// When kubectl fails.
    pub async fn pods(&self, cluster: &str) -> Result<Vec<Value>> {
        let selector = format!("quorate.dev/cluster={cluster}");
        let list = self.get(&["pods", "-l", &selector]).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The names of a cluster's members.
    ///
    /// # Errors
    /// When kubectl fails.
    pub async fn members(&self, cluster: &str) -> Result<BTreeSet<String>> {
        let pods = self.pods(cluster).await?;
        let names = pods
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Runs a program in the Pod of a member that is ready, and tries again while none answers.
    ///
    /// # Errors
    /// When it fails for long.
    pub async fn ctl(&self, cluster: &str, words: &[&str]) -> Result<String> {
        let patience = Patience::new(&format!("{words:?} in a Pod"), CTL_DEADLINE);
        loop {
            let error = match self.try_ctl(cluster, words).await {
                Ok(output) => return Ok(output),
                Err(error) => format!("{error:#}"),
            };
            patience.pause().await.with_context(|| error)?;
        }
    }

    async fn try_ctl(&self, cluster: &str, words: &[&str]) -> Result<String> {
        let pods = self.pods(cluster).await?;
        let pod = pods.iter().find(|pod| is_ready(pod));
        let pod = pod.context("no Pod is ready")?["metadata"]["name"].clone();
        let pod = pod.as_str().context("a Pod's name")?;
        let args = [&["exec", pod, "-c", "quorate", "--"], words].concat();
        self.kubectl(&args).await
    }

    /// Deletes the namespace and waits until nothing of it is left.
    ///
    /// # Errors
    /// When something stays.
    pub async fn remove(self) -> Result<()> {
        let args = ["delete", "namespace", &self.name, "--wait=false"];
        self.kube.kubectl(&args, "").await?;
        let args = ["namespace", self.name.as_str()];
        self.kube.until_gone(CONVERGE_DEADLINE, &args).await
    }
}
