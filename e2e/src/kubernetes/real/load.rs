//! Load on a cluster of Quorate from a Pod beside it, and the proof that nothing of it was lost.

use super::space::{CONVERGE_DEADLINE, Space};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Acknowledged writes before a scenario goes on, so that it has load indeed.
const FIRST: usize = 25;

/// A Pod that writes.
#[derive(Debug)]
pub struct Load<'s> {
    space: &'s Space,
    cluster: String,
    pod: String,
}

impl<'s> Load<'s> {
    /// Starts it, and waits until writes are acknowledged.
    ///
    /// # Errors
    /// When none is.
    pub async fn start(space: &'s Space, cluster: &str) -> Result<Self> {
        let load = Self {
            space,
            cluster: cluster.to_owned(),
            pod: format!("{cluster}-load"),
        };
        let endpoint = format!("https://{cluster}-client.{}.svc:2379", space.name);
        let secret = format!("{cluster}-client-tls");
        let pod = json!({"spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
            "containers": [{
                "name": "load",
                "image": "localhost/load:1",
                "args": [endpoint, "/tls"],
                "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
            }],
            "volumes": [{"name": "tls", "secret": {"secretName": secret}}],
        }});
        space.apply("Pod", &load.pod, &pod).await?;
        load.more().await?;
        Ok(load)
    }

    /// Waits until more writes are acknowledged than now.
    ///
    /// # Errors
    /// When there are no more.
    pub async fn more(&self) -> Result<()> {
        let running = |pod: &Value| pod["status"]["phase"] == "Running";
        let args = ["pod", self.pod.as_str()];
        let deadline = CONVERGE_DEADLINE;
        self.space.until("load", deadline, &args, running).await?;
        let before = self.acknowledged().await?.len();
        let patience = crate::wait::Patience::new("acknowledged writes", deadline);
        while self.acknowledged().await?.len() < before + FIRST {
            patience.pause().await?;
        }
        Ok(())
    }

    /// Number and revision of each write that was acknowledged so far.
    async fn acknowledged(&self) -> Result<BTreeMap<u64, u64>> {
        let log = self.space.kubectl(&["logs", &self.pod]).await?;
        let mut found = BTreeMap::new();
        for line in log.lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some("acked") {
                let number = words.next().context("a number")?.parse()?;
                let revision = words.next().context("a revision")?.parse()?;
                found.insert(number, revision);
            }
        }
        Ok(found)
    }

    /// Ends the load; each acknowledged write must be in the store, at the revision that was told.
    ///
    /// # Errors
    /// When one is not.
    pub async fn finish(self) -> Result<usize> {
        self.more().await?;
        let acknowledged = self.acknowledged().await?;
        self.space
            .kubectl(&["delete", "pod", &self.pod, "--grace-period=0", "--force"])
            .await?;
        let words = ["quoratectl", "get", "load/", "--prefix", "-w", "json"];
        let text = self.space.ctl(&self.cluster, &words).await?;
        // Numbers of 64 bits stay whole in serde_json.
        let answer: Value = serde_json::from_str(&text)?;
        let mut stored = BTreeMap::new();
        for kv in answer["kvs"].as_array().context("keys")? {
            let revision = kv["mod_revision"].as_u64().context("a revision")?;
            stored.insert(kv["key"].as_str().context("a key")?.to_owned(), revision);
        }
        for (number, revision) in &acknowledged {
            // As the JSON of the command line tools shows bytes.
            let key = STANDARD.encode(format!("load/{number:08}"));
            let found = stored.get(&key);
            ensure!(
                found == Some(revision),
                "write {number} was acknowledged at revision {revision}, and is at {found:?}"
            );
        }
        Ok(acknowledged.len())
    }
}
