//! `--force-new-cluster`: one surviving member goes on alone, after the others are lost for good.
//!
//! Its log gets a last entry that names this member only. Everything before it is kept, also what
//! is not known to be committed: it may have been acknowledged.
//!
//! etcd: server/etcdserver/bootstrap.go (CreateConfigChangeEnts); it drops what is not committed.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::identity::StartError;
use super::log_store::{decode, encode};
use super::types::{Entry, LogId, Membership, Node, Payload, StoredMembership, log_id};
use crate::storage::Error;
use crate::storage::log::Log;

/// Bytes of entries that are looked at together.
const READ_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Makes `member` the only one, unless it is already. A member without a past forms its cluster
/// as if it had not been forced.
///
/// # Errors
/// When the disk fails, or the cluster does not know the member.
pub async fn force(
    log: &Log,
    applied: Option<LogId>,
    stored: &StoredMembership,
    member: u64,
) -> Result<(), StartError> {
    let Some((last, membership)) = newest(log, applied, stored)? else {
        return Ok(());
    };
    let nodes: Vec<u64> = membership.nodes().map(|(id, _)| *id).collect();
    if nodes == [member] && membership.get_joint_config().len() == 1 {
        return Ok(());
    }
    let node = membership.get_node(&member).ok_or_else(|| {
        StartError::Configuration(format!(
            "--force-new-cluster: the cluster of this data directory does not know member \
             {member:016x} (any more)"
        ))
    })?;
    let alone = BTreeMap::from([(member, Node::new(node.addr.clone()))]);
    let membership = Membership::new(vec![BTreeSet::from([member])], alone)
        .map_err(|error| StartError::Raft(error.to_string()))?;
    let others: Vec<String> = nodes
        .iter()
        .filter(|id| **id != member)
        .map(|id| format!("{id:016x}"))
        .collect();
    tracing::warn!(
        member = format!("{member:016x}"),
        removed = others.join(","),
        "forced to be the only member of the cluster"
    );
    append(log, last, membership).await
}

/// The last position and the newest membership, applied or not; none before the first one.
fn newest(
    log: &Log,
    applied: Option<LogId>,
    stored: &StoredMembership,
) -> Result<Option<(LogId, Membership)>, StartError> {
    let mut newest = applied.map(|_| stored.membership().clone());
    let mut left = log.entries();
    while !left.is_empty() {
        let entries = log.read(left.clone(), READ_BYTES_MAX)?;
        left.start += entries.len() as u64;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            let entry = decode(entry).map_err(|error| StartError::Raft(error.to_string()))?;
            let later = applied.is_none_or(|applied| entry.log_id > applied);
            if let Payload::Membership(membership) = entry.payload
                && later
            {
                newest = Some(membership);
            }
        }
    }
    let last = log.last().map(|last| log_id(last.term, last.index));
    Ok(last.max(applied).zip(newest))
}

async fn append(log: &Log, last: LogId, membership: Membership) -> Result<(), StartError> {
    let entry = Entry {
        log_id: log_id(super::types::term_of(&last), last.index() + 1),
        payload: Payload::Membership(membership),
    };
    let (sender, durable) = oneshot::channel();
    let done = move |result: Result<(), Error>| {
        if sender.send(result).is_err() {
            tracing::debug!("nobody waits for the forced membership any more");
        }
    };
    log.append(vec![encode(entry)], Box::new(done))?;
    match durable.await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StartError::Raft("the raft log's writer died".into())),
    }
}
