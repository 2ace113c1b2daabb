//! A namespace with clusters of Quorate in it, on the lab's nodes.

use super::lab::{DEADLINE, Lab};
use super::{Place, Service};
use crate::kubernetes::rest::Answer;
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_tls::{Identity, Options};
use serde_json::{Value, json};
use std::process::Output;
use std::sync::Arc;

/// Where a condition stands: its status, reason and message.
pub fn condition<'a>(object: &'a Value, kind: &str) -> (&'a str, &'a str, &'a str) {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|one| one["type"] == kind));
    found.map_or(("", "", ""), |one| {
        let text = |field: &str| one[field].as_str().unwrap_or_default();
        (text("status"), text("reason"), text("message"))
    })
}

/// Whether the operator has looked at the newest spec.
pub fn is_observed(cluster: &Value) -> bool {
    let generation = &cluster["metadata"]["generation"];
    generation.is_i64() && cluster["status"]["observedGeneration"] == *generation
}

/// Whether the operator has brought the cluster to its spec, with so many members.
pub fn is_settled(cluster: &Value, replicas: usize) -> bool {
    is_observed(cluster)
        && cluster["status"]["readyMembers"] == replicas
        && cluster["status"]["replicas"] == replicas
        && condition(cluster, "Ready").0 == "True"
        && condition(cluster, "Converged").0 == "True"
}

/// A namespace of its own for one test.
#[derive(Debug)]
pub struct Space<'l> {
    pub lab: &'l Lab,
    pub name: String,
}

impl<'l> Space<'l> {
    /// Makes the namespace.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn new(lab: &'l Lab, name: &str) -> Result<Self> {
        lab.namespace(name).await?;
        let name = name.to_owned();
        Ok(Self { lab, name })
    }

    /// The path of a collection or of an object of it, such as `pods` or `quorateclusters/main`.
    pub fn path(&self, what: &str) -> String {
        let kind = what.split(['/', '?']).next().unwrap_or_default();
        let group = match kind {
            _ if kind.starts_with("quorate") => "apis/quorate.dev/v1alpha1",
            "poddisruptionbudgets" => "apis/policy/v1",
            "networkpolicies" => "apis/networking.k8s.io/v1",
            _ => "api/v1",
        };
        format!("/{group}/namespaces/{}/{what}", self.name)
    }

    /// Makes an object of a kind from all but its names.
    ///
    /// # Errors
    /// When no sure answer comes.
    pub async fn try_create(&self, collection: &str, name: &str, rest: &Value) -> Result<Answer> {
        let mut object = rest.clone();
        object["metadata"]["name"] = name.into();
        let kind = match collection {
            "quorateclusters" => Some("QuorateCluster"),
            "quoratebackups" => Some("QuorateBackup"),
            _ => None,
        };
        if let Some(kind) = kind {
            object["apiVersion"] = "quorate.dev/v1alpha1".into();
            object["kind"] = kind.into();
        }
        let body = Some(("application/json", &object));
        Ok(self
            .lab
            .rest
            .settled("POST", &self.path(collection), body)
            .await?
            .0)
    }

    /// The same, which must not be refused.
    ///
    /// # Errors
    /// When it is.
    pub async fn create(&self, collection: &str, name: &str, rest: &Value) -> Result<Value> {
        self.try_create(collection, name, rest).await?.ok()
    }

    /// Makes a cluster by its spec.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn cluster(&self, name: &str, spec: &Value) -> Result<()> {
        self.create("quorateclusters", name, &json!({"spec": spec}))
            .await?;
        Ok(())
    }

    /// Changes a cluster's spec by a merge patch.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn edit(&self, cluster: &str, spec: &Value) -> Result<()> {
        let path = self.path(&format!("quorateclusters/{cluster}"));
        self.lab.rest.merge(&path, &json!({"spec": spec})).await?;
        Ok(())
    }

    /// Waits until an object says what is wanted; one that is gone is null.
    ///
    /// # Errors
    /// When it does not in time, with what it said last.
    pub async fn until(
        &self,
        what: &str,
        object: &str,
        wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        self.lab.until(what, &self.path(object), wanted).await
    }

    /// The same of a cluster.
    ///
    /// # Errors
    /// When it does not in time, with what it said last.
    pub async fn cluster_until(
        &self,
        what: &str,
        cluster: &str,
        wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        self.until(what, &format!("quorateclusters/{cluster}"), wanted)
            .await
    }

    /// Waits until a cluster is as its spec wants it, with so many members.
    ///
    /// # Errors
    /// When it does not come to that in time, with what it was last.
    pub async fn settled(&self, cluster: &str, replicas: usize) -> Result<Value> {
        let what = format!("{cluster} with {replicas} members");
        self.cluster_until(&what, cluster, |cluster| is_settled(cluster, replicas))
            .await
    }

    /// The Pods of a cluster's members.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn pods(&self, cluster: &str) -> Result<Vec<Value>> {
        let query = format!("pods?labelSelector=quorate.dev/cluster={cluster}");
        let list = self.lab.rest.get(&self.path(&query)).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The names of a cluster's Pods, in order.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn members(&self, cluster: &str) -> Result<Vec<String>> {
        let pods = self.pods(cluster).await?;
        let names = pods
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Where a member is.
    pub fn place(&self, member: &str) -> Place {
        Place::new(&self.name, member)
    }

    /// Runs a command in a member's container.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn exec(&self, member: &str, argv: &[&str]) -> Result<Output> {
        self.lab
            .kubelet
            .exec(&self.place(member), "quorate", argv)
            .await
    }

    /// Runs `quoratectl` in a member's Pod, with no flags; gives back what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub async fn ctl(&self, member: &str, args: &[&str]) -> Result<String> {
        let argv = [&["/usr/bin/quoratectl"], args].concat();
        let output = self.exec(member, &argv).await?;
        ensure!(output.status.success(), "{args:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The client Service of a cluster.
    pub fn service(&self, cluster: &str) -> Service {
        self.lab.kubelet.service(&self.name, cluster)
    }

    /// What a client of a cluster shows and trusts, from the Secret that the status names. Nothing
    /// when it speaks in plaintext.
    ///
    /// # Errors
    /// When the Secret is not there or no good.
    pub async fn identity(&self, cluster: &str) -> Result<Option<Arc<Identity>>> {
        let object = self
            .lab
            .rest
            .get(&self.path(&format!("quorateclusters/{cluster}")))
            .await?;
        let Some(name) = object["status"]["clientSecret"].as_str() else {
            return Ok(None);
        };
        let secret = self
            .lab
            .rest
            .get(&self.path(&format!("secrets/{name}")))
            .await?;
        let folder = self
            .lab
            .dir
            .path()
            .join("clients")
            .join(&self.name)
            .join(cluster);
        std::fs::create_dir_all(&folder)?;
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            let text = secret["data"][file]
                .as_str()
                .with_context(|| format!("{name}: {file}"))?;
            crate::authority::replace(&folder.join(file), &STANDARD.decode(text)?)?;
        }
        let identity = Identity::load(Options {
            trusted_ca_file: folder.join("ca.crt"),
            cert_file: folder.join("tls.crt"),
            key_file: folder.join("tls.key"),
            ..Options::default()
        })?;
        Ok(Some(Arc::new(identity)))
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete(&self, object: &str) -> Result<()> {
        self.lab.rest.delete(&self.path(object)).await
    }

    /// Deletes the namespace and waits until nothing of it is left.
    ///
    /// # Errors
    /// When something stays.
    pub async fn remove(self) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}", self.name);
        self.lab.rest.delete(&path).await?;
        let what = format!("the end of a namespace within {DEADLINE:?}");
        self.lab.until(&what, &path, Value::is_null).await?;
        Ok(())
    }
}
