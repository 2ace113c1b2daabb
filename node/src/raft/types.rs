//! openraft's type parameters, fixed once. No type of ours is generic over them.

use bytes::Bytes;
use openraft::type_config::alias;

/// What our raft agrees on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig {}

impl openraft::RaftTypeConfig for TypeConfig {
    type D = Batch;
    // Every member answers its own callers from its own apply: openraft has nothing to carry.
    type R = ();
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    // One leader a term, as in etcd.
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Batch, u64, Node>;
    type Entry =
        openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft_rt_tokio::TokioRuntime;
    type Responder<T: Send + 'static> = Done<T>;
    type Batch<T: Send + 'static> = openraft::impls::InlineBatch<T>;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Told when an entry is applied, or why it is not: a plain call, so that no task must wait.
pub struct Done<T>(pub Box<dyn FnOnce(T) + Send>);

impl<T: Send + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Done<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// The payload of one raft entry: an encoded `quorate.entry.Batch`. A clone shares the bytes, for
/// openraft reads each entry once for every peer and once to apply it.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch(pub Bytes);

impl std::fmt::Debug for Batch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Batch({} bytes)", self.0.len())
    }
}

impl std::fmt::Display for Batch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "batch of {} bytes", self.0.len())
    }
}

/// A member as raft knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its peer URLs, joined by commas.
    pub addr: String,
    /// Clients added it as a learner and have not promoted it. A node without a vote that is no
    /// learner gets its vote by itself, as soon as it has caught up.
    pub is_learner: bool,
}

impl Node {
    /// A node that votes, or will.
    pub fn new(addr: impl Into<String>) -> Self {
        Self {
            addr: addr.into(),
            is_learner: false,
        }
    }
}

pub type Entry = alias::EntryOf<TypeConfig>;
pub type Payload = openraft::EntryPayload<Batch, u64, Node>;
pub type LogId = alias::LogIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type Membership = openraft::Membership<u64, Node>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;

/// The log id of `term` and `index`.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// The term of a log id.
pub fn term_of(log_id: &LogId) -> u64 {
    **log_id.committed_leader_id()
}
