//! Pauses, hibernation, hand edits, certificates, and the end of clusters and namespaces.

use crate::spec;
use anyhow::{Context, Result, ensure};
use quorate_e2e::kubelet::lab::Lab;
use quorate_e2e::kubelet::load::Load;
use quorate_e2e::kubelet::space::{Space, condition, is_observed};
use serde_json::{Value, json};

fn none(list: &Value) -> bool {
    list["items"].as_array().is_some_and(Vec::is_empty)
}

#[test]
fn clusters_hibernate_and_come_back() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "sleep").await?;
        space.cluster("main", &spec(3)).await?;
        let before = space.settled("main", 3).await?;
        let members = space.members("main").await?;
        space.ctl(&members[0], &["put", "key", "value"]).await?;
        space
            .edit("main", &json!({"lifecycle": "Hibernated"}))
            .await?;
        space.until("no Pods", "pods", none).await?;
        let sleeps =
            |cluster: &Value| is_observed(cluster) && condition(cluster, "Ready").1 == "Hibernated";
        space.cluster_until("sleep", "main", sleeps).await?;
        let claims = lab.rest.get(&space.path("persistentvolumeclaims")).await?;
        ensure!(
            claims["items"].as_array().is_some_and(|all| all.len() == 3),
            "{claims:#}"
        );
        space.edit("main", &json!({"lifecycle": "Running"})).await?;
        let after = space.settled("main", 3).await?;
        ensure!(space.members("main").await? == members, "the same members");
        ensure!(after["status"]["clusterId"] == before["status"]["clusterId"]);
        let said = space
            .ctl(&members[0], &["get", "key", "--print-value-only"])
            .await?;
        ensure!(said.trim() == "value", "{said}");
        space.remove().await
    })
}

#[test]
fn a_pause_changes_nothing_and_ends() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "pause").await?;
        space.cluster("main", &spec(1)).await?;
        space.settled("main", 1).await?;
        space.edit("main", &json!({"lifecycle": "Paused"})).await?;
        let pauses =
            |cluster: &Value| is_observed(cluster) && cluster.to_string().contains("\"Paused\"");
        space.cluster_until("a pause", "main", pauses).await?;
        space.edit("main", &json!({"replicas": 3})).await?;
        space
            .cluster_until("the edit is seen", "main", is_observed)
            .await?;
        ensure!(
            space.members("main").await?.len() == 1,
            "a pause changes nothing"
        );
        space.edit("main", &json!({"lifecycle": "Running"})).await?;
        space.settled("main", 3).await?;
        space.remove().await
    })
}

#[test]
fn hand_edits_are_put_right() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "edits").await?;
        space.cluster("main", &spec(1)).await?;
        space.settled("main", 1).await?;
        let client = space.path("services/main-client");
        let patch = json!({"spec": {"selector": {"app": "wrong"}}});
        lab.rest.merge(&client, &patch).await?;
        let is_right = |service: &Value| {
            service["spec"]["selector"]["app"].is_null()
                && service["spec"]["selector"]["quorate.dev/cluster"] == "main"
        };
        lab.until("a selector", &client, is_right).await?;
        for object in [
            "services/main-peer",
            "poddisruptionbudgets/main",
            "networkpolicies/main",
        ] {
            let path = space.path(object);
            let uid = lab.rest.get(&path).await?["metadata"]["uid"].clone();
            lab.rest.delete(&path).await?;
            let is_new = |new: &Value| !new.is_null() && new["metadata"]["uid"] != uid;
            lab.until(object, &path, is_new).await?;
        }
        space.settled("main", 1).await?;
        space.remove().await
    })
}

#[test]
fn volumes_stay_or_go_with_their_cluster() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "reclaim").await?;
        let mut kept = spec(1);
        kept["storage"]["reclaim"] = json!("Retain");
        space.cluster("kept", &kept).await?;
        space.cluster("gone", &spec(1)).await?;
        space.settled("kept", 1).await?;
        space.settled("gone", 1).await?;
        let member = space.members("kept").await?.pop().context("a member")?;
        for cluster in ["kept", "gone"] {
            space.delete(&format!("quorateclusters/{cluster}")).await?;
            space
                .cluster_until("its end", cluster, Value::is_null)
                .await?;
        }
        space.until("no Pods", "pods", none).await?;
        let is_left = |list: &Value| {
            let all = list["items"].as_array();
            all.is_some_and(|all| all.len() == 1)
        };
        let claims = space
            .until("one claim", "persistentvolumeclaims", is_left)
            .await?;
        let name = &claims["items"][0]["metadata"]["name"];
        ensure!(*name == format!("{member}-data"), "{name}");
        ensure!(
            lab.kubelet
                .claim_folder(&space.name, &format!("{member}-data"))
                .is_some()
        );
        space.remove().await
    })
}

/// The serial number of what a member shows to clients.
async fn certificate(space: &Space<'_>, cluster: &str) -> Result<Value> {
    let secret = space
        .lab
        .rest
        .get(&space.path(&format!("secrets/{cluster}-server-tls")))
        .await?;
    Ok(secret["data"]["tls.crt"].clone())
}

#[test]
fn certificates_change_with_no_restart() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "certs").await?;
        space.cluster("main", &spec(3)).await?;
        space.settled("main", 3).await?;
        let load = Load::start(&space, "main").await?;
        let uids = async || {
            let pods = space.pods("main").await?;
            let uids = pods.iter().map(|pod| pod["metadata"]["uid"].to_string());
            Ok::<_, anyhow::Error>(uids.collect::<std::collections::BTreeSet<_>>())
        };
        let before = (certificate(&space, "main").await?, uids().await?);
        // Another name asks for other certificates.
        let edit = json!({"service": {"additionalSANs": ["main.example.org"]}});
        space.edit("main", &edit).await?;
        let path = space.path("secrets/main-server-tls");
        let is_new = |secret: &Value| secret["data"]["tls.crt"] != before.0;
        lab.until("another certificate", &path, is_new).await?;
        space.settled("main", 3).await?;
        load.more().await?;
        ensure!(uids().await? == before.1, "a certificate costs no restart");
        // Each member shows the new one, by the new name.
        let identity = space.identity("main").await?.context("TLS")?;
        for address in space.service("main").endpoints() {
            quorate_e2e::wait::until(
                "the new name",
                quorate_e2e::kubelet::lab::DEADLINE,
                async || {
                    let address = address.to_string();
                    let socket = quorate_tls::Socket::connect_tcp(&address, 2379).await?;
                    Ok(identity
                        .secure(socket, "main.example.org")
                        .await
                        .ok()
                        .map(drop))
                },
            )
            .await?;
        }
        load.finish().await?;
        space.remove().await
    })
}

#[test]
fn a_namespace_goes_with_its_clusters() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "whole").await?;
        space.cluster("main", &spec(3)).await?;
        // In the middle of its birth.
        let begins = |list: &Value| !none(list);
        space.until("a Pod", "pods", begins).await?;
        space.remove().await
    })
}
