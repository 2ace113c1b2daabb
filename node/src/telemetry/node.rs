//! Where this member stands, under etcd's names: read from the replica at each scrape.
//!
//! etcd: server/etcdserver/metrics.go, server/storage/mvcc/metrics.go.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::encode::Encoder;
use crate::replica::Replica;

/// What is told besides the replica's own numbers.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The release of etcd that we are compatible with.
    pub version: &'static str,
    pub cluster_version: &'static str,
    /// Our own version.
    pub own_version: &'static str,
    pub quota_bytes: i64,
    /// The feature gates that do something here, and whether they are on.
    pub features: [(&'static str, bool); 2],
}

/// Reads a replica at each scrape.
pub struct Node {
    replica: Arc<Replica>,
    facts: NodeFacts,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Node")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Node {
    pub fn new(replica: Arc<Replica>, facts: NodeFacts) -> Self {
        Self { replica, facts }
    }

    /// Raft's numbers.
    fn encode_raft(&self, encoder: &mut Encoder<'_, '_>) -> std::fmt::Result {
        let raft = self.replica.status();
        encoder.gauge(
            "etcd_server_has_leader",
            "Whether or not a leader exists. 1 is existence, 0 is not",
            i64::from(raft.leader != 0),
        )?;
        encoder.gauge(
            "etcd_server_is_leader",
            "Whether or not this member is a leader. 1 if is, 0 otherwise",
            i64::from(raft.is_leader),
        )?;
        encoder.gauge(
            "etcd_server_is_learner",
            "Whether or not this member is a learner. 1 if is, 0 otherwise",
            i64::from(raft.is_learner),
        )?;
        self.encode_promotions(encoder)?;
        encoder.counter(
            "etcd_server_leader_changes_seen",
            "The number of leader changes seen",
            raft.leader_changes,
        )?;
        encoder.gauge(
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed",
            signed(raft.proposals_committed),
        )?;
        encoder.gauge(
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied",
            signed(raft.proposals_applied),
        )?;
        encoder.gauge(
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit",
            signed(raft.proposals_pending),
        )?;
        encoder.counter(
            "etcd_server_proposals_failed",
            "The total number of failed proposals seen",
            raft.proposals_failed,
        )
    }

    /// Promotions of learners.
    fn encode_promotions(&self, encoder: &mut Encoder<'_, '_>) -> std::fmt::Result {
        let promotions = self.replica.promotions();
        encoder.counter(
            "etcd_server_learner_promote_successes",
            "The total number of successful learner promotions while this member is leader",
            promotions.succeeded(),
        )?;
        let failed = promotions.failed();
        if failed.is_empty() {
            return Ok(());
        }
        encoder.counters(
            "etcd_server_learner_promote_failures",
            "The total number of failed learner promotions (likely learner not ready) while this \
             member is leader",
            failed
                .iter()
                .map(|(reason, count)| ([("Reason", reason.as_str())], *count)),
        )
    }

    /// The store's numbers.
    fn encode_store(&self, encoder: &mut Encoder<'_, '_>) -> std::fmt::Result {
        let view = self.replica.view();
        match view.db().size_bytes() {
            Ok((size, in_use)) => {
                encoder.gauge(
                    "etcd_mvcc_db_total_size_in_bytes",
                    "Total size of the underlying database physically allocated in bytes",
                    signed(size),
                )?;
                encoder.gauge(
                    "etcd_mvcc_db_total_size_in_use_in_bytes",
                    "Total size of the underlying database logically in use in bytes",
                    signed(in_use),
                )?;
            }
            // A series that is absent says it best: there is no number.
            Err(error) => tracing::error!(%error, "cannot tell the size of the store"),
        }
        encoder.gauge(
            "etcd_server_quota_backend_bytes",
            "Current backend storage quota size in bytes",
            self.facts.quota_bytes,
        )?;
        encoder.gauge(
            "etcd_debugging_mvcc_current_revision",
            "The current revision of store",
            view.revision,
        )?;
        encoder.gauge(
            "etcd_debugging_mvcc_compact_revision",
            "The revision of the last compaction in store",
            view.compacted,
        )
    }

    /// Watches.
    fn encode_watches(&self, encoder: &mut Encoder<'_, '_>) -> std::fmt::Result {
        let counts = self.replica.hub().counts();
        let gauges = [
            (
                "etcd_debugging_mvcc_watch_stream_total",
                "Total number of watch streams",
                counts.streams,
            ),
            (
                "etcd_debugging_mvcc_watcher_total",
                "Total number of watchers",
                counts.watchers,
            ),
            (
                "etcd_debugging_mvcc_slow_watcher_total",
                "Total number of unsynced slow watchers",
                counts.slow_watchers,
            ),
            (
                "etcd_debugging_mvcc_pending_events_total",
                "Total number of pending events to be sent",
                counts.pending_events,
            ),
        ];
        for (name, help, value) in gauges {
            encoder.gauge(name, help, signed(value as u64))?;
        }
        encoder.gauge(
            "quorate_leases",
            "Leases that this member knows",
            signed(self.replica.lease_count() as u64),
        )?;
        encoder.counter(
            "etcd_debugging_mvcc_events",
            "Total number of events sent by this member",
            counts.events_sent,
        )
    }

    /// Who we are.
    fn encode_facts(&self, encoder: &mut Encoder<'_, '_>) -> std::fmt::Result {
        let id = format!("{:x}", self.replica.member_id());
        let facts = [
            (
                "etcd_server_version",
                "Which version is running. 1 for 'server_version' label with current version",
                "server_version",
                self.facts.version,
            ),
            (
                "etcd_cluster_version",
                "Which version is running. 1 for 'cluster_version' label with current cluster \
                 version",
                "cluster_version",
                self.facts.cluster_version,
            ),
            (
                "etcd_server_id",
                "Server or member ID in hexadecimal format. 1 for 'server_id' label with \
                 current ID",
                "server_id",
                id.as_str(),
            ),
            (
                "quorate_build_info",
                "Which version of Quorate is running",
                "version",
                self.facts.own_version,
            ),
        ];
        for (name, help, label, value) in facts {
            encoder.fact(name, help, (label, value))?;
        }
        let features = self.facts.features.iter();
        encoder.gauges(
            "etcd_server_feature_enabled",
            "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
            features.map(|(name, on)| ([("name", *name), ("stage", "ALPHA")], u64::from(*on))),
        )?;
        let view = self.replica.view();
        let peers: Vec<String> = match view.members() {
            Ok(members) => members.iter().map(|it| format!("{:x}", it.id)).collect(),
            Err(error) => {
                tracing::error!(%error, "cannot tell the members");
                return Ok(());
            }
        };
        encoder.gauges(
            "etcd_network_known_peers",
            "The current number of known peers.",
            peers
                .iter()
                .map(|remote| ([("Local", id.as_str()), ("Remote", remote)], 1)),
        )
    }
}

impl Collector for Node {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut encoder = Encoder(&mut encoder);
        self.encode_raft(&mut encoder)?;
        self.encode_store(&mut encoder)?;
        self.encode_watches(&mut encoder)?;
        self.encode_facts(&mut encoder)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
