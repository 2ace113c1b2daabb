//! The conditions. Every type is written from the first visit on; polarity and reasons are those
//! of the documentation, and `Reconciling` and `Stalled` are kstatus'.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{
    ConditionType, Conditions, Lifecycle, MemberPhase, OperationKind, QuorateClusterStatus,
};
use crate::model::{AlarmKind, Observed, Plan, Refusal};

use super::{Facts, Strength, TlsFacts, word};

/// Status, reason and message of one.
type Verdict = (Option<bool>, String, String);

pub(super) fn conditions(
    seen: &Observed,
    plan: &Plan,
    old: &QuorateClusterStatus,
    facts: &Facts,
    strength: &Strength,
) -> Vec<Condition> {
    let mut conditions = Conditions::new(&old.conditions, facts.generation, Time(seen.now));
    let stalled = plan.stalled.as_ref().or(facts.backup.refusal.as_ref());
    let all = [
        (ConditionType::Ready, ready(seen, plan, strength)),
        (ConditionType::Reconciling, reconciling(seen, plan)),
        (ConditionType::Stalled, stalling(stalled)),
        (ConditionType::QuorumHealthy, quorum(seen, strength)),
        (ConditionType::Converged, converged(seen, strength)),
        (ConditionType::BackupHealthy, backup(facts)),
        (ConditionType::TLSReady, tls(&facts.tls)),
        (ConditionType::StorageHealthy, storage(seen)),
        (ConditionType::ClusterIDConsistent, identity(seen, plan)),
    ];
    for (kind, (status, reason, message)) in all {
        conditions.set(&kind.name(), status, &reason, &message);
    }
    conditions.into_vec()
}

fn verdict(status: Option<bool>, reason: &str, message: &str) -> Verdict {
    (status, reason.to_owned(), message.to_owned())
}

fn ready(seen: &Observed, plan: &Plan, strength: &Strength) -> Verdict {
    let cluster = &seen.cluster;
    let full = strength.full(seen);
    let bootstrapping = matches!(plan.operation, Some((OperationKind::Bootstrapping, _, _)));
    let split = plan
        .stalled
        .as_ref()
        .filter(|refusal| refusal.reason == "SplitBrain");
    if cluster.deleting {
        return verdict(Some(false), "Deleting", "the cluster is being deleted");
    }
    if cluster.lifecycle == Lifecycle::Hibernated {
        let message = "the cluster hibernates: spec.lifecycle is Hibernated";
        return verdict(Some(false), "Hibernated", message);
    }
    if let Some(refusal) = split {
        return verdict(Some(false), "SplitBrain", &refusal.message);
    }
    if cluster.lifecycle == Lifecycle::Paused {
        let message = "nothing is changed: spec.lifecycle is Paused";
        return verdict(Some(full), "Paused", message);
    }
    if bootstrapping || cluster.cluster_id.is_none() {
        return verdict(Some(false), "Bootstrapping", "the cluster is coming up");
    }
    if seen.listed.is_none() {
        let message = "no quorum of the members answers: neither reads nor writes are served";
        return verdict(Some(false), "QuorumLost", message);
    }
    if full {
        return verdict(
            Some(true),
            "Ready",
            "as many voters as are wanted are healthy",
        );
    }
    let message = "the cluster serves, with fewer healthy voters than are wanted";
    verdict(Some(false), "MembersUnavailable", message)
}

fn reconciling(seen: &Observed, plan: &Plan) -> Verdict {
    if seen.cluster.lifecycle == Lifecycle::Paused && !seen.cluster.deleting {
        return verdict(Some(false), "Paused", "spec.lifecycle is Paused");
    }
    let waits = plan.stalled.is_some() && plan.action.is_none();
    match plan.operation.as_ref().filter(|_| !waits) {
        None if waits => verdict(Some(false), "Stalled", "nothing goes on: see Stalled"),
        None => verdict(Some(false), "Settled", "nothing is to be done"),
        Some((kind, step, member)) => {
            let member = member.as_deref().unwrap_or_default();
            let message = format!("{member}: {step}");
            let message = message.trim_start_matches(": ").to_owned();
            (Some(true), word(*kind), message)
        }
    }
}

fn stalling(refusal: Option<&Refusal>) -> Verdict {
    match refusal {
        Some(refusal) => verdict(Some(true), &refusal.reason, &refusal.message),
        None => verdict(Some(false), "Unhindered", "nothing has to be mended"),
    }
}

fn quorum(seen: &Observed, strength: &Strength) -> Verdict {
    let majority = strength.voters / 2 + 1;
    if seen.listed.is_none() {
        if seen.cluster.cluster_id.is_none() {
            return verdict(None, "Bootstrapping", "the first member is coming up");
        }
        if seen.cluster.lifecycle == Lifecycle::Hibernated {
            return verdict(None, "Hibernated", "there are no Pods");
        }
        return verdict(Some(false), "Lost", "no quorum of the voters answers");
    }
    if strength.healthy == strength.voters {
        return verdict(Some(true), "AllVoters", "every voter is healthy");
    }
    if strength.healthy > majority {
        let message = "a voter is not healthy; one more may fail";
        return verdict(Some(true), "Degraded", message);
    }
    let message = "just a majority of the voters is healthy: none may fail";
    verdict(Some(true), "AtRisk", message)
}

fn converged(seen: &Observed, strength: &Strength) -> Verdict {
    let staying = seen.members.iter();
    let staying = staying.filter(|(_, view)| view.phase != MemberPhase::Leaving);
    let outdated = staying.clone().filter(|(_, view)| {
        let pod = view.pod.as_ref();
        pod.is_none_or(|pod| pod.revision != seen.cluster.revision)
    });
    let outdated: Vec<_> = outdated.map(|(name, _)| name.as_str()).collect();
    if seen.cluster.lifecycle == Lifecycle::Hibernated {
        let running = seen.members.values().any(|view| view.pod.is_some());
        let message = "Pods are gone as long as the cluster hibernates";
        return verdict(Some(!running), "Hibernated", message);
    }
    if !outdated.is_empty() {
        let message = format!("not as the spec wants them: {}", outdated.join(", "));
        return verdict(Some(false), "OutdatedMembers", &message);
    }
    let few = strength.voters != seen.cluster.replicas;
    if few || seen.members.len() != seen.cluster.replicas {
        let message = "there are not as many voters as are wanted";
        return verdict(Some(false), "MembersDiffer", message);
    }
    verdict(
        Some(true),
        "AllMembersCurrent",
        "every member is as the spec wants it",
    )
}

fn backup(facts: &Facts) -> Verdict {
    let backup = &facts.backup;
    if let Some(refusal) = &backup.refusal {
        return verdict(Some(false), &refusal.reason, &refusal.message);
    }
    if let Some(failure) = &backup.failure {
        return verdict(Some(false), "Failed", failure);
    }
    if !backup.scheduled_now {
        let message = "spec.backup has no schedule, or it is suspended";
        return verdict(None, "NotConfigured", message);
    }
    if backup.overdue {
        let message = "the last scheduled backup is late: see the newest QuorateBackup";
        return verdict(Some(false), "Overdue", message);
    }
    match (backup.last, backup.last_verified) {
        (None, _) => verdict(None, "Awaited", "the first scheduled backup is to come"),
        (Some(_), None) => {
            let message = "no backup has been proved yet";
            verdict(Some(false), "Unverified", message)
        }
        (Some(_), Some(_)) => verdict(Some(true), "Fresh", "the last backup is whole and proved"),
    }
}

fn tls(facts: &TlsFacts) -> Verdict {
    match facts {
        TlsFacts::Disabled => verdict(Some(true), "Disabled", "spec.tls disables TLS"),
        TlsFacts::Issued => verdict(Some(true), "Issued", "certificates are there and valid"),
        TlsFacts::Expiring(message) => verdict(Some(true), "Expiring", message),
        TlsFacts::Expired(message) => verdict(Some(false), "Expired", message),
        TlsFacts::SecretMissing(message) => verdict(Some(false), "SecretMissing", message),
    }
}

fn storage(seen: &Observed) -> Verdict {
    let raised = |wanted| seen.alarms.iter().any(|(_, kind)| *kind == wanted);
    if raised(AlarmKind::Corrupt) {
        let message = "a member's data differ from the others': see status.alarms";
        return verdict(Some(false), "CorruptAlarm", message);
    }
    if raised(AlarmKind::NoSpace) {
        let message = "the quota is reached and writes are refused: see status.alarms";
        return verdict(Some(false), "NoSpaceAlarm", message);
    }
    let wanted = seen.cluster.storage.bytes;
    let mut claims = seen.members.values().filter_map(|view| view.claim.as_ref());
    let small = claims.any(|claim| {
        let bound = claim.capacity_bytes > 0;
        bound && claim.capacity_bytes < claim.requested_bytes.max(wanted)
    });
    if small {
        let message = "a volume does not have its size yet";
        return verdict(Some(false), "ResizePending", message);
    }
    if seen.listed.is_none() {
        return verdict(None, "Unasked", "alarms are unknown: no quorum answers");
    }
    verdict(
        Some(true),
        "Ok",
        "no alarm is raised, and volumes have their size",
    )
}

fn identity(seen: &Observed, plan: &Plan) -> Verdict {
    if let Some(refusal) = plan.stalled.as_ref().filter(|r| r.reason == "SplitBrain") {
        return verdict(Some(false), "SplitBrain", &refusal.message);
    }
    if seen.cluster.cluster_id.is_none() {
        return verdict(None, "Bootstrapping", "the cluster has no ID yet");
    }
    verdict(
        Some(true),
        "Consistent",
        "all that answer are of one cluster",
    )
}
