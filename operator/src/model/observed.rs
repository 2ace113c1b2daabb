//! One look at a cluster: its objects in Kubernetes and what its members say.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::{Birth, Lifecycle, MemberPhase, NodeLoss, OperationKind, Reclaim};

use super::{Cause, Refusal};

/// One look at a cluster. The objects are read before the members are asked for their list, so
/// that a member that was admitted is in the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// When it was looked.
    pub now: Timestamp,
    /// What is wanted, and what was latched.
    pub cluster: ClusterView,
    /// The `QuorateMember` objects by name, each with its Pod and claim.
    pub members: BTreeMap<String, MemberView>,
    /// The members as a linearizable list has them: None when no quorum answered.
    pub listed: Option<Listed>,
    /// What each member that answered says of itself, by name.
    pub voices: BTreeMap<String, Voice>,
    /// Alarms that are raised, as a linearizable answer has them.
    pub alarms: Vec<(u64, AlarmKind)>,
    /// A name that no member ever had, for the next one.
    pub fresh_name: String,
}

/// What is wanted of a cluster, and what was latched in its status.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it runs.
    pub lifecycle: Lifecycle,
    /// How many voters are wanted.
    pub replicas: usize,
    /// The cluster's ID, once the first member had one: latched, and from then on no member is a
    /// seed.
    pub cluster_id: Option<u64>,
    /// The revision of the template that Pods should be made from.
    pub revision: String,
    /// Whether the outdated Pods differ in their version (an upgrade) or in something else.
    pub upgrading: bool,
    /// Bytes that each volume should have.
    pub storage: Storage,
    /// How long a member may be unhealthy before it is replaced, in seconds.
    pub replace_unhealthy_after_seconds: i64,
    /// How many members may be replaced within an hour.
    pub max_replacements_per_hour: usize,
    /// What is done when a node is gone.
    pub on_node_lost: NodeLoss,
    /// When members were replaced within the last hour.
    pub replacements: Vec<Timestamp>,
    /// When `FreeSpace` was last done, as far as the operator remembers.
    pub space_freed: Option<Timestamp>,
    /// The status says that the cluster hibernates: what comes next is to resume.
    pub was_hibernated: bool,
    /// What the status says is being done, and since when.
    pub operation: Option<(OperationKind, Timestamp)>,
    /// Why new Pods cannot be made as they should: a missing Secret, an unsupported version path.
    /// While there are any, nothing that needs a new Pod from the changed template is begun;
    /// what heals with the template at hand goes on if `blocks_pods` is false.
    pub refusals: Vec<Refusal>,
    /// No Pod at all can be made now: something that each needs is missing.
    pub blocks_pods: bool,
}

/// What is wanted of volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// Bytes that each claim should ask for. 0: memory, no claims.
    pub bytes: u64,
    /// Whether the storage class lets claims grow; None when that is not known.
    pub expandable: Option<bool>,
    /// What becomes of the claims of members that leave.
    pub reclaim: Reclaim,
}

/// A `QuorateMember` with what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct MemberView {
    /// When the object was made.
    pub created: Timestamp,
    /// How it comes into being.
    pub birth: Birth,
    /// Where it is in its life.
    pub phase: MemberPhase,
    /// Its ID once it is latched.
    pub id: Option<u64>,
    /// Why it leaves, as latched.
    pub leaving: Option<Cause>,
    /// The latched value of `--initial-cluster`.
    pub initial_cluster: Option<String>,
    /// Since when it is seen unhealthy (`plan::is_healthy`), as latched; observation sets and
    /// clears it before `plan`, from the moment that it is admitted.
    pub unhealthy_since: Option<Timestamp>,
    /// The UID of the claim it was admitted with.
    pub claim_uid: Option<String>,
    /// Its Pod.
    pub pod: Option<PodView>,
    /// Its claim.
    pub claim: Option<ClaimView>,
}

/// A member's Pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodView {
    /// Its UID: deletions name it.
    pub uid: String,
    /// The revision of the template it was made from.
    pub revision: String,
    /// Whether it is ready, and since when.
    pub ready_since: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it ended for good (evicted, failed).
    pub failed: bool,
    /// The exit code of the gate's last failed run (`sidecar::wire::exit`), until it passes.
    pub gate_exit: Option<i32>,
    /// Why a container waits: `ImagePullBackOff`, `CrashLoopBackOff`, `CreateContainerConfigError`;
    /// or why the Pod is not scheduled: `Unschedulable`.
    pub waiting: Option<String>,
    /// How many times the container `quorate` was restarted.
    pub restarts: u32,
    /// The node it is bound to.
    pub node: Option<String>,
    /// The zone of that node.
    pub zone: Option<String>,
    /// Its node is gone or does not answer.
    pub node_lost: bool,
}

/// A member's claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimView {
    /// Its UID: deletions name it, and data are told apart by it.
    pub uid: String,
    /// Bytes it asks for.
    pub requested_bytes: u64,
    /// Bytes it has; 0 until it is bound.
    pub capacity_bytes: u64,
    /// Its volume is gone (`Lost`).
    pub lost: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// The members as the cluster itself lists them, linearizably.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The cluster's ID.
    pub cluster_id: u64,
    /// Every member.
    pub members: Vec<ListedMember>,
}

/// A member as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedMember {
    /// Its ID.
    pub id: u64,
    /// The name in its peer URL, which is the `QuorateMember`'s name: also there when the member
    /// has never started and has no name of its own.
    pub name: String,
    /// Whether it does not vote.
    pub learner: bool,
}

/// What a member that answered says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voice {
    /// Its cluster's ID.
    pub cluster_id: u64,
    /// Its ID.
    pub id: u64,
    /// Who it thinks leads; 0: nobody.
    pub leader: u64,
    /// How far its log goes.
    pub raft_index: u64,
    /// How far it has applied.
    pub applied_index: u64,
    /// Whether it does not vote.
    pub learner: bool,
    /// The size of its store in bytes.
    pub db_size_bytes: i64,
    /// The version it reports.
    pub version: String,
    /// What it complains of: alarms, a lagging apply.
    pub errors: Vec<String>,
}

/// An alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmKind {
    /// The quota is exceeded; writes are refused.
    NoSpace,
    /// The member's data differ from the others'.
    Corrupt,
}
