//! One pass over one cluster: look, tell, and do one thing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::controller::Action as Next;
use kube::{Api, ResourceExt};

use super::context::Memory;
use super::secrets::Secrets;
use super::tell::{facts, tell};
use super::{Context, children, reach, roles, schedule, secrets};
use crate::act::{Hands, finalizer, write_member_status};
use crate::api::{Lifecycle, QuorateCluster};
use crate::model::{Action, Observed, Plan, Refusal};
use crate::objects::Names;
use crate::observe::{self, Objects, Surroundings};
use crate::plan::{is_healthy, plan};

/// After something was done it is looked again at once.
const AT_ONCE: Duration = Duration::from_millis(100);
/// After a pass that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// After an action that did not succeed: the other side may need a moment.
const AFTER_FAILED_ACTION: Duration = Duration::from_secs(2);
/// Why an action failed: a quota of Kubernetes is used up.
const QUOTA: &str = "QuotaExceeded";
/// Why an action failed: as the message says.
const FAILED: &str = "ActionFailed";
/// When nothing is left to look at.
const LATER: Duration = Duration::from_secs(3600);

/// Why a pass ended early. It is made again.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The API server refuses or does not answer.
    #[error("{0}")]
    Kubernetes(#[from] kube::Error),
    /// Certificates cannot be kept as files.
    #[error("certificates: {0}")]
    Files(#[from] std::io::Error),
    /// Certificates cannot be made.
    #[error("certificates: {0}")]
    Pki(String),
}

impl PassError {
    /// Whether an object changed between the look and the write.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Kubernetes(kube::Error::Api(status)) if status.code == 409)
    }
}

/// One pass.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn reconcile(
    cluster: Arc<QuorateCluster>,
    context: Arc<Context>,
) -> Result<Next, PassError> {
    let began = Instant::now();
    let outcome = Box::pin(pass(&cluster, &context)).await;
    let word = if outcome.is_ok() { "success" } else { "error" };
    context
        .metrics
        .pass("QuorateCluster", word, began.elapsed());
    outcome.map(Next::requeue)
}

/// When a pass that failed is made again.
pub fn after_error(cluster: Arc<QuorateCluster>, error: &PassError, _: Arc<Context>) -> Next {
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    // Somebody edited the object between the look and the write: the next look sees it.
    if error.is_conflict() {
        tracing::debug!(namespace, cluster = name, %error, "looking again");
        return Next::requeue(AT_ONCE);
    }
    tracing::warn!(namespace, cluster = name, %error, "a pass failed");
    Next::requeue(AFTER_FAILURE)
}

async fn pass(seen: &QuorateCluster, context: &Context) -> Result<Duration, PassError> {
    let names = Names::new(seen);
    let (namespace, name) = (names.namespace.as_str(), names.cluster.as_str());
    let clusters = Api::<QuorateCluster>::namespaced(context.client.clone(), namespace);
    let Some(cluster) = clusters.get_opt(name).await? else {
        context.metrics.forget(namespace, name);
        context.forget(namespace, name)?;
        return Ok(LATER);
    };
    // An object that is being deleted takes no new finalizer.
    let cluster = match cluster.metadata.deletion_timestamp {
        Some(_) => cluster,
        None => finalizer::hold(&context.client, cluster).await?,
    };
    let idle = cluster.metadata.deletion_timestamp.is_some()
        || cluster.spec.lifecycle == Lifecycle::Paused;
    let now = Timestamp::now();
    let kinds = context.kinds().await;
    let secrets = secrets::keep(context, &cluster, kinds, idle, now).await?;
    let objects = observe::objects(&context.client, &cluster).await?;
    let credentials = context.credentials(namespace, name);
    let heard = observe::hear(reach::reaches(&names, &objects, &credentials)).await;
    let Surroundings {
        effective,
        restore,
        circumstances,
    } = surroundings(context, &cluster, &objects, &secrets).await?;
    let observed = observe::assemble(&effective, &objects, &heard, circumstances, now);
    let (objects, observed) = latch_health(context, objects, observed).await?;
    if !idle {
        children::keep(context, &cluster, kinds, voters(&observed)).await?;
        roles::label(
            &context.client,
            namespace,
            &objects,
            observed.listed.as_ref(),
        )
        .await?;
    }
    let mut plan = plan(&observed);
    let memory = context.memory(namespace, name);
    blame(&mut plan, memory.failure.clone());
    let backups = schedule::keep(context, &cluster, idle, now).await?;
    let lowest = observe::lowest_version(&objects);
    let facts = facts(context, &cluster, &secrets, lowest, backups.facts, now);
    let told = tell(context, &cluster, &observed, &plan, &facts).await?;
    let Some(action) = plan.action.clone() else {
        context.remember(namespace, name, |memory| memory.failure = None);
        let others = [secrets.look_again, backups.look_again];
        let soonest = others
            .into_iter()
            .flatten()
            .fold(plan.look_again, Duration::min);
        return Ok(soonest.max(AT_ONCE));
    };
    // The version of the cluster that was just written goes with what is latched next.
    let effective = QuorateCluster {
        metadata: told.metadata.clone(),
        status: told.status.clone(),
        ..effective
    };
    let hands = Hands {
        client: &context.client,
        cluster: &effective,
        objects: &objects,
        heard: &heard,
        settings: &context.settings,
        restore: restore.as_ref(),
    };
    Ok(act(context, &hands, &action, &memory).await)
}

/// What stands beside the cluster's objects, certificates and memory included.
async fn surroundings(
    context: &Context,
    cluster: &QuorateCluster,
    objects: &Objects,
    secrets: &Secrets,
) -> kube::Result<Surroundings> {
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let settings = &context.settings;
    let mut found = observe::surroundings(&context.client, cluster, objects, settings).await?;
    found.circumstances.blocks_pods |= !secrets.refusals.is_empty();
    found
        .circumstances
        .refusals
        .extend(secrets.refusals.clone());
    found.circumstances.space_freed = context.memory(&namespace, &name).space_freed;
    let expiry = secrets.expires.as_ref().map(|(_, at)| *at);
    context.remember(&namespace, &name, |memory| {
        memory.certificate_expiry = expiry
    });
    Ok(found)
}

/// Says what holds up an action that is to be tried again.
fn blame(plan: &mut Plan, failure: Option<Refusal>) {
    let Some(failure) = failure.filter(|_| plan.action.is_some()) else {
        return;
    };
    plan.blocked_by.get_or_insert(failure.message.clone());
    // It is tried again and again, but somebody has to act first.
    if failure.reason == QUOTA {
        plan.stalled.get_or_insert(failure);
    }
}

/// Latches since when members are unhealthy, and that they are well again.
async fn latch_health(
    context: &Context,
    mut objects: Objects,
    mut observed: Observed,
) -> Result<(Objects, Observed), PassError> {
    let names: Vec<String> = observed.members.keys().cloned().collect();
    for name in names {
        let healthy = is_healthy(&observed, &name);
        let (Some(view), Some(member)) =
            (observed.members.get_mut(&name), objects.members.get(&name))
        else {
            continue;
        };
        let Some(since) = observe::health_flip(view, healthy, observed.now) else {
            continue;
        };
        let mut status = member.status.clone().unwrap_or_default();
        status.unhealthy_since = since.map(Time);
        let written = write_member_status(&context.client, member, status).await?;
        view.unhealthy_since = since;
        objects.members.insert(name, written);
    }
    Ok((objects, observed))
}

fn voters(observed: &Observed) -> usize {
    let listed = observed.listed.iter().flat_map(|listed| &listed.members);
    listed.filter(|member| !member.learner).count()
}

/// Does the one thing, and says when to look again.
async fn act(context: &Context, hands: &Hands<'_>, action: &Action, memory: &Memory) -> Duration {
    let (namespace, name) = (
        hands.cluster.namespace().unwrap_or_default(),
        hands.cluster.name_any(),
    );
    tracing::info!(namespace, cluster = name, ?action, "acting");
    let kind = format!("{action:?}");
    let kind = kind.split([' ', '{']).next().unwrap_or_default();
    match hands.act(action).await {
        Ok(()) => {
            context.metrics.action(kind, "success");
            context.remember(&namespace, &name, |memory| {
                memory.failure = None;
                if *action == Action::FreeSpace {
                    memory.space_freed = Some(Timestamp::now());
                }
            });
            AT_ONCE
        }
        Err(error) => {
            context.metrics.action(kind, "error");
            let failure = Refusal {
                reason: if error.quota() { QUOTA } else { FAILED }.to_owned(),
                message: error.to_string(),
            };
            let text = &failure.message;
            tracing::warn!(
                namespace,
                cluster = name,
                ?action,
                error = text,
                "it did not succeed"
            );
            // Said once, not at each attempt.
            if memory.failure.as_ref() != Some(&failure) && !error.passes() {
                let reason = &failure.reason;
                context.tell(hands.cluster, true, reason, kind, text).await;
            }
            context.remember(&namespace, &name, |memory| memory.failure = Some(failure));
            AFTER_FAILED_ACTION
        }
    }
}
