//! Every limit of the node, with its unit, in one place. Defaults of flags are here too.
//!
//! etcd: server/embed/config.go, server/etcdserver/api/v3rpc, server/lease/lessor.go.

/// A proposal's encoded size; `--max-request-bytes`.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// What gRPC may carry above [`REQUEST_BYTES_MAX`].
pub const GRPC_OVERHEAD_BYTES: usize = 524_288;
/// Compares or operations in one branch of a txn; `--max-txn-ops`.
pub const TXN_OPS_MAX: usize = 128;
/// The longest TTL of a lease.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// Leases revoked by expiry in a second.
pub const LEASE_REVOKES_PER_SECOND_MAX: usize = 1_000;
/// Proposals of one member that wait for their answer; more get `too many requests`.
pub const PROPOSALS_PENDING_MAX: usize = 5_000;
/// Commands in one raft entry.
pub const BATCH_COMMANDS_MAX: usize = 1_024;
/// Bytes of commands in one raft entry, unless a single command is larger.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Commands that are applied before they are committed to the store together.
pub const APPLY_COMMANDS_MAX: usize = 4_096;
/// Bytes of commands that are applied before they are committed together.
pub const APPLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Log that is replayed after a crash, at most about so much: then the state is flushed.
pub const REPLAY_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Log that is kept for members that catch up, whatever the number of its entries.
pub const LOG_KEPT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Entries after which the state is flushed; `--snapshot-count`.
pub const SNAPSHOT_COUNT: u64 = 10_000;
/// Entries kept behind a flushed state; `--snapshot-catchup-entries`.
pub const SNAPSHOT_CATCHUP_ENTRIES: u64 = 5_000;
/// One message between members: some full batches.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Appends to one peer that are not answered yet.
pub const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// A peer that owes an answer for so long is given up.
pub const PEER_STALL_MS: u64 = 5_000;
/// The piece in which a snapshot's files travel.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1024 * 1024;
/// Sections that a follower has on their way to the leader.
pub const FORWARDED_SECTIONS_MAX: usize = 2;
/// Sections of other members that wait at the leader for the next entry.
pub const FOREIGN_SECTIONS_MAX: usize = 256;
/// The pause before what was certainly not proposed is tried again.
pub const PROPOSAL_PAUSE_MS: u64 = 50;
/// How often a round of read indexes lets everything else that is ready go first.
pub const READ_ROUND_YIELDS: usize = 2;
/// How long a reader waits before it asks again for a read index that does not come.
pub const READ_RETRY_MS: u64 = 500;
/// Entries that a new voter may lack when it gets its vote.
pub const VOTE_LAG_ENTRIES_MAX: u64 = 64;
/// How long a member that joins lets the one it asks look for a leader.
pub const MEMBERS_WAIT_MS: u64 = 2_000;
/// Leases that one message to the leader renews or asks about.
pub const LEASES_PER_MESSAGE_MAX: usize = 1_024;
/// How often leases are looked through for expired ones.
pub const LEASE_SCAN_MS: u64 = 500;
/// How old the size of the store may be that is held against the quota.
pub const QUOTA_MEASURE_MS: u64 = 100;
/// Records that one slice of a watcher's catching up reads.
pub const WATCH_CATCHUP_RECORDS_MAX: usize = 1_000;
/// Records that one slice of a compaction looks at; `--compaction-batch-limit`.
pub const COMPACTION_SLICE_RECORDS: usize = 1_000;
/// The pause between two slices of a compaction; `--compaction-sleep-interval`.
pub const COMPACTION_PAUSE_MS: u64 = 10;
/// Revisions that wait for one watch stream; more, and it reads on from history.
pub const WATCH_QUEUE_REVISIONS_MAX: usize = 1_024;
/// Bytes of events that wait for one watch stream, unless a single revision is larger.
pub const WATCH_QUEUE_BYTES_MAX: usize = 512 * 1024;
/// Watchers on one stream.
pub const WATCHERS_PER_STREAM_MAX: usize = 100_000;
/// Streams that read history at the same time; others wait for their turn.
pub const WATCH_CATCHUPS_MAX: usize = 4;
/// Bytes of events that one slice of a watcher's catching up aims at.
pub const WATCH_CATCHUP_BYTES: usize = 1024 * 1024;
/// The time between two progress notifications; `--watch-progress-notify-interval`.
pub const WATCH_PROGRESS_INTERVAL_MS: u64 = 600_000;
/// The least that [`WATCH_PROGRESS_INTERVAL_MS`] may be set to.
pub const WATCH_PROGRESS_INTERVAL_MS_MIN: u64 = 100;
/// The TTL of a lease that Lock or Campaign makes for a caller without one.
pub const LOCK_LEASE_TTL_SECONDS: i64 = 60;
