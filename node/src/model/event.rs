//! What the machine tells the floors above about an applied command.

use bytes::Bytes;

/// Whether a key was written or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub key: Bytes,
    /// The encoded `mvccpb.KeyValue`, as it lies in column `rev`. A tombstone has only key and
    /// mod_revision.
    pub kv: Bytes,
    /// Where the replaced record lies in column `rev` (main, sub); none for a create.
    pub previous: Option<(i64, i64)>,
}

/// All events of one revision, in the order of their sub-revisions. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBatch {
    pub revision: i64,
    pub events: Vec<Event>,
}

/// What a command did to leases, for those who keep their deadlines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    /// A lease was granted with this TTL in seconds.
    Granted {
        id: i64,
        ttl_seconds: i64,
    },
    Revoked {
        id: i64,
    },
    /// The remaining TTL in seconds that survives a change of leader.
    Checkpointed {
        id: i64,
        remaining_seconds: i64,
    },
}
