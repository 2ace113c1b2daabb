//! What is told of a cluster after a look: its status, Events, metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::cluster::PassError;
use super::secrets::Secrets;
use super::{ClusterFigures, Context};
use crate::act::write_cluster_status;
use crate::api::{Conditions, Operation, QuorateCluster};
use crate::model::{Observed, Plan};

pub async fn tell(
    context: &Context,
    cluster: &QuorateCluster,
    observed: &Observed,
    plan: &Plan,
    _secrets: &Secrets,
) -> Result<QuorateCluster, PassError> {
    let old = cluster.status.clone().unwrap_or_default();
    let mut status = old.clone();
    let ready = observed
        .members
        .keys()
        .filter(|n| crate::plan::is_healthy(observed, n))
        .count();
    status.ready = Some(format!("{ready}/{}", cluster.spec.replicas));
    status.replicas = observed.members.len() as i32;
    status.ready_members = ready as i32;
    status.leader = crate::plan::leader(observed).map(str::to_owned);
    let mut conditions = Conditions::new(
        &old.conditions,
        cluster.metadata.generation,
        Time(observed.now),
    );
    let all =
        ready == observed.cluster.replicas && plan.action.is_none() && plan.operation.is_none();
    conditions.set(
        "Ready",
        Some(all),
        if all { "Ready" } else { "MembersUnavailable" },
        "",
    );
    if let Some(stalled) = &plan.stalled {
        conditions.set("Stalled", Some(true), &stalled.reason, &stalled.message);
    }
    status.conditions = conditions.into_vec();
    status.operation = plan
        .operation
        .as_ref()
        .map(|(kind, step, member)| Operation {
            kind: *kind,
            step: step.clone(),
            member: member.clone(),
            started_at: Some(Time(
                old.operation
                    .as_ref()
                    .filter(|o| o.kind == *kind)
                    .and_then(|o| o.started_at.clone())
                    .map_or(observed.now, |t| t.0),
            )),
            blocked_by: plan.blocked_by.clone(),
        });
    status.phase = Some(if all {
        "Ready".into()
    } else {
        "Working".into()
    });
    status.observed_generation = cluster.metadata.generation;
    context.metrics.cluster(
        &cluster.namespace().unwrap_or_default(),
        &cluster.name_any(),
        &ClusterFigures::default(),
    );
    if status == old {
        return Ok(cluster.clone());
    }
    Ok(write_cluster_status(&context.client, cluster, status).await?)
}
