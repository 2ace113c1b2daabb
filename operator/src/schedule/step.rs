//! What is known of a `QuorateBackup`, and what may be done next.

use jiff::Timestamp;
use quorate_sidecar::wire::{
    Artifact, BackupRequest, BackupState, DeleteRequest, Store, VerifyMode, VerifyRequest,
    VerifyState,
};

use crate::api::{QuorateBackupSpec, QuorateBackupStatus};
use crate::model::Refusal;

/// How many times a backup, and then its proof, is begun.
pub const MAX_ATTEMPTS: i32 = 3;
/// What a sidecar said of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard<T> {
    /// It was not asked.
    Nothing,
    /// It has not answered since then.
    Silence(Timestamp),
    /// It does not know the task: the task was never begun, or the sidecar has restarted.
    Unknown,
    /// This.
    State(T),
}

/// A `QuorateBackup`, and what was heard of it.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupView {
    /// When it was looked.
    pub now: Timestamp,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether retention deletes it, so that the stored object goes whatever `reclaim` says.
    pub retired: bool,
    /// Its spec.
    pub spec: QuorateBackupSpec,
    /// Its status.
    pub status: QuorateBackupStatus,
    /// What the sidecar of `status.member` said of the backup's task, whose name is `task_name` of
    /// `status.attempts`; while it is `Pending` or `Running`.
    pub task: Heard<BackupState>,
    /// What the sidecar of `status.member` said of the verification's task of the same name; while
    /// it is `Uploaded`.
    pub proof: Heard<VerifyState>,
}

/// The cluster that a backup is of.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterFacts {
    /// Its UID.
    pub uid: String,
    /// Whether its lifecycle is `Running` and it is not being deleted.
    pub running: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `spec.backup.store`.
    pub store: Option<Store>,
    /// `spec.backup.verify.mode`.
    pub verify: VerifyMode,
    /// Its members.
    pub candidates: Vec<Candidate>,
}

/// A member that a backup might be taken of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Whether it is healthy.
    pub healthy: bool,
    /// Whether it leads.
    pub leader: bool,
    /// Whether it does not vote.
    pub learner: bool,
    /// How far it has applied.
    pub applied_index: u64,
}

/// What to do next for a backup.
#[derive(Debug, Clone, PartialEq)]
pub enum BackupStep {
    /// Nothing is to be done any more.
    Rest,
    /// Look again soon; the reason and message are those of `Succeeded`, Unknown.
    Wait(Refusal),
    /// Latch phase `Pending` with this member, attempt and store.
    Choose {
        /// The member.
        member: String,
        /// Which attempt it is, from 1.
        attempt: i32,
        /// Where the backup is to lie.
        store: Store,
    },
    /// Ask the sidecar of this member to take the backup; once it agreed, latch `Running` and
    /// `startedAt`. What it refuses is for [`refused`](super::refused).
    Start {
        /// The member.
        member: String,
        /// What to ask.
        request: Box<BackupRequest>,
    },
    /// Latch `Uploaded`, what was made, and `attempts` 0: those of the proof are counted anew.
    Uploaded(Box<Artifact>),
    /// Ask the sidecar of this member to prove the backup; once it agreed, latch this member and
    /// attempt. What it refuses is for [`refused`](super::refused).
    Prove {
        /// The member.
        member: String,
        /// Which attempt it is, from 1.
        attempt: i32,
        /// What to ask.
        request: Box<VerifyRequest>,
    },
    /// Latch `Verified`.
    Verified(VerifyMode),
    /// Delete what lies in the store, since it is not what it should be; then latch `Failed`.
    Discard {
        /// A member whose sidecar can do it.
        member: String,
        /// What to ask.
        request: DeleteRequest,
        /// Why.
        why: Refusal,
    },
    /// Latch `Failed` with the reason.
    Fail(Refusal),
    /// Stop the task of this member (`DELETE /v1/backups/{task}`), then look again.
    Stop {
        /// The member.
        member: String,
        /// The task's name.
        task: String,
    },
    /// Delete what lies in the store, then take the finalizer.
    Reclaim {
        /// A member whose sidecar can do it.
        member: String,
        /// What to ask.
        request: DeleteRequest,
    },
    /// Take the finalizer. With a message when something stays in the store that should not.
    Release(Option<String>),
}

impl ClusterFacts {
    /// The follower that is furthest, rather another one than `but`; the leader only where there
    /// is no follower.
    pub(super) fn best(&self, but: Option<&str>) -> Option<&str> {
        let healthy = self
            .candidates
            .iter()
            .filter(|member| member.healthy && !member.learner);
        let best = healthy.max_by_key(|member| {
            let other = but != Some(member.name.as_str());
            (!member.leader, other, member.applied_index, &member.name)
        });
        best.map(|member| member.name.as_str())
    }

    pub(super) fn fit(&self, name: &str) -> bool {
        let mut candidates = self.candidates.iter();
        candidates.any(|member| member.name == name && member.healthy)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.candidates.iter().any(|member| member.name == name)
    }
}
