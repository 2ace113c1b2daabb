//! Clusters that begin, grow and shrink.

use crate::spec;
use anyhow::{Context, Result, ensure};
use quorate_e2e::kubelet::lab::Lab;
use quorate_e2e::kubelet::load::Load;
use quorate_e2e::kubelet::space::{Space, condition};
use serde_json::{Value, json};

/// The members that the store itself tells of, and whether they all vote.
async fn voters(space: &Space<'_>, member: &str) -> Result<Vec<String>> {
    let words = ["member", "list", "-w", "json"];
    let answer: Value = serde_json::from_str(&space.ctl(member, &words).await?)?;
    let mut names = Vec::new();
    for member in answer["members"].as_array().context("members")? {
        ensure!(member["isLearner"] != true, "a learner is left: {answer}");
        names.push(member["name"].as_str().context("a name")?.to_owned());
    }
    names.sort_unstable();
    Ok(names)
}

#[test]
fn three_members_become_ready_and_are_secure() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "first").await?;
        // As short as the documentation shows it: all else is by default.
        space.cluster("demo", &json!({"replicas": 3})).await?;
        let cluster = space.settled("demo", 3).await?;
        for kind in [
            "QuorumHealthy",
            "TLSReady",
            "StorageHealthy",
            "ClusterIDConsistent",
        ] {
            ensure!(condition(&cluster, kind).0 == "True", "{kind}: {cluster:#}");
        }
        ensure!(condition(&cluster, "Stalled").0 != "True", "{cluster:#}");
        let status = &cluster["status"];
        ensure!(
            status["ready"] == "3/3" && status["endpoint"].is_string(),
            "{status:#}"
        );
        let members = space.members("demo").await?;
        ensure!(members.len() == 3, "{members:?}");
        ensure!(voters(&space, &members[0]).await? == members);
        // The tools need no flags in a Pod.
        space.ctl(&members[1], &["put", "a", "b"]).await?;
        let said = space
            .ctl(&members[2], &["get", "a", "--print-value-only"])
            .await?;
        ensure!(said.trim() == "b", "{said}");
        let said = space
            .ctl(&members[0], &["endpoint", "status", "--cluster"])
            .await?;
        ensure!(
            said.lines().count() == 3 && said.contains("https://"),
            "{said}"
        );
        for object in [
            "services/demo-client",
            "services/demo-peer",
            "poddisruptionbudgets/demo",
            "networkpolicies/demo",
        ] {
            lab.rest.get(&space.path(object)).await.context(object)?;
        }
        // Nobody gets in without a certificate.
        let bare = quorate_tls::Identity::load(quorate_tls::Options {
            skip_verify: true,
            ..quorate_tls::Options::default()
        })?;
        let service = space.service("demo");
        let bare = std::sync::Arc::new(bare);
        let timeout = Some(std::time::Duration::from_secs(5));
        let mut kv = quorate_e2e::rpc::kv(service.channel(Some(&bare), timeout)?);
        let range = quorate_proto::etcdserverpb::RangeRequest {
            key: "a".into(),
            ..Default::default()
        };
        ensure!(
            kv.range(range).await.is_err(),
            "a caller without a certificate was let in"
        );
        space.remove().await
    })
}

#[test]
fn replicas_follow_the_spec_under_load() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "scale").await?;
        space.cluster("main", &spec(1)).await?;
        space.settled("main", 1).await?;
        let load = Load::start(&space, "main").await?;
        for replicas in [3, 5, 3, 1] {
            let scale = json!({"spec": {"replicas": replicas}});
            let path = space.path("quorateclusters/main/scale");
            lab.rest.merge(&path, &scale).await?;
            space.settled("main", replicas).await?;
            let members = space.members("main").await?;
            ensure!(members.len() == replicas, "{replicas} Pods: {members:?}");
            ensure!(
                voters(&space, &members[0]).await? == members,
                "members are Pods"
            );
            load.more().await?;
        }
        load.finish().await?;
        // Claims of members that left go with them, as `reclaim: Delete` says.
        let is_one = |list: &Value| list["items"].as_array().is_some_and(|all| all.len() == 1);
        space
            .until("one claim", "persistentvolumeclaims", is_one)
            .await?;
        space.remove().await
    })
}
