//! What may be done next.

use std::time::Duration;

use crate::api::OperationKind;

/// One thing to do. Each is safe to do twice, and safe to be interrupted before or after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the `QuorateMember` of the first member, born `Seed`.
    CreateSeed {
        /// Its name.
        name: String,
    },
    /// Make the `QuorateMember` of a further member, born `Join`.
    CreateJoiner {
        /// Its name.
        name: String,
    },
    /// Latch phase `Admitted`, `--initial-cluster` and the claim's UID on the seed, so that its Pod
    /// may be made.
    AdmitSeed {
        /// Its name.
        name: String,
    },
    /// Tell the cluster of a learner at the member's peer URL (MemberAdd, learner), unless a
    /// linearizable list has that URL already; then latch its ID, `--initial-cluster`, the claim's
    /// UID and phase `Admitted` on the `QuorateMember`.
    AdmitJoiner {
        /// Its name.
        name: String,
    },
    /// Latch what was found out: the cluster's ID in the cluster's status.
    LatchClusterId {
        /// The ID.
        id: u64,
    },
    /// Latch a seed's own ID on its `QuorateMember`.
    LatchMemberId {
        /// Its name.
        name: String,
        /// Its ID.
        id: u64,
    },
    /// Make the member's claim.
    CreateClaim {
        /// The member's name.
        name: String,
    },
    /// Make the member's Pod from the template at hand.
    CreatePod {
        /// The member's name.
        name: String,
    },
    /// Delete the member's Pod, if its UID is still this one.
    DeletePod {
        /// The member's name.
        name: String,
        /// The Pod's UID.
        uid: String,
        /// Why.
        cause: Cause,
    },
    /// Ask the member's claim for more.
    ExpandClaim {
        /// The member's name.
        name: String,
        /// Bytes.
        bytes: u64,
    },
    /// Make a learner that has caught up a voter. The server itself refuses one that has not,
    /// which is no failure.
    Promote {
        /// The member's name.
        name: String,
        /// Its ID.
        id: u64,
    },
    /// Hand leadership to another member.
    MoveLeader {
        /// The ID of the member that is to lead.
        to: u64,
        /// Its name.
        name: String,
    },
    /// Latch phase `Leaving` and its reason on the `QuorateMember`, so that what follows goes on
    /// after an interruption. With `replacement`, the time is added to the cluster's status.
    Retire {
        /// Its name.
        name: String,
        /// Why.
        cause: Cause,
        /// Whether it counts as a replacement.
        replacement: bool,
    },
    /// Remove a member from the cluster (MemberRemove) and see it gone from a linearizable list.
    RemoveMember {
        /// Its ID.
        id: u64,
        /// Its name.
        name: String,
    },
    /// Delete the `QuorateMember` of a member that is confirmed to be out of the cluster (or of a
    /// cluster that goes away). Its Pod goes with it; its claim goes too (`delete_claim`) or is
    /// relabelled as retired and kept.
    DropMember {
        /// Its name.
        name: String,
        /// Whether the claim goes too.
        delete_claim: bool,
    },
    /// Compact to the current revision, defragment followers and then the leader, disarm NOSPACE.
    FreeSpace,
    /// Take the finalizer from the cluster: nothing is left to be done for it.
    Release,
}

/// Why a Pod is deleted or a member leaves; each is the reason of an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Fewer members are wanted.
    ScalingIn,
    /// The Pod is not as the spec wants it.
    Outdated,
    /// The Pod ended and will not come back by itself.
    PodFailed,
    /// The claim or its volume is gone, or is another one than the member was admitted with.
    DataLost,
    /// The data directory is damaged, or the member raised CORRUPT.
    DataCorrupt,
    /// The node is gone.
    NodeLost,
    /// It was unhealthy for longer than `replaceUnhealthyAfterSeconds`.
    Unhealthy,
    /// The cluster removed it, but not by this operator's plan.
    RemovedFromCluster,
    /// It did not become a voter in time.
    LearnerStuck,
    /// The cluster hibernates.
    Hibernated,
    /// The cluster is deleted.
    Deleted,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::ScalingIn,
        Self::Outdated,
        Self::PodFailed,
        Self::DataLost,
        Self::DataCorrupt,
        Self::NodeLost,
        Self::Unhealthy,
        Self::RemovedFromCluster,
        Self::LearnerStuck,
        Self::Hibernated,
        Self::Deleted,
    ];

    /// The word for it, in `leavingReason` and as the reason of an Event.
    #[must_use]
    pub fn reason(self) -> String {
        format!("{self:?}")
    }

    /// The cause that a word stands for.
    #[must_use]
    pub fn of_reason(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.reason() == reason)
    }
}

/// Something that the operator will not do, and why: shown as `Stalled`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A word that stays the same: `UnsupportedVersionPath`, `InvalidReference`,
    /// `VolumeNotExpandable`, `ImagePullFailed`, `QuotaExceeded`, `SplitBrain`, `QuorumLost`,
    /// `ReplacementsExhausted`, `RestoreFailed`, `ProgressDeadlineExceeded`,
    /// `HibernationUnsafe`, `InvalidSchedule`.
    pub reason: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The one thing to do; None: wait.
    pub action: Option<Action>,
    /// What it is part of, the step in words, and the member.
    pub operation: Option<(OperationKind, String, Option<String>)>,
    /// What the operation waits for, in words.
    pub blocked_by: Option<String>,
    /// Why nothing goes on until someone acts.
    pub stalled: Option<Refusal>,
    /// When to look again even if nothing is heard: soon while something goes on.
    pub look_again: Duration,
}
