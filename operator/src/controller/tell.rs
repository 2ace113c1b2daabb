//! What is told of a cluster after a look: its status, Events, metrics.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::cluster::PassError;
use super::secrets::Secrets;
use super::{ClusterFigures, Context};
use crate::act::write_cluster_status;
use crate::api::{QuorateCluster, QuorateClusterStatus};
use crate::model::{Observed, Plan};
use crate::objects::{self, Names};
use crate::status::{self, BackupFacts, EventType, Facts, TlsFacts};

/// How near its end a certificate that should have been renewed is told of.
const EXPIRING: SignedDuration = SignedDuration::from_hours(24);

/// Writes the status, if it says anything new, and gives back the cluster as it is now.
///
/// # Errors
/// The API server refuses (409: the cluster changed meanwhile) or does not answer.
pub async fn tell(
    context: &Context,
    cluster: &QuorateCluster,
    observed: &Observed,
    plan: &Plan,
    facts: &Facts,
) -> Result<QuorateCluster, PassError> {
    let old = cluster.status.clone().unwrap_or_default();
    let new = status::status(observed, plan, &old, facts);
    let expires = match &facts.tls {
        TlsFacts::Disabled => None,
        _ => {
            context
                .memory(&observed.cluster.namespace, &observed.cluster.name)
                .certificate_expiry
        }
    };
    measure(context, cluster, &new, expires);
    let written = match new == old {
        true => cluster.clone(),
        false => write_cluster_status(&context.client, cluster, new.clone()).await?,
    };
    for event in status::events(&old, &new, plan) {
        let warning = event.kind == EventType::Warning;
        let (reason, action) = (&event.reason, &event.action);
        context
            .tell(cluster, warning, reason, action, &event.message)
            .await;
    }
    Ok(written)
}

/// What the status says beside what a look shows.
#[must_use]
pub fn facts(
    context: &Context,
    cluster: &QuorateCluster,
    secrets: &Secrets,
    lowest_version: Option<String>,
    backup: BackupFacts,
    now: Timestamp,
) -> Facts {
    let names = Names::new(cluster);
    let tls = cluster.spec.tls.client.enabled() || cluster.spec.tls.peer.enabled();
    let secured = cluster.spec.tls.client.enabled();
    Facts {
        generation: cluster.metadata.generation,
        target_version: Some(objects::version(cluster, &context.settings)),
        lowest_version,
        selector: Some(objects::selector_text(&names.cluster)),
        endpoint: Some(names.endpoint()),
        client_secret: secured.then(|| names.client_secret()),
        tls: tls_facts(tls, secrets, now),
        backup,
    }
}

fn tls_facts(enabled: bool, secrets: &Secrets, now: Timestamp) -> TlsFacts {
    if !enabled {
        return TlsFacts::Disabled;
    }
    if let Some(missing) = secrets.refusals.first() {
        return TlsFacts::SecretMissing(missing.message.clone());
    }
    let Some((name, at)) = &secrets.expires else {
        return TlsFacts::Issued;
    };
    let remedy = "renew it, or let cert-manager or the operator's own authority do it";
    if *at <= now {
        return TlsFacts::Expired(format!(
            "the certificate of Secret {name} has ended: {remedy}"
        ));
    }
    match at.duration_since(now) < EXPIRING {
        true => TlsFacts::Expiring(format!(
            "the certificate of Secret {name} ends within a day and was not renewed: {remedy}"
        )),
        false => TlsFacts::Issued,
    }
}

fn measure(
    context: &Context,
    cluster: &QuorateCluster,
    status: &QuorateClusterStatus,
    expires: Option<Timestamp>,
) {
    let seconds = |time: &Option<Time>| time.as_ref().map_or(0, |time| time.0.as_second());
    let conditions = status.conditions.iter();
    let figures = ClusterFigures {
        conditions: conditions
            .map(|condition| (condition.type_.clone(), condition.status == "True"))
            .collect(),
        members: i64::from(status.replicas),
        ready_members: i64::from(status.ready_members),
        last_backup: seconds(&status.last_backup),
        last_verified_backup: seconds(&status.last_verified_backup),
        certificate_expiry: expires.map(|at| at.as_second()),
    };
    let namespace = cluster.namespace().unwrap_or_default();
    context
        .metrics
        .cluster(&namespace, &cluster.name_any(), &figures);
}
