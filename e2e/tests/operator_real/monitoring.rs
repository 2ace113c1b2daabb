//! Prometheus finds the members by what the operator made for it.

use anyhow::{Context, Result, ensure};
use quorate_e2e::kubernetes::real::Real;
use quorate_e2e::kubernetes::real::prometheus::Prometheus;
use quorate_e2e::kubernetes::real::space::{CONVERGE_DEADLINE, Space};
use serde_json::json;

pub async fn prometheus_sees_members(real: &Real) -> Result<()> {
    let own = real.own.as_ref().context("a node of our own")?;
    let space = Space::new(&real.kube, "watched").await?;
    space.cluster("main", &json!({"replicas": 3})).await?;
    space.settled("main", 3).await?;
    let mut prometheus = Prometheus::start(own, &space, real.dir()).await?;
    let up = r#"count(up{namespace="watched", pod=~"main-.*"} == 1)"#;
    prometheus
        .until(up, CONVERGE_DEADLINE, |value| value >= 3.0)
        .await?;
    let has_leader = r#"count(etcd_server_has_leader{namespace="watched"} == 1)"#;
    prometheus
        .until(has_leader, CONVERGE_DEADLINE, |value| value >= 3.0)
        .await?;
    let rules = space.get(&["prometheusrules"]).await?;
    let groups = rules["items"][0]["spec"]["groups"].as_array();
    ensure!(groups.is_some_and(|groups| !groups.is_empty()), "{rules:#}");
    space.remove().await
}
