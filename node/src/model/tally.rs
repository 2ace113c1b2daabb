//! What a member counts of its work, for its metrics. Counting takes an addition or two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::kv::command;
use super::spread::Spread;

/// A number that only grows, or a gauge.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn subtract(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The commands that are counted apart, under etcd's names.
pub const OPERATIONS: [&str; 10] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "ClusterMemberAttrSet",
    "Alarm",
    "DowngradeInfoSet",
];

/// An application that takes longer is counted as slow.
///
/// etcd: server/embed/config.go, `DefaultWarningApplyDuration`.
pub const SLOW_APPLY: Duration = Duration::from_millis(100);

/// The types of requests that are timed, under etcd's names: reads, then what goes into the log.
pub const REQUESTS: [&str; 8] = [
    "Range",
    "ReadonlyTxn",
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
];

/// A type of request: a place in [`REQUESTS`].
#[derive(Debug, Clone, Copy)]
pub struct RequestType(usize);

impl RequestType {
    pub const RANGE: Self = Self(0);
    pub const READ_ONLY_TXN: Self = Self(1);

    /// The type of a command; none for one that no client waits for.
    pub fn of(kind: &command::Kind) -> Option<Self> {
        Some(Self(match kind {
            command::Kind::Put(_) => 2,
            command::Kind::DeleteRange(_) => 3,
            command::Kind::Txn(_) => 4,
            command::Kind::Compaction(_) => 5,
            command::Kind::LeaseGrant(_) => 6,
            command::Kind::LeaseRevoke(_) => 7,
            command::Kind::LeaseCheckpoint(_)
            | command::Kind::MemberAttributes(_)
            | command::Kind::Alarm(_)
            | command::Kind::Downgrade(_) => return None,
        }))
    }
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Successful and failed, in this order.
pub type Outcomes = [Spread; 2];

/// Everything that one member counts.
#[derive(Debug)]
pub struct Tally {
    pub puts: Count,
    pub put_bytes: Count,
    pub deletes: Count,
    pub ranges: Count,
    pub txns: Count,
    pub leases_granted: Count,
    pub leases_revoked: Count,
    pub leases_renewed: Count,
    pub leases_expired: Count,
    /// In seconds.
    pub lease_ttls: Spread,
    /// How long applying takes, by operation.
    pub applies: [Outcomes; OPERATIONS.len()],
    pub slow_applies: Count,
    /// How long requests take from their arrival to their answer, by type.
    pub requests: [Outcomes; REQUESTS.len()],
    /// How long reads of a range take once there is a view to read from.
    pub reads: Outcomes,
    /// One for each write of what was applied together.
    pub commits: Spread,
    pub read_indexes_failed: Count,
    pub read_indexes_slow: Count,
    pub snapshots_being_applied: Count,
    pub defragments_in_flight: Count,
    pub defragments: Spread,
    pub hashes: Spread,
    pub revision_hashes: Spread,
    pub compacted_records: Count,
    /// Seconds since 1970; 0 before the first.
    pub compacted_at: Count,
    pub compactions: Spread,
    pub compaction_slices: Spread,
    peers: Mutex<BTreeMap<u64, Arc<PeerTally>>>,
}

impl Default for Tally {
    fn default() -> Self {
        let count = Count::default;
        Self {
            puts: count(),
            put_bytes: count(),
            deletes: count(),
            ranges: count(),
            txns: count(),
            leases_granted: count(),
            leases_revoked: count(),
            leases_renewed: count(),
            leases_expired: count(),
            lease_ttls: Spread::new(Duration::from_secs(1), 24),
            applies: std::array::from_fn(|_| {
                std::array::from_fn(|_| Spread::new(Duration::from_micros(100), 20))
            }),
            slow_applies: count(),
            requests: std::array::from_fn(|_| std::array::from_fn(|_| Spread::new(millis(1), 14))),
            reads: std::array::from_fn(|_| Spread::new(Duration::from_micros(100), 20)),
            commits: Spread::new(millis(1), 14),
            read_indexes_failed: count(),
            read_indexes_slow: count(),
            snapshots_being_applied: count(),
            defragments_in_flight: count(),
            defragments: Spread::new(millis(100), 13),
            hashes: Spread::new(millis(10), 15),
            revision_hashes: Spread::new(millis(10), 15),
            compacted_records: count(),
            compacted_at: count(),
            compactions: Spread::new(millis(100), 14),
            compaction_slices: Spread::new(millis(1), 13),
            peers: Mutex::default(),
        }
    }
}

impl Tally {
    /// Counts a request that came at `started` and is answered now.
    pub fn request(&self, kind: RequestType, started: Instant, succeeded: bool) {
        let outcome = &self.requests[kind.0][usize::from(!succeeded)];
        outcome.observe(started.elapsed());
    }

    /// Counts a read that began at `started` and ends now.
    pub fn read(&self, started: Instant, succeeded: bool) {
        self.reads[usize::from(!succeeded)].observe(started.elapsed());
    }

    /// What is counted of one peer, from now on if nothing was yet.
    pub fn peer(&self, id: u64) -> Arc<PeerTally> {
        Arc::clone(self.peers.lock().entry(id).or_default())
    }

    /// What was counted of every peer, by its ID.
    pub fn peers(&self) -> Vec<(u64, Arc<PeerTally>)> {
        let peers = self.peers.lock();
        peers
            .iter()
            .map(|(id, peer)| (*id, Arc::clone(peer)))
            .collect()
    }
}

/// What a member counts of another one.
#[derive(Debug)]
pub struct PeerTally {
    pub sent_bytes: Count,
    pub received_bytes: Count,
    pub send_failures: Count,
    pub round_trips: Spread,
    pub snapshots_sent: Count,
    pub snapshots_failed: Count,
    pub snapshots_in_flight: Count,
    pub snapshot_sends: Spread,
}

impl Default for PeerTally {
    fn default() -> Self {
        let count = Count::default;
        Self {
            sent_bytes: count(),
            received_bytes: count(),
            send_failures: count(),
            round_trips: Spread::new(Duration::from_micros(100), 16),
            snapshots_sent: count(),
            snapshots_failed: count(),
            snapshots_in_flight: count(),
            snapshot_sends: Spread::new(millis(100), 10),
        }
    }
}
