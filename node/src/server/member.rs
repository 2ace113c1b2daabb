//! Who this member is, and what its replica is told.

use std::sync::Arc;
use std::time::Duration;

use quorate_tls::Dialer;

use super::join::{FirstStart, first_members, form, join};
use crate::config::urls::texts;
use crate::config::{Config, Retention};
use crate::model::member::{Member, cluster_id, member_id};
use crate::raft::bootstrap::RaftOptions;
use crate::raft::identity::{Owner, owner_of};
use crate::raft::import;
use crate::replica::{Reconfiguration, ReplicaConfig};
use crate::tasks::autocompact::AutoCompaction;

/// Who this member is. A data directory that was started before knows, whatever members are named:
/// they may have changed since. A directory of etcd's knows, too.
async fn identity(config: &Config, dialer: &Dialer) -> Result<FirstStart, String> {
    let found = owner_of(&config.data_dir).map_err(|error| error.to_string())?;
    if found.is_none()
        && let Some(source) = import::find(&config.data_dir).map_err(|error| error.to_string())?
    {
        let imported = FirstStart {
            member_id: source.member_id,
            cluster_id: source.cluster_id,
            members: Vec::new(),
        };
        return check_import(config, &imported).map(|()| imported);
    }
    match found {
        Some(owner) => {
            check_owner(config, &owner)?;
            Ok(FirstStart {
                member_id: owner.member,
                cluster_id: owner.cluster,
                members: members_to_form(config, &owner),
            })
        }
        None if config.cluster.initial_is_existing => join(config, dialer).await,
        None => form(config, dialer).await,
    }
}

/// The first members, for a member that went down before it had formed its cluster.
fn members_to_form(config: &Config, owner: &Owner) -> Vec<Member> {
    let members = first_members(config);
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    let same = !config.cluster.initial_is_existing && cluster_id(&ids) == owner.cluster;
    if same { members } else { Vec::new() }
}

/// Refuses a data directory that is certainly not this member's: that of another one in
/// `--initial-cluster`, or of a cluster with another token. etcd trusts what it finds.
fn check_owner(config: &Config, owner: &Owner) -> Result<(), String> {
    let cluster = &config.cluster;
    if !cluster.initial_is_given || cluster.initial_is_existing {
        return Ok(());
    }
    let (path, Owner { member, .. }) = (config.data_dir.display(), owner);
    let belongs = format!(
        "data directory {path} belongs to member {member:016x} of cluster {:016x}",
        owner.cluster
    );
    if owner.has_other_token(&cluster.token) {
        return Err(format!(
            "{belongs}, which was not started with --initial-cluster-token={:?}: \
             give the token of its first start, or another data directory",
            cluster.token
        ));
    }
    let others = cluster
        .initial
        .iter()
        .filter(|(name, _)| **name != config.name);
    for (name, urls) in others {
        if member_id(&texts(urls), &cluster.token) == *member {
            return Err(format!(
                "{belongs}, which --initial-cluster calls {name:?}, but this is member {:?}: \
                 give the data directory of this member",
                config.name
            ));
        }
    }
    Ok(())
}

/// Refuses a directory of etcd's that was restored for another member than the flags name.
fn check_import(config: &Config, imported: &FirstStart) -> Result<(), String> {
    let cluster = &config.cluster;
    if !cluster.initial_is_given || cluster.initial_is_existing {
        return Ok(());
    }
    let ids: Vec<u64> = first_members(config).iter().map(|it| it.id).collect();
    let own = cluster.initial.get(&config.name);
    let own = own.map_or(0, |urls| member_id(&texts(urls), &cluster.token));
    let named = (own, cluster_id(&ids));
    if named == (imported.member_id, imported.cluster_id) {
        return Ok(());
    }
    Err(format!(
        "data directory {} was made for member {:016x} of cluster {:016x}, but --name, \
         --initial-cluster and --initial-cluster-token say member {:016x} of cluster {:016x}: \
         give those of the restore",
        config.data_dir.display(),
        imported.member_id,
        imported.cluster_id,
        named.0,
        named.1,
    ))
}

/// What the replica is told.
///
/// # Errors
/// Why this member cannot start as it was told.
pub async fn replica_config(config: &Config, dialer: &Dialer) -> Result<ReplicaConfig, String> {
    let cluster = &config.cluster;
    let FirstStart {
        member_id,
        cluster_id,
        members,
    } = identity(config, dialer).await?;
    Ok(ReplicaConfig {
        raft: RaftOptions {
            member_id,
            cluster_id,
            data_dir: config.data_dir.clone(),
            members,
            cluster_token: cluster.token.clone(),
            force_new_cluster: cluster.force_new_cluster,
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
        reconfiguration: Reconfiguration {
            is_strict: cluster.strict_reconfig_check,
            learners_max: cluster.max_learners,
        },
    })
}
