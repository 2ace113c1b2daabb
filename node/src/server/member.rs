//! Who this member is, and what its replica is told.

use std::sync::Arc;
use std::time::Duration;

use crate::config::urls::texts;
use crate::config::{Cluster, Config, Retention};
use crate::model::member::{Member, cluster_id, member_id};
use crate::raft::bootstrap::RaftOptions;
use crate::raft::identity::owner_of;
use crate::replica::ReplicaConfig;
use crate::tasks::autocompact::AutoCompaction;

/// Who this member is. A data directory that was started before knows; unless the members are
/// named again, and then they must be the same. A first start computes IDs as etcd does.
fn identity(config: &Config) -> Result<(u64, u64), String> {
    let cluster = &config.cluster;
    let found = owner_of(&config.data_dir).map_err(|error| error.to_string())?;
    match found {
        Some(found) if !cluster.initial_is_given => return Ok(found),
        Some(_) => {}
        None if cluster.initial_is_existing => {
            return Err(
                "--initial-cluster-state=existing: joining a cluster that is running is \
                        not supported yet"
                    .to_owned(),
            );
        }
        None => cluster
            .check_bootstrap(&config.name)
            .map_err(|error| error.to_string())?,
    }
    let members = cluster.initial.values();
    let ids: Vec<u64> = members
        .map(|urls| member_id(&texts(urls), &cluster.token))
        .collect();
    let own = member_id(&texts(&cluster.advertise_peer), &cluster.token);
    Ok((own, cluster_id(&ids)))
}

/// What the replica is told.
pub fn replica_config(config: &Config) -> Result<ReplicaConfig, String> {
    let cluster = &config.cluster;
    let (member_id, cluster_id) = identity(config)?;
    Ok(ReplicaConfig {
        raft: RaftOptions {
            member_id,
            cluster_id,
            data_dir: config.data_dir.clone(),
            members: first_members(cluster),
            heartbeat_interval: Duration::from_millis(cluster.heartbeat_ms),
            election_timeout: Duration::from_millis(cluster.election_ms),
            snapshot_count: cluster.snapshot_count,
            snapshot_catchup_entries: cluster.snapshot_catchup_entries,
            fsync: cluster.fsync,
            tally: Arc::default(),
        },
        name: config.name.clone(),
        client_urls: texts(&cluster.advertise_client),
        max_request_bytes: config.limits.request_bytes_max,
        quota_bytes: u64::try_from(config.limits.quota_bytes).ok(),
        corrupt_check: config.checks.newest,
        compact_hash_check: config.checks.compacted,
        auto_compaction: match config.compaction.retention {
            Retention::Everything => AutoCompaction::Off,
            Retention::Period(period) => AutoCompaction::Periodic(period),
            Retention::Revisions(count) => AutoCompaction::Revision(count),
        },
        compaction_slice_records: config.compaction.slice_records,
        compaction_pause: config.compaction.pause,
    })
}

/// The members that a first start begins with.
fn first_members(cluster: &Cluster) -> Vec<Member> {
    let members = cluster.initial.iter();
    members
        .map(|(name, urls)| {
            let peer_urls = texts(urls);
            Member {
                id: member_id(&peer_urls, &cluster.token),
                name: name.clone(),
                peer_urls,
                client_urls: Vec::new(),
                is_learner: false,
            }
        })
        .collect()
}
