//! What is refused at once, and what only the operator can know.

use crate::spec;
use anyhow::{Result, ensure};
use quorate_e2e::kubelet::lab::Lab;
use quorate_e2e::kubelet::space::{Space, condition};
use serde_json::{Value, json};

#[test]
fn an_invalid_spec_is_refused_with_what_would_be_right() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "invalid").await?;
        let wrong = [
            (json!({"replicas": 2}), "replicas must be 1, 3, 5 or 7"),
            (
                json!({"replicas": 1, "storage": {"medium": "Memory"}}),
                "storage.medium Memory needs at least 3 replicas",
            ),
            (
                json!({"engine": {"heartbeatMs": 500, "electionMs": 1000}}),
                "electionMs must be at least 5 times heartbeatMs",
            ),
            (
                json!({"engine": {"extraArgs": {"data-dir": "/x"}}}),
                "may not name one that the operator sets",
            ),
            (json!({"version": "latest"}), "spec.version"),
            (json!({"lifecycle": "Asleep"}), "supported values"),
            (
                json!({"backup": {"store": {"s3": {"bucket": "b"}, "pvc": {"claimName": "c"}}}}),
                "exactly one of s3, gcs, azure and pvc",
            ),
        ];
        for (spec, text) in wrong {
            let object = json!({"spec": spec});
            let answer = space.try_create("quorateclusters", "main", &object).await?;
            let told = answer.body["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            ensure!(
                answer.status == 422 && told.to_lowercase().contains(&text.to_lowercase()),
                "{spec}: {} {told}",
                answer.status
            );
        }
        let long = "n".repeat(41);
        let answer = space
            .try_create("quorateclusters", &long, &json!({"spec": {}}))
            .await?;
        ensure!(answer.status == 422, "{answer:?}");
        // What must not change, once it is there.
        space.cluster("main", &spec(1)).await?;
        let changes = [
            (
                json!({"storage": {"medium": "Memory"}}),
                "storage.medium cannot change",
            ),
            (
                json!({"storage": {"storageClassName": "x"}}),
                "cannot change",
            ),
            (
                json!({"storage": {"size": "1Mi"}}),
                "storage.size can only grow",
            ),
            (
                json!({"bootstrap": {"fromBackup": {"backup": "x"}}}),
                "bootstrap",
            ),
        ];
        for (change, text) in changes {
            let outcome = space.edit("main", &change).await;
            let told = outcome
                .err()
                .map(|error| format!("{error:#}"))
                .unwrap_or_default();
            ensure!(told.contains(text), "{change}: {told:?}");
        }
        space.remove().await
    })
}

fn stalls(reason: &'static str) -> impl Fn(&Value) -> bool {
    move |cluster| {
        let (status, why, message) = condition(cluster, "Stalled");
        status == "True" && why == reason && !message.is_empty()
    }
}

#[test]
fn an_image_that_cannot_be_pulled_stalls_until_it_is_mended() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "image").await?;
        space.cluster("main", &spec(3)).await?;
        space.settled("main", 3).await?;
        space
            .edit("main", &json!({"image": {"tag": "missing"}}))
            .await?;
        let cluster = space.cluster_until("a reason", "main", stalls("ImagePullFailed"));
        let cluster = cluster.await?;
        // One member is away, the others are left alone.
        let pods = space.pods("main").await?;
        let old = pods
            .iter()
            .filter(|pod| !pod.to_string().contains(":missing"));
        ensure!(old.count() == 2, "{pods:#?}");
        ensure!(
            condition(&cluster, "QuorumHealthy").0 == "True",
            "{cluster:#}"
        );
        space
            .edit("main", &json!({"image": {"tag": "mended"}}))
            .await?;
        let cluster = space.settled("main", 3).await?;
        ensure!(condition(&cluster, "Stalled").0 != "True", "{cluster:#}");
        space.remove().await
    })
}

#[test]
fn a_secret_that_is_missing_stalls_until_it_is_there() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "secret").await?;
        let mut wanted = spec(1);
        wanted["tls"] = json!({"client": {"secretName": "given"}});
        space.cluster("main", &wanted).await?;
        let cluster = space
            .cluster_until("a reason", "main", stalls("SecretMissing"))
            .await?;
        ensure!(
            condition(&cluster, "Stalled").2.contains("given"),
            "{cluster:#}"
        );
        let names = [
            "localhost",
            "*.main-peer.secret.svc",
            "main-client.secret.svc",
        ];
        let directory = tempfile::tempdir()?;
        let authority = quorate_e2e::authority::Authority::new(directory.path(), "given")?;
        let subject = quorate_e2e::authority::Subject::at("given", 1, &names);
        let pair = authority.issue("pair", &subject)?;
        let secret = json!({"stringData": {
            "ca.crt": authority.pem,
            "tls.crt": std::fs::read_to_string(pair.cert)?,
            "tls.key": std::fs::read_to_string(pair.key)?,
        }});
        space.create("secrets", "given", &secret).await?;
        space.settled("main", 1).await?;
        space.remove().await
    })
}
