//! Faults: processes that die, objects that go, nodes that are lost, an operator that is killed.

use crate::spec;
use anyhow::{Context, Result, ensure};
use quorate_e2e::kubelet::lab::{DEADLINE, Lab};
use quorate_e2e::kubelet::load::Load;
use quorate_e2e::kubelet::space::{Space, is_settled};
use quorate_e2e::wait;
use rustix::process::Signal;
use serde_json::{Value, json};

/// How often a container has begun again.
fn restarts(pod: &Value, container: &str) -> i64 {
    let all = pod["status"]["containerStatuses"].as_array();
    let mut all = all.into_iter().flatten();
    let found = all.find(|status| status["name"] == container);
    found
        .and_then(|status| status["restartCount"].as_i64())
        .unwrap_or_default()
}

#[test]
fn containers_that_are_killed_begin_again() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "kill").await?;
        space.cluster("main", &spec(3)).await?;
        space.settled("main", 3).await?;
        let load = Load::start(&space, "main").await?;
        let members = space.members("main").await?;
        for member in &members {
            for container in ["quorate", "sidecar"] {
                lab.kubelet
                    .signal(&space.place(member), container, Signal::KILL)?;
                let path = format!("pods/{member}");
                let again = |pod: &Value| restarts(pod, container) == 1;
                space.until("a restart", &path, again).await?;
                space.settled("main", 3).await?;
            }
        }
        ensure!(
            space.members("main").await? == members,
            "no member is replaced"
        );
        load.finish().await?;
        space.remove().await
    })
}

#[test]
fn pods_and_volumes_that_are_deleted_come_back() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "delete").await?;
        space.cluster("main", &spec(3)).await?;
        space.settled("main", 3).await?;
        let load = Load::start(&space, "main").await?;
        // A Pod: the same member comes back with its data.
        let members = space.members("main").await?;
        let path = format!("pods/{}", members[0]);
        let uid = lab.rest.get(&space.path(&path)).await?["metadata"]["uid"].clone();
        space.delete(&path).await?;
        let is_new = |pod: &Value| !pod.is_null() && pod["metadata"]["uid"] != uid;
        space.until("another Pod", &path, is_new).await?;
        space.settled("main", 3).await?;
        ensure!(space.members("main").await? == members, "the same members");
        load.more().await?;
        // A claim, and then a claim and a Pod at once: another member takes its place.
        for with_pod in [false, true] {
            let before = space.members("main").await?;
            let victim = before[0].clone();
            space
                .delete(&format!("persistentvolumeclaims/{victim}-data"))
                .await?;
            if with_pod {
                space.delete(&format!("pods/{victim}")).await?;
            }
            let is_replaced = |cluster: &Value| {
                let members = cluster["status"]["members"].to_string();
                is_settled(cluster, 3) && !members.contains(&victim)
            };
            let what = format!("a member in place of {victim}");
            space.cluster_until(&what, "main", is_replaced).await?;
            load.more().await?;
        }
        load.finish().await?;
        space.remove().await
    })
}

#[test]
fn a_node_that_is_lost_is_replaced() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "node").await?;
        // On nodes of its own, since one of them goes.
        lab.kubelet.add_pool("loss", 4).await?;
        let mut spec = spec(3);
        spec["pod"]["nodeSelector"] = json!({"pool": "loss"});
        spec["pod"]["tolerations"] = json!([{"key": "pool", "operator": "Exists"}]);
        space.cluster("main", &spec).await?;
        space.settled("main", 3).await?;
        let load = Load::start(&space, "main").await?;
        let pods = space.pods("main").await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
        let victim = text(&pods[0]["metadata"]["name"])?;
        lab.kubelet
            .lose_node(&text(&pods[0]["spec"]["nodeName"])?)
            .await?;
        let is_replaced = |cluster: &Value| {
            is_settled(cluster, 3) && !cluster["status"]["members"].to_string().contains(&victim)
        };
        space
            .cluster_until("a member elsewhere", "main", is_replaced)
            .await?;
        load.finish().await?;
        Ok(())
    })
}

/// Kills the operator again and again until a cluster is as it should be.
async fn killed_until_settled(
    space: &Space<'_>,
    replicas: usize,
    extra: impl Fn(&Value) -> bool,
) -> Result<()> {
    let operator = space.lab.operator()?;
    let path = space.path("quorateclusters/main");
    for round in 0..4 {
        // Killed when it has got one step further than the last time.
        let before = space.lab.rest.get(&path).await?["status"]["operation"].clone();
        wait::until("another step", DEADLINE, async || {
            let now = space.lab.rest.get(&path).await?;
            let is_over = is_settled(&now, replicas) && extra(&now);
            let is_further = now["status"]["operation"] != before;
            Ok((is_over || is_further).then_some(()))
        })
        .await
        .with_context(|| format!("round {round}"))?;
        operator.kill()?;
        operator.restart()?;
    }
    let is_over = |cluster: &Value| is_settled(cluster, replicas) && extra(cluster);
    space
        .cluster_until("a settled cluster", "main", is_over)
        .await?;
    Ok(())
}

#[test]
fn the_operator_may_be_killed_at_any_step() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "killed").await?;
        space.cluster("main", &spec(1)).await?;
        space.settled("main", 1).await?;
        let load = Load::start(&space, "main").await?;
        space.edit("main", &json!({"replicas": 3})).await?;
        killed_until_settled(&space, 3, |_| true).await?;
        ensure!(space.members("main").await?.len() == 3);
        space
            .edit(
                "main",
                &json!({"engine": {"heartbeatMs": 130, "electionMs": 1300}}),
            )
            .await?;
        killed_until_settled(&space, 3, |_| true).await?;
        for pod in space.pods("main").await? {
            ensure!(
                pod.to_string().contains("--heartbeat-interval=130"),
                "{pod:#}"
            );
        }
        load.finish().await?;
        space.remove().await
    })
}

#[test]
fn an_edit_in_the_middle_changes_the_goal() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "edit").await?;
        space.cluster("main", &spec(3)).await?;
        space.settled("main", 3).await?;
        let load = Load::start(&space, "main").await?;
        space
            .edit("main", &json!({"engine": {"snapshotCount": 5000}}))
            .await?;
        let rolls = |cluster: &Value| cluster["status"]["operation"]["type"] == "RollingRestart";
        space.cluster_until("a roll", "main", rolls).await?;
        space
            .edit(
                "main",
                &json!({"replicas": 1, "engine": {"snapshotCount": 6000}}),
            )
            .await?;
        space.settled("main", 1).await?;
        let pods = space.pods("main").await?;
        ensure!(pods.len() == 1 && pods[0].to_string().contains("--snapshot-count=6000"));
        load.finish().await?;
        space.remove().await
    })
}
