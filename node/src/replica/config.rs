//! What a replica and its duties need to know.

use std::time::Duration;

use super::reconfigure::Reconfiguration;
use crate::raft::bootstrap::RaftOptions;

/// What a replica needs to know.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    pub raft: RaftOptions,
    /// What this member publishes of itself.
    pub name: String,
    pub client_urls: Vec<String>,
    /// A larger command is refused; `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// A larger store takes no more; `--quota-backend-bytes`, none when negative.
    pub quota_bytes: Option<u64>,
    /// How often the leader compares the members' newest keys; `--corrupt-check-time`.
    pub corrupt_check: Option<Duration>,
    /// How often it compares what the newest compaction left: the gate `CompactHashCheck` and
    /// `--compact-hash-check-time`.
    pub compact_hash_check: Option<Duration>,
    /// How old revisions are compacted by themselves.
    pub auto_compaction: AutoCompaction,
    /// `--compaction-batch-limit`.
    pub compaction_slice_records: usize,
    /// `--compaction-sleep-interval`.
    pub compaction_pause: Duration,
    /// Which changes of the members are refused.
    pub reconfiguration: Reconfiguration,
}

/// `--auto-compaction-mode` and `--auto-compaction-retention`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AutoCompaction {
    #[default]
    Off,
    /// Keeps the revisions of this period.
    Periodic(Duration),
    /// Keeps this many revisions.
    Revision(i64),
}
