//! openraft's values as messages between members (`proto/internal/peer.proto`), and back. What
//! comes from a peer is checked; what we send cannot fail.

use std::collections::{BTreeMap, BTreeSet};

use openraft::vote::RaftLeaderId;
use quorate_proto::quorate::peer;

use super::types::{Batch, Entry, LogId, Membership, Node, Payload, Vote, log_id, term_of};

/// A peer's message lacks something, or says what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed peer message: {0}")]
pub struct Malformed(pub &'static str);

pub fn log_id_to_wire(id: &LogId) -> peer::LogId {
    peer::LogId {
        term: term_of(id),
        index: id.index(),
        // With one leader a term, the term names the leader.
        leader: 0,
    }
}

pub fn log_id_from_wire(id: &peer::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub fn vote_to_wire(vote: &Vote) -> peer::Vote {
    peer::Vote {
        term: vote.leader_id().term(),
        leader: *vote.leader_id().node_id(),
        committed: vote.is_committed(),
    }
}

pub fn vote_from_wire(vote: &peer::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.leader)
    } else {
        Vote::new(vote.term, vote.leader)
    }
}

pub fn membership_to_wire(membership: &Membership) -> peer::Membership {
    let voters = membership.get_joint_config().iter();
    peer::Membership {
        voters: voters
            .map(|set| peer::VoterSet {
                ids: set.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| peer::Node {
                id: *id,
                address: node.addr.clone(),
                is_learner: node.is_learner,
            })
            .collect(),
    }
}

pub fn membership_from_wire(membership: &peer::Membership) -> Result<Membership, Malformed> {
    let voters: Vec<BTreeSet<u64>> = membership
        .voters
        .iter()
        .map(|set| set.ids.iter().copied().collect())
        .collect();
    let nodes: BTreeMap<u64, Node> = membership
        .nodes
        .iter()
        .map(|node| {
            let addr = node.address.clone();
            let is_learner = node.is_learner;
            (node.id, Node { addr, is_learner })
        })
        .collect();
    Membership::new(voters, nodes).map_err(|_| Malformed("membership with an unknown voter"))
}

pub fn entry_to_wire(entry: &Entry) -> peer::Entry {
    let payload = match &entry.payload {
        Payload::Blank => peer::entry::Payload::Blank(true),
        Payload::Normal(batch) => peer::entry::Payload::Batch(batch.0.clone()),
        Payload::Membership(membership) => {
            peer::entry::Payload::Membership(membership_to_wire(membership))
        }
    };
    peer::Entry {
        log_id: Some(log_id_to_wire(&entry.log_id)),
        payload: Some(payload),
    }
}

pub fn entry_from_wire(entry: peer::Entry) -> Result<Entry, Malformed> {
    let id = entry.log_id.ok_or(Malformed("entry without log id"))?;
    let payload = match entry.payload {
        None => return Err(Malformed("entry without payload")),
        Some(peer::entry::Payload::Blank(_)) => Payload::Blank,
        Some(peer::entry::Payload::Batch(bytes)) => Payload::Normal(Batch(bytes)),
        Some(peer::entry::Payload::Membership(membership)) => {
            Payload::Membership(membership_from_wire(&membership)?)
        }
    };
    Ok(Entry {
        log_id: log_id_from_wire(&id),
        payload,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn entries_come_back_from_the_wire() {
        let learner = Node {
            addr: "c".into(),
            is_learner: true,
        };
        let nodes = BTreeMap::from([(1, Node::new("http://a,http://b")), (2, learner)]);
        let joint = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
        let membership = Membership::new(joint, nodes).expect("valid");
        for payload in [
            Payload::Blank,
            Payload::Normal(Batch(Bytes::from_static(b"batch"))),
            Payload::Membership(membership),
        ] {
            let entry = Entry {
                log_id: log_id(7, 9),
                payload,
            };
            assert_eq!(entry_from_wire(entry_to_wire(&entry)), Ok(entry));
        }
    }

    #[test]
    fn votes_come_back_from_the_wire() {
        for vote in [Vote::new(3, 4), Vote::new_committed(5, u64::MAX)] {
            assert_eq!(vote_from_wire(&vote_to_wire(&vote)), vote);
        }
    }

    #[test]
    fn a_voter_without_a_node_is_refused() {
        let wire = peer::Membership {
            voters: vec![peer::VoterSet { ids: vec![1] }],
            nodes: vec![],
        };
        assert!(membership_from_wire(&wire).is_err());
    }

    #[test]
    fn an_entry_without_its_parts_is_refused() {
        assert!(entry_from_wire(peer::Entry::default()).is_err());
        let without_payload = peer::Entry {
            log_id: Some(peer::LogId::default()),
            payload: None,
        };
        assert!(entry_from_wire(without_payload).is_err());
    }
}
