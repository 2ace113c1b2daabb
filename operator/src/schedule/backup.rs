//! One `QuorateBackup`, from wanted to proved.
//!
//! ```text
//! Pending ─► Pending on a member ─► Running ─► Uploaded ─► Verified
//!    ▲  choose          start        │  │         │
//!    └────────── again, 3 times ─────┘  └─► Failed ◄┘
//! ```
//! Whoever calls asks the sidecar of `status.member` for the task first, and hands over what it
//! heard. Every step may be taken again.

use jiff::{SignedDuration, Timestamp};
use quorate_sidecar::wire::{BackupRequest, Phase, Problem, Store};

use crate::api::BackupPhase;
use crate::model::Refusal;

use super::step::{BackupStep, BackupView, ClusterFacts, Heard, MAX_ATTEMPTS};
use super::{ending, object_key, proof, task_name};

/// How long a sidecar may be silent before its task is given up, in seconds.
const SILENCE_SECONDS: i64 = 120;

/// What to do next for a backup. `cluster` is None when there is no such cluster.
#[must_use]
pub fn backup_step(backup: &BackupView, cluster: Option<&ClusterFacts>) -> BackupStep {
    if backup.deleting {
        return ending::release(backup, cluster);
    }
    match backup.status.phase {
        BackupPhase::Verified | BackupPhase::Failed => BackupStep::Rest,
        BackupPhase::Uploaded => proof::prove(backup, cluster),
        BackupPhase::Running => poll(backup, cluster),
        BackupPhase::Pending => pending(backup, cluster),
    }
}

/// What to do when a sidecar refuses a start: nothing but wait, unless it will always refuse.
#[must_use]
pub fn refused(problem: &Problem) -> BackupStep {
    if hopeless(problem) {
        return BackupStep::Fail(of_problem(problem));
    }
    BackupStep::Wait(of_problem(problem))
}

pub(super) fn wait(reason: &str, message: &str) -> BackupStep {
    BackupStep::Wait(refusal(reason, message.to_owned()))
}

pub(super) fn refusal(reason: &str, message: String) -> Refusal {
    Refusal {
        reason: reason.to_owned(),
        message,
    }
}

fn pending(backup: &BackupView, cluster: Option<&ClusterFacts>) -> BackupStep {
    let Some(cluster) = cluster else {
        let message = format!("there is no QuorateCluster {}", backup.spec.cluster);
        return wait("ClusterNotFound", &message);
    };
    if !cluster.running {
        return wait(
            "ClusterNotRunning",
            "the cluster is paused, hibernates or goes away",
        );
    }
    let store = match store(backup, cluster) {
        Ok(store) => store,
        Err(refusal) => return BackupStep::Fail(refusal),
    };
    // Before it is begun, changing one's mind is no attempt.
    let attempt = backup.status.attempts.max(1);
    let member = backup.status.member.as_deref();
    match (member, &backup.task) {
        // The answer to the start was lost: the task is there.
        (Some(_), Heard::State(_)) => poll(backup, Some(cluster)),
        (but, Heard::Silence(since)) if given_up(backup, *since) => {
            choose(cluster, but, attempt, store)
        }
        (Some(member), _) if cluster.fit(member) => BackupStep::Start {
            member: member.to_owned(),
            request: Box::new(request(backup, cluster, store)),
        },
        (but, _) => choose(cluster, but, attempt, store),
    }
}

/// Where the backup is to lie: what was latched, the backup's own, or the cluster's.
fn store(backup: &BackupView, cluster: &ClusterFacts) -> Result<Store, Refusal> {
    let wanted = backup.status.store.as_ref().or(backup.spec.store.as_ref());
    let Some(store) = wanted.or(cluster.store.as_ref()) else {
        let message = "neither the backup nor the cluster's spec.backup names a store".to_owned();
        return Err(refusal("InvalidReference", message));
    };
    store
        .check()
        .map_err(|error| refusal("InvalidReference", error.to_string()))?;
    let mounted = cluster.store.as_ref();
    let secret = mounted.and_then(Store::credentials_secret);
    if store.credentials_secret().is_some() && store.credentials_secret() != secret {
        let message = "members mount only the credentials that the cluster's spec.backup.store \
                       names: name the same Secret, or add it there";
        return Err(refusal("InvalidReference", message.to_owned()));
    }
    let claim = |store: &Store| store.pvc.as_ref().map(|pvc| pvc.claim_name.clone());
    if claim(store).is_some() && claim(store) != mounted.and_then(claim) {
        let message = "members mount only the claim that the cluster's spec.backup.store names: \
                       name the same claim";
        return Err(refusal("InvalidReference", message.to_owned()));
    }
    Ok(store.clone())
}

fn choose(cluster: &ClusterFacts, but: Option<&str>, attempt: i32, store: Store) -> BackupStep {
    match cluster.best(but) {
        None => wait("NoHealthyMember", "no member of the cluster is healthy"),
        Some(member) => BackupStep::Choose {
            member: member.to_owned(),
            attempt,
            store,
        },
    }
}

fn request(backup: &BackupView, cluster: &ClusterFacts, store: Store) -> BackupRequest {
    let name = &backup.spec.cluster;
    BackupRequest {
        name: task_name(&backup.name, &backup.uid, backup.status.attempts),
        key: object_key(&backup.namespace, name, &cluster.uid, backup.created),
        cluster: format!("{}/{name}", backup.namespace),
        store,
    }
}

fn poll(backup: &BackupView, cluster: Option<&ClusterFacts>) -> BackupStep {
    match &backup.task {
        Heard::Nothing => wait("Running", "it is being taken"),
        Heard::Silence(since) => {
            let member = backup.status.member.as_deref().unwrap_or_default();
            let gone = cluster.is_none_or(|cluster| !cluster.has(member));
            if gone || given_up(backup, *since) {
                return again(backup, cluster, "the sidecar does not answer");
            }
            wait("Running", "the sidecar does not answer at the moment")
        }
        Heard::Unknown => again(
            backup,
            cluster,
            "the sidecar has restarted in the middle of it",
        ),
        Heard::State(state) => match (state.phase, &state.artifact) {
            (Phase::Running, _) => wait("Running", "it is being taken"),
            (Phase::Succeeded, Some(artifact)) => BackupStep::Uploaded(Box::new(artifact.clone())),
            (Phase::Succeeded, None) => again(backup, cluster, "the sidecar named no artifact"),
            (Phase::Failed, _) => failed(backup, cluster, state.problem.as_ref()),
        },
    }
}

/// Whether nothing was heard for too long.
pub(super) fn given_up(backup: &BackupView, since: Timestamp) -> bool {
    backup.now.duration_since(since) >= SignedDuration::from_secs(SILENCE_SECONDS)
}

fn failed(
    backup: &BackupView,
    cluster: Option<&ClusterFacts>,
    problem: Option<&Problem>,
) -> BackupStep {
    match problem {
        Some(problem) if hopeless(problem) => BackupStep::Fail(of_problem(problem)),
        Some(problem) => again(
            backup,
            cluster,
            &format!("{}: {}", problem.reason, problem.message),
        ),
        None => again(backup, cluster, "the sidecar gave no reason"),
    }
}

/// Whether trying again cannot help.
pub(super) fn hopeless(problem: &Problem) -> bool {
    ["BadRequest", "AccessDenied"].contains(&problem.reason.as_str())
}

pub(super) fn of_problem(problem: &Problem) -> Refusal {
    refusal(&problem.reason, problem.message.clone())
}

/// Another attempt, on whoever is the best by now; not without end.
fn again(backup: &BackupView, cluster: Option<&ClusterFacts>, why: &str) -> BackupStep {
    if backup.status.attempts >= MAX_ATTEMPTS {
        let message = format!("{MAX_ATTEMPTS} attempts have failed; the last one: {why}");
        return BackupStep::Fail(refusal("AttemptsExhausted", message));
    }
    let Some(cluster) = cluster else {
        return BackupStep::Fail(refusal("ClusterNotFound", "the cluster is gone".to_owned()));
    };
    match store(backup, cluster) {
        Ok(store) => {
            let but = backup.status.member.as_deref();
            choose(cluster, but, backup.status.attempts + 1, store)
        }
        Err(refusal) => BackupStep::Fail(refusal),
    }
}
