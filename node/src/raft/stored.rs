//! What raft keeps inside the state store: the applied position and the membership, in the form
//! in which they travel between members.

use prost::Message;
use quorate_proto::quorate::peer;

use super::codec;
use super::types::{LogId, Membership, StoredMembership, log_id};
use crate::model::member::Member;
use crate::storage::{Db, Error};

/// The membership with its log id, as bytes.
pub fn encode_membership(stored: &StoredMembership) -> Vec<u8> {
    let head = peer::SnapshotHead {
        membership_log_id: stored.log_id().as_ref().map(codec::log_id_to_wire),
        membership: Some(codec::membership_to_wire(stored.membership())),
        ..Default::default()
    };
    head.encode_to_vec()
}

/// The other way; for the head of a snapshot too.
pub fn membership_from_head(head: &peer::SnapshotHead) -> Result<StoredMembership, String> {
    let membership = head.membership.as_ref().ok_or("membership is missing")?;
    let membership = codec::membership_from_wire(membership).map_err(|error| error.to_string())?;
    let at = head.membership_log_id.as_ref().map(codec::log_id_from_wire);
    Ok(StoredMembership::new(at, membership))
}

/// What the state store says of itself: nothing is applied before the first membership.
pub fn load(db: &Db) -> Result<(Option<LogId>, StoredMembership), Error> {
    let Some(bytes) = db.membership()? else {
        return Ok((None, StoredMembership::default()));
    };
    let damaged = |what: String| Error::Damaged {
        path: db.path().display().to_string(),
        offset: 0,
        what: format!("membership: {what}"),
    };
    let head = peer::SnapshotHead::decode(bytes).map_err(|error| damaged(error.to_string()))?;
    let membership = membership_from_head(&head).map_err(damaged)?;
    let applied = db.progress().applied;
    Ok((Some(log_id(applied.term, applied.index)), membership))
}

/// The members that a raft membership names, with their peer URLs. A node that waits for its vote
/// is no learner to clients.
pub fn members_of(membership: &Membership) -> Vec<Member> {
    let members = membership.nodes().map(|(id, node)| Member {
        id: *id,
        name: String::new(),
        peer_urls: node.addr.split(',').map(str::to_owned).collect(),
        client_urls: Vec::new(),
        is_learner: node.is_learner,
    });
    members.collect()
}
