//! The objects of `quorate.dev/v1alpha1`: what users write and what they read back.

#![allow(
    clippy::duplicated_attributes,
    reason = "columns of a kind repeat their types"
)]

mod backup;
mod cluster;
mod conditions;
mod engine;
mod member;
mod pod;
mod schedule;
mod status;
mod tls;

pub use backup::{BackupPhase, QuorateBackup, QuorateBackupSpec, QuorateBackupStatus, Reclaim};
pub use cluster::{
    Bootstrap, FromBackup, Healing, Image, Lifecycle, NodeLoss, QuorateCluster, QuorateClusterSpec,
    Storage, StorageMedium,
};
pub use conditions::{ConditionType, Conditions};
pub use engine::{AutoCompaction, AutoCompactionMode, Engine, OWNED_FLAGS};
pub use member::{Birth, MemberPhase, QuorateMember, QuorateMemberSpec, QuorateMemberStatus};
pub use pod::{
    Automatic, DisruptionBudget, Monitoring, NetworkRules, PodSettings, ServiceSettings,
};
pub use schedule::{BackupSettings, Retention, Verify};
pub use status::{
    MemberRole, MemberStatus, Operation, OperationKind, QuorateClusterStatus, VersionStatus,
};
pub use tls::{CertManager, ClientAuth, IssuerReference, OperatorAuthority, Tls, TlsSource};

/// The group of all kinds here.
pub const GROUP: &str = "quorate.dev";
/// The version of all kinds here.
pub const VERSION: &str = "v1alpha1";
/// The field manager of everything the operator writes.
pub const FIELD_MANAGER: &str = "quorate-operator";
/// The label with a cluster's name, on every object of the cluster.
pub const CLUSTER_LABEL: &str = "quorate.dev/cluster";
/// The label with a member's name, on its Pod and claim.
pub const MEMBER_LABEL: &str = "quorate.dev/member";
/// The label that says what a Pod is in its cluster: `voter` or `learner`.
pub const ROLE_LABEL: &str = "quorate.dev/role";
/// The annotation with the revision of the template that a Pod was made from.
pub const REVISION_ANNOTATION: &str = "quorate.dev/revision";
/// The label of backups that the schedule made.
pub const SCHEDULED_LABEL: &str = "quorate.dev/scheduled";
/// The annotation of backups that retention deletes: the stored object goes with them.
pub const RETIRED_ANNOTATION: &str = "quorate.dev/retired";
/// The finalizer on clusters and on backups.
pub const FINALIZER: &str = "quorate.dev/finalizer";
