//! A `QuorateBackup` that is deleted.

use quorate_sidecar::wire::{BackupState, DeleteRequest, Phase};

use crate::api::Reclaim;

use super::backup::wait;
use super::step::{BackupStep, BackupView, ClusterFacts, Heard};
use super::task_name;

/// The backup is deleted: what runs is stopped, and what lies in the store goes if it should.
pub(super) fn release(backup: &BackupView, cluster: Option<&ClusterFacts>) -> BackupStep {
    let status = &backup.status;
    let running = matches!(
        backup.task,
        Heard::State(BackupState {
            phase: Phase::Running,
            ..
        })
    );
    if let Some(member) = status.member.as_ref().filter(|_| running) {
        return BackupStep::Stop {
            member: member.clone(),
            task: task_name(&backup.name, &backup.uid, status.attempts),
        };
    }
    // A task that has just ended may have made something that nobody latched.
    let made = match &backup.task {
        Heard::State(state) => state.artifact.as_ref(),
        _ => None,
    };
    let goes = backup.retired || backup.spec.reclaim == Reclaim::Delete;
    let made = status.artifact.as_ref().or(made).filter(|_| goes);
    let (Some(artifact), Some(store)) = (made, &status.store) else {
        return BackupStep::Release(None);
    };
    let stays = format!(
        "{} stays in its store: no cluster is left to delete it",
        artifact.uri
    );
    let Some(cluster) = cluster.filter(|cluster| !cluster.deleting) else {
        return BackupStep::Release(Some(stays));
    };
    match cluster.best(None) {
        None => wait(
            "NoHealthyMember",
            "no member is healthy to delete what lies in the store",
        ),
        Some(member) => BackupStep::Reclaim {
            member: member.to_owned(),
            request: DeleteRequest {
                store: store.clone(),
                key: artifact.key.clone(),
            },
        },
    }
}
