//! Edits of a running cluster: each member is brought to them, one by one, the leader last.

use crate::spec;
use anyhow::{Context, Result, ensure};
use quorate_e2e::kubelet::lab::Lab;
use quorate_e2e::kubelet::load::Load;
use quorate_e2e::kubelet::space::Space;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names and UIDs of the Pods, in the order in which they were made.
async fn births(space: &Space<'_>) -> Result<Vec<(String, String, String)>> {
    let mut births = Vec::new();
    for pod in space.pods("main").await? {
        let meta = &pod["metadata"];
        let text = |field: &str| meta[field].as_str().map(str::to_owned).context("a text");
        births.push((text("creationTimestamp")?, text("name")?, text("uid")?));
    }
    births.sort_unstable();
    Ok(births)
}

async fn uids(space: &Space<'_>) -> Result<BTreeMap<String, String>> {
    let births = births(space).await?.into_iter();
    Ok(births.map(|(_, name, uid)| (name, uid)).collect())
}

/// Makes an edit under load, and sees that all Pods are made again but none of the members.
async fn rolls(space: &Space<'_>, load: &Load<'_>, what: &str, edit: &Value) -> Result<()> {
    let before = uids(space).await?;
    let cluster = space.settled("main", 3).await?;
    let leader = cluster["status"]["leader"]
        .as_str()
        .context("a leader")?
        .to_owned();
    space.edit("main", edit).await?;
    space.settled("main", 3).await?;
    let births = births(space).await?;
    let after = uids(space).await?;
    ensure!(
        before.keys().eq(after.keys()),
        "{what}: members are the same: {before:?}, {after:?}"
    );
    for (name, uid) in &after {
        ensure!(
            before.get(name) != Some(uid),
            "{what}: the Pod of {name} is an old one"
        );
    }
    let last = births.last().map(|(_, name, _)| name.clone());
    ensure!(
        last.as_ref() == Some(&leader),
        "{what}: {leader} led, {last:?} came last"
    );
    load.more().await.with_context(|| what.to_owned())
}

#[test]
fn fields_of_each_kind_roll_leader_last() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "roll").await?;
        space.cluster("main", &spec(3)).await?;
        space.settled("main", 3).await?;
        let edits = [
            ("image", json!({"image": {"tag": "other"}})),
            (
                "engine",
                json!({"engine": {"heartbeatMs": 120, "electionMs": 1200}}),
            ),
            (
                "resources",
                json!({"pod": {"resources": {"requests": {"cpu": "50m"}}}}),
            ),
            ("labels", json!({"pod": {"labels": {"team": "red"}}})),
        ];
        let load = Load::start(&space, "main").await?;
        for (what, edit) in &edits {
            rolls(&space, &load, what, edit).await?;
        }
        load.finish().await?;
        for pod in space.pods("main").await? {
            ensure!(pod["metadata"]["labels"]["team"] == "red", "{pod:#}");
            let containers = pod["spec"]["containers"].as_array().context("containers")?;
            let image = containers
                .iter()
                .find(|container| container["name"] == "quorate");
            let image = image.context("quorate")?;
            ensure!(
                image["image"]
                    .as_str()
                    .is_some_and(|text| text.ends_with(":other"))
            );
            let args = image["args"].to_string();
            ensure!(args.contains("--heartbeat-interval=120"), "{args}");
        }
        space.remove().await
    })
}

#[test]
fn volumes_grow_or_say_that_they_cannot() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "grow").await?;
        space.cluster("main", &spec(3)).await?;
        space.settled("main", 3).await?;
        let before = uids(&space).await?;
        space
            .edit("main", &json!({"storage": {"size": "2Gi"}}))
            .await?;
        let has_grown = |list: &Value| {
            let all = list["items"].as_array();
            all.is_some_and(|all| {
                all.iter()
                    .all(|claim| claim["status"]["capacity"]["storage"] == "2147483648")
            })
        };
        space
            .until("larger claims", "persistentvolumeclaims", has_grown)
            .await?;
        space.settled("main", 3).await?;
        ensure!(
            uids(&space).await? == before,
            "volumes grow under their Pods"
        );
        let mut fixed = spec(1);
        fixed["storage"]["storageClassName"] = json!(quorate_e2e::kubelet::FIXED_CLASS);
        space.cluster("fixed", &fixed).await?;
        space.settled("fixed", 1).await?;
        space
            .edit("fixed", &json!({"storage": {"size": "2Gi"}}))
            .await?;
        let says = |cluster: &Value| {
            let (status, reason, _) = quorate_e2e::kubelet::space::condition(cluster, "Stalled");
            status == "True" && reason == "VolumeNotExpandable"
        };
        space.cluster_until("a reason", "fixed", says).await?;
        space.remove().await
    })
}
