//! What users and programs read of a cluster: a pure function of a look and its plan.
//!
//! Messages and figures change only when something did: a status that is equal is not written.

mod conditions;
mod events;
mod facts;
mod members;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{
    Lifecycle, MemberPhase, Operation, OperationKind, QuorateClusterStatus, VersionStatus,
};
use crate::model::{Action, AlarmKind, Observed, Plan};
use crate::plan;

pub use events::{Event, EventType, events};
pub use facts::{BackupFacts, Facts, TlsFacts};

/// The status after a look. `old` is the newest status that was written: times and what others
/// latched in it are taken over.
#[must_use]
pub fn status(
    seen: &Observed,
    plan: &Plan,
    old: &QuorateClusterStatus,
    facts: &Facts,
) -> QuorateClusterStatus {
    let strength = Strength::of(seen);
    let members = members::members(seen);
    let sizes = members.iter().filter_map(|member| member.db_size_bytes);
    let staying = seen.members.values();
    let staying = staying.filter(|view| view.phase != MemberPhase::Leaving);
    let version = VersionStatus {
        target: facts.target_version.clone(),
        lowest: facts.lowest_version.clone(),
    };
    QuorateClusterStatus {
        observed_generation: facts.generation,
        conditions: conditions::conditions(seen, plan, old, facts, &strength),
        phase: Some(phase(seen, plan, &strength)),
        ready: Some(format!("{}/{}", strength.healthy, seen.cluster.replicas)),
        selector: facts.selector.clone(),
        replicas: count(staying.count()),
        ready_members: count(strength.healthy),
        cluster_id: cluster_id(seen, plan).map(|id| format!("{id:016x}")),
        leader: plan::leader(seen).map(str::to_owned),
        version: Some(version),
        db_size: sizes.max().map(members::mebibytes),
        members,
        operation: operation(seen, plan, old),
        replacements: replacements(seen, old),
        last_scheduled_backup: facts.backup.last_scheduled.map(Time),
        last_backup: facts.backup.last.map(Time),
        last_verified_backup: facts.backup.last_verified.map(Time),
        scheduled_backups: facts.backup.scheduled,
        alarms: alarms(seen),
        endpoint: facts.endpoint.clone(),
        client_secret: facts.client_secret.clone(),
    }
}

/// How many voters there are, and how many of them are healthy.
pub(crate) struct Strength {
    pub(crate) voters: usize,
    pub(crate) healthy: usize,
}

impl Strength {
    fn of(seen: &Observed) -> Self {
        let listed = seen
            .listed
            .as_ref()
            .map_or(&[][..], |listed| &listed.members);
        let voters = listed.iter().filter(|member| !member.learner);
        let healthy = voters
            .clone()
            .filter(|member| plan::is_healthy(seen, &member.name));
        Self {
            voters: voters.clone().count(),
            healthy: healthy.count(),
        }
    }

    fn full(&self, seen: &Observed) -> bool {
        self.healthy >= seen.cluster.replicas
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

// What this pass is about to latch is shown at once, so that a write of the status cannot undo it.
fn cluster_id(seen: &Observed, plan: &Plan) -> Option<u64> {
    let latching = match plan.action {
        Some(Action::LatchClusterId { id }) => Some(id),
        _ => None,
    };
    seen.cluster.cluster_id.or(latching)
}

fn phase(seen: &Observed, plan: &Plan, strength: &Strength) -> String {
    let cluster = &seen.cluster;
    let pods = seen.members.values().any(|view| view.pod.is_some());
    let stalled = plan.stalled.as_ref().map(|refusal| refusal.reason.as_str());
    let lost = stalled.filter(|reason| ["SplitBrain", "QuorumLost"].contains(reason));
    let kind = plan.operation.as_ref().map(|(kind, _, _)| *kind);
    match (cluster.lifecycle, kind) {
        _ if cluster.deleting => "Deleting".to_owned(),
        (Lifecycle::Hibernated, _) if !pods => "Hibernated".to_owned(),
        (Lifecycle::Paused, _) => "Paused".to_owned(),
        _ if lost.is_some() => lost.unwrap_or_default().to_owned(),
        _ if stalled.is_some() => "Stalled".to_owned(),
        (_, Some(kind)) => word(kind),
        _ if strength.full(seen) => "Ready".to_owned(),
        _ => "Degraded".to_owned(),
    }
}

/// The word for a kind of operation.
fn word(kind: OperationKind) -> String {
    format!("{kind:?}")
}

fn operation(seen: &Observed, plan: &Plan, old: &QuorateClusterStatus) -> Option<Operation> {
    let (kind, step, member) = plan.operation.clone()?;
    let before = old.operation.as_ref().filter(|before| before.kind == kind);
    let since = before.and_then(|before| before.started_at.clone());
    Some(Operation {
        kind,
        step,
        member,
        started_at: Some(since.unwrap_or(Time(seen.now))),
        blocked_by: plan.blocked_by.clone(),
    })
}

/// Those within the last hour, also such as were latched after the look.
fn replacements(seen: &Observed, old: &QuorateClusterStatus) -> Vec<Time> {
    let recent = |at: &Timestamp| seen.now.as_second() - at.as_second() < 3600;
    let latched = old.replacements.iter().map(|time| time.0).filter(recent);
    let mut all: Vec<_> = latched
        .chain(seen.cluster.replacements.iter().copied())
        .collect();
    all.sort();
    all.dedup();
    all.into_iter().map(Time).collect()
}

fn alarms(seen: &Observed) -> Vec<String> {
    let name = |id: u64| {
        let listed = seen
            .listed
            .as_ref()
            .map_or(&[][..], |listed| &listed.members);
        let listed = listed.iter().find(|member| member.id == id);
        listed.map_or_else(|| format!("{id:016x}"), |member| member.name.clone())
    };
    let alarms = seen.alarms.iter().map(|(id, kind)| match kind {
        AlarmKind::NoSpace => format!("{}: NOSPACE", name(*id)),
        AlarmKind::Corrupt => format!("{}: CORRUPT", name(*id)),
    });
    let mut alarms: Vec<_> = alarms.collect();
    alarms.sort();
    alarms
}

#[cfg(test)]
mod status_test;
