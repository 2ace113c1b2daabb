//! Proving a backup that lies in its store.

use quorate_sidecar::wire::{Artifact, DeleteRequest, Phase, Store, VerifyRequest, VerifyState};

use super::backup::{given_up, hopeless, of_problem, refusal, wait};
use super::step::{BackupStep, BackupView, ClusterFacts, Heard, MAX_ATTEMPTS};
use super::task_name;

/// What lies in the store is proved, and only then counts as good.
pub(super) fn prove(backup: &BackupView, cluster: Option<&ClusterFacts>) -> BackupStep {
    let status = &backup.status;
    let (Some(artifact), Some(store)) = (&status.artifact, &status.store) else {
        let message = "the status has lost what was made".to_owned();
        return BackupStep::Fail(refusal("Internal", message));
    };
    let Some(cluster) = cluster else {
        let message = "the cluster is gone before the backup was proved".to_owned();
        return BackupStep::Fail(refusal("ClusterNotFound", message));
    };
    let mode = backup.spec.verify.unwrap_or(cluster.verify);
    let begun = status.attempts > 0;
    match &backup.proof {
        Heard::State(state) => match state.phase {
            Phase::Running => return wait("Proving", "it is whole in the store and being proved"),
            Phase::Succeeded => return BackupStep::Verified(mode),
            Phase::Failed => {
                if let Some(step) = disproved(cluster, state, artifact, store) {
                    return step;
                }
            }
        },
        Heard::Silence(since) if begun && !given_up(backup, *since) => {
            return wait("Proving", "the sidecar does not answer at the moment");
        }
        Heard::Nothing if begun => return wait("Proving", "the sidecar is to be asked"),
        Heard::Nothing | Heard::Silence(_) | Heard::Unknown => {}
    }
    if status.attempts >= MAX_ATTEMPTS {
        let message = format!("{MAX_ATTEMPTS} attempts to prove it have failed");
        return BackupStep::Fail(refusal("AttemptsExhausted", message));
    }
    let own = status
        .member
        .as_deref()
        .filter(|member| cluster.fit(member));
    let Some(member) = own.or_else(|| cluster.best(None)) else {
        return wait("NoHealthyMember", "no member of the cluster is healthy");
    };
    let attempt = status.attempts + 1;
    BackupStep::Prove {
        member: member.to_owned(),
        attempt,
        request: Box::new(VerifyRequest {
            name: task_name(&backup.name, &backup.uid, attempt),
            store: store.clone(),
            artifact: artifact.clone(),
            mode,
        }),
    }
}

/// The end, if what lies in the store is surely not what it should be; None: try again.
fn disproved(
    cluster: &ClusterFacts,
    state: &VerifyState,
    artifact: &Artifact,
    store: &Store,
) -> Option<BackupStep> {
    let problem = state.problem.as_ref()?;
    if hopeless(problem) {
        return Some(BackupStep::Fail(of_problem(problem)));
    }
    if !["Truncated", "HashMismatch", "NotFound"].contains(&problem.reason.as_str()) {
        return None;
    }
    // What is damaged must not count as a backup for those who see only the store.
    let why = of_problem(problem);
    let Some(member) = cluster.best(None) else {
        return Some(wait(
            "NoHealthyMember",
            "no member is healthy to delete what is damaged",
        ));
    };
    Some(BackupStep::Discard {
        member: member.to_owned(),
        request: DeleteRequest {
            store: store.clone(),
            key: artifact.key.clone(),
        },
        why,
    })
}
