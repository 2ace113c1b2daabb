//! What this member has counted of its work, under etcd's names.
//!
//! etcd: server/storage/mvcc/metrics.go, server/storage/backend/metrics.go, server/lease/
//! metrics.go, server/etcdserver/{metrics,txn/metrics,read/metrics}.go,
//! server/etcdserver/api/rafthttp/metrics.go.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::encode::Encoder;
use crate::model::spread::Spread;
use crate::model::tally::{OPERATIONS, PeerTally, REQUESTS, Tally};
use crate::replica::Replica;

/// Tells a replica's tally at each scrape.
pub struct Counted {
    replica: Arc<Replica>,
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Counted").finish_non_exhaustive()
    }
}

impl Counted {
    pub fn new(replica: Arc<Replica>) -> Self {
        Self { replica }
    }
}

fn counters(tally: &Tally) -> [(&'static str, &'static str, u64); 12] {
    [
        (
            "etcd_mvcc_range",
            "Total number of ranges seen by this member",
            tally.ranges.get(),
        ),
        (
            "etcd_mvcc_put",
            "Total number of puts seen by this member",
            tally.puts.get(),
        ),
        (
            "etcd_mvcc_delete",
            "Total number of deletes seen by this member",
            tally.deletes.get(),
        ),
        (
            "etcd_mvcc_txn",
            "Total number of txns seen by this member",
            tally.txns.get(),
        ),
        (
            "etcd_debugging_lease_granted",
            "The total number of granted leases",
            tally.leases_granted.get(),
        ),
        (
            "etcd_debugging_lease_revoked",
            "The total number of revoked leases",
            tally.leases_revoked.get(),
        ),
        (
            "etcd_debugging_lease_renewed",
            "The number of renewed leases seen by the leader",
            tally.leases_renewed.get(),
        ),
        (
            "etcd_debugging_server_lease_expired",
            "The total number of expired leases",
            tally.leases_expired.get(),
        ),
        (
            "etcd_server_slow_apply",
            "The total number of slow apply requests (likely overloaded from slow disk)",
            tally.slow_applies.get(),
        ),
        (
            "etcd_server_slow_read_indexes",
            "The total number of pending read indexes not in sync with leader's or timed out read \
             index requests",
            tally.read_indexes_slow.get(),
        ),
        (
            "etcd_server_read_indexes_failed",
            "The total number of failed read indexes seen",
            tally.read_indexes_failed.get(),
        ),
        (
            "etcd_debugging_mvcc_db_compaction_keys",
            "Total number of db keys compacted",
            tally.compacted_records.get(),
        ),
    ]
}

fn gauges(tally: &Tally) -> [(&'static str, &'static str, u64); 4] {
    [
        (
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "The total size of put kv pairs seen by this member",
            tally.put_bytes.get(),
        ),
        (
            "etcd_debugging_mvcc_db_compaction_last",
            "The unix time of the last db compaction. Resets to 0 on start",
            tally.compacted_at.get(),
        ),
        (
            "etcd_server_snapshot_apply_in_progress_total",
            "1 if the server is applying the incoming snapshot. 0 if none",
            tally.snapshots_being_applied.get(),
        ),
        (
            "etcd_disk_defrag_inflight",
            "Whether or not defrag is active on the member. 1 means active, 0 means not",
            tally.defragments_in_flight.get(),
        ),
    ]
}

/// Histograms without labels; the last number is how many of the unit a second has.
fn spreads(tally: &Tally) -> [(&'static str, &'static str, &Spread, f64); 7] {
    [
        (
            "etcd_disk_backend_commit_duration_seconds",
            "The latency distributions of commit called by backend",
            &tally.commits,
            1.0,
        ),
        (
            "etcd_debugging_lease_ttl_total",
            "Bucketed histogram of lease TTLs",
            &tally.lease_ttls,
            1.0,
        ),
        (
            "etcd_disk_backend_defrag_duration_seconds",
            "The latency distribution of backend defragmentation",
            &tally.defragments,
            1.0,
        ),
        (
            "etcd_mvcc_hash_duration_seconds",
            "The latency distribution of storage hash operation",
            &tally.hashes,
            1.0,
        ),
        (
            "etcd_mvcc_hash_rev_duration_seconds",
            "The latency distribution of storage hash by revision operation",
            &tally.revision_hashes,
            1.0,
        ),
        (
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "Bucketed histogram of db compaction total duration",
            &tally.compactions,
            1_000.0,
        ),
        (
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            "Bucketed histogram of db compaction pause duration",
            &tally.compaction_slices,
            1_000.0,
        ),
    ]
}

/// Name, help, label and value of a counter that there is for each peer.
type PeerCounter = (
    &'static str,
    &'static str,
    &'static str,
    fn(&PeerTally) -> u64,
);

const PEER_COUNTERS: [PeerCounter; 5] = [
    (
        "etcd_network_peer_sent_bytes",
        "The total number of bytes sent to peers",
        "To",
        |peer| peer.sent_bytes.get(),
    ),
    (
        "etcd_network_peer_received_bytes",
        "The total number of bytes received from peers",
        "From",
        |peer| peer.received_bytes.get(),
    ),
    (
        "etcd_network_peer_sent_failures",
        "The total number of send failures from peers",
        "To",
        |peer| peer.send_failures.get(),
    ),
    (
        "etcd_network_snapshot_send_success",
        "Total number of successful snapshot sends",
        "To",
        |peer| peer.snapshots_sent.get(),
    ),
    (
        "etcd_network_snapshot_send_failures",
        "Total number of snapshot send failures",
        "To",
        |peer| peer.snapshots_failed.get(),
    ),
];

fn encode_peers(encoder: &mut Encoder<'_, '_>, tally: &Tally) -> std::fmt::Result {
    let peers: Vec<(String, Arc<PeerTally>)> = tally
        .peers()
        .into_iter()
        .map(|(id, peer)| (format!("{id:x}"), peer))
        .collect();
    if peers.is_empty() {
        return Ok(());
    }
    for (name, help, label, count) in PEER_COUNTERS {
        let values = peers
            .iter()
            .map(|(id, peer)| ([(label, id.as_str())], count(peer)));
        encoder.counters(name, help, values)?;
    }
    let in_flight = peers
        .iter()
        .map(|(id, peer)| ([("To", id.as_str())], peer.snapshots_in_flight.get()));
    encoder.gauges(
        "etcd_network_snapshot_send_inflights_total",
        "Total number of inflight snapshot sends",
        in_flight,
    )?;
    encoder.spreads(
        "etcd_network_snapshot_send_total_duration_seconds",
        "Total latency distributions of v3 snapshot sends",
        peers
            .iter()
            .map(|(id, peer)| ([("To", id.as_str())], &peer.snapshot_sends)),
    )?;
    encoder.spreads(
        "etcd_network_peer_round_trip_time_seconds",
        "Round-Trip-Time histogram between peers",
        peers
            .iter()
            .map(|(id, peer)| ([("To", id.as_str())], &peer.round_trips)),
    )
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut encoder = Encoder(&mut encoder);
        let tally = self.replica.tally();
        for (name, help, count) in counters(tally) {
            encoder.counter(name, help, count)?;
        }
        for (name, help, value) in gauges(tally) {
            encoder.gauge(name, help, i64::try_from(value).unwrap_or(i64::MAX))?;
        }
        for (name, help, spread, scale) in spreads(tally) {
            encoder.spread(name, help, spread, scale)?;
        }
        let applies = OPERATIONS.iter().zip(&tally.applies);
        let applies = applies.flat_map(|(operation, outcomes)| {
            ["true", "false"]
                .into_iter()
                .zip(outcomes)
                .map(|(success, spread)| {
                    let labels = [("op", *operation), ("success", success), ("version", "v3")];
                    (labels, spread)
                })
        });
        encoder.spreads(
            "etcd_server_apply_duration_seconds",
            "The latency distributions of v2 apply called by backend",
            applies,
        )?;
        let requests = REQUESTS.iter().zip(&tally.requests);
        let requests = requests.flat_map(|(kind, outcomes)| {
            ["true", "false"]
                .into_iter()
                .zip(outcomes)
                .map(|(success, spread)| ([("success", success), ("type", *kind)], spread))
        });
        encoder.spreads(
            "etcd_server_request_duration_seconds",
            "Response latency distribution in seconds for each type",
            requests,
        )?;
        encoder.spreads(
            "etcd_server_range_duration_seconds",
            "The latency distributions of txn.Range",
            ["true", "false"]
                .into_iter()
                .zip(&tally.reads)
                .map(|(success, spread)| ([("success", success)], spread)),
        )?;
        encode_peers(&mut encoder, tally)?;
        let view = self.replica.view();
        let alarms: Vec<(String, &str)> = view
            .conditions
            .alarms()
            .iter()
            .map(|alarm| {
                (
                    format!("{:x}", alarm.member_id),
                    alarm.alarm().as_str_name(),
                )
            })
            .collect();
        encoder.gauges(
            "etcd_debugging_server_alarms",
            "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for \
             'alarm_type' label with type of this alarm",
            alarms
                .iter()
                .map(|(id, kind)| ([("alarm_type", *kind), ("server_id", id)], 1)),
        )
    }
}
