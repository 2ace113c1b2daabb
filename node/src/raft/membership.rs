//! Changes of raft's membership: who takes part, who votes, and where each listens.
//!
//! A voter that is added enters without a vote and gets it once it has caught up, so that adding
//! one never costs the quorum. Every change is made on top of a membership that the caller has
//! looked at; if another one was faster, nothing is proposed.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Precondition};
use parking_lot::RwLock;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::quorate::peer;

use super::applier::position;
use super::codec::Malformed;
use super::handle::RaftHandle;
use super::transport::PeerAddress;
use super::types::{LogId, Membership, Node, TypeConfig};
use crate::machine::Position;

/// What clients can ask of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    Add {
        id: u64,
        peer_urls: Vec<String>,
        is_learner: bool,
    },
    Update {
        id: u64,
        peer_urls: Vec<String>,
    },
    /// Makes a learner a voter.
    Promote {
        id: u64,
    },
    Remove {
        id: u64,
    },
}

impl MemberChange {
    /// The member that is changed.
    pub fn member(&self) -> u64 {
        match self {
            Self::Add { id, .. }
            | Self::Update { id, .. }
            | Self::Promote { id }
            | Self::Remove { id } => *id,
        }
    }

    pub fn to_wire(&self) -> peer::MemberChangeRequest {
        use peer::member_change_request::Change;
        let member = |id: u64, peer_urls: &[String], is_learner| pb::Member {
            id,
            peer_ur_ls: peer_urls.to_vec(),
            is_learner,
            ..Default::default()
        };
        let change = match self {
            Self::Add {
                id,
                peer_urls,
                is_learner,
            } => Change::Add(member(*id, peer_urls, *is_learner)),
            Self::Update { id, peer_urls } => Change::Update(member(*id, peer_urls, false)),
            Self::Promote { id } => Change::Promote(*id),
            Self::Remove { id } => Change::Remove(*id),
        };
        peer::MemberChangeRequest {
            change: Some(change),
        }
    }

    pub fn from_wire(request: peer::MemberChangeRequest) -> Result<Self, Malformed> {
        use peer::member_change_request::Change;
        match request.change {
            Some(
                Change::Add(pb::Member { peer_ur_ls, .. })
                | Change::Update(pb::Member { peer_ur_ls, .. }),
            ) if peer_ur_ls.is_empty() => Err(Malformed("a member without peer URLs")),
            Some(Change::Add(member)) => Ok(Self::Add {
                id: member.id,
                peer_urls: member.peer_ur_ls,
                is_learner: member.is_learner,
            }),
            Some(Change::Update(member)) => Ok(Self::Update {
                id: member.id,
                peer_urls: member.peer_ur_ls,
            }),
            Some(Change::Promote(id)) => Ok(Self::Promote { id }),
            Some(Change::Remove(id)) => Ok(Self::Remove { id }),
            None => Err(Malformed("a change of members that changes nothing")),
        }
    }
}

/// Raft's membership at one moment.
#[derive(Debug, Clone, Default)]
pub struct Standings {
    at: Option<LogId>,
    /// Between two sets of voters: a change is half done.
    pub is_joint: bool,
    pub voters: BTreeSet<u64>,
    /// Those that have no vote and are to get one.
    pub vote_due: BTreeSet<u64>,
}

impl Standings {
    fn of(at: Option<LogId>, membership: &Membership) -> Self {
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let without = membership
            .nodes()
            .filter(|(id, node)| !node.is_learner && !voters.contains(id));
        Self {
            at,
            is_joint: membership.get_joint_config().len() > 1,
            vote_due: without.map(|(id, _)| *id).collect(),
            voters,
        }
    }

    /// Where in the log this membership lies.
    pub fn position(&self) -> Position {
        position(self.at)
    }
}

/// Why a change of the membership has no end that is known to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeEnd {
    /// Nothing was proposed: another member leads.
    NotLeader,
    /// Nothing was proposed: the membership is another one by now, or not yet committed.
    Busy,
    /// Nothing was proposed: nobody would have a vote afterwards.
    LastVoter,
    /// It was proposed by a leader that lost its office: it may still come to pass.
    Unknown,
    Stopped,
}

fn change_end(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeEnd {
    match error {
        RaftError::Fatal(_) => ChangeEnd::Stopped,
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => ChangeEnd::NotLeader,
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ChangeEnd::Unknown,
        RaftError::APIError(ClientWriteError::PreconditionFailed(_)) => ChangeEnd::Busy,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::EmptyMembership(_) => ChangeEnd::LastVoter,
            ChangeMembershipError::InProgress(_)
            | ChangeMembershipError::LearnerNotFound(_)
            | ChangeMembershipError::UnsupportedMembershipTransition(_)
            | ChangeMembershipError::UncommittedLeaderLog(_)
            | ChangeMembershipError::NodeMetadataChanged(_) => ChangeEnd::Busy,
        },
    }
}

type Change = ChangeMembers<u64, Node>;

/// What openraft has to do for `change`; the member is known, save when it is added.
fn openraft_change(change: &MemberChange, seen: &Standings, node: Option<&Node>) -> Change {
    match change {
        MemberChange::Add {
            id,
            peer_urls,
            is_learner,
        } => {
            let node = Node {
                addr: peer_urls.join(","),
                is_learner: *is_learner,
            };
            Change::AddNodes(BTreeMap::from([(*id, node)]))
        }
        MemberChange::Update { id, peer_urls } => {
            let node = Node {
                addr: peer_urls.join(","),
                is_learner: node.is_some_and(|node| node.is_learner),
            };
            Change::SetNodes(BTreeMap::from([(*id, node)]))
        }
        MemberChange::Promote { id } => {
            let node = Node {
                is_learner: false,
                ..node.cloned().unwrap_or_default()
            };
            Change::Batch(vec![
                Change::SetNodes(BTreeMap::from([(*id, node)])),
                Change::AddVoterIds(BTreeSet::from([*id])),
            ])
        }
        MemberChange::Remove { id } if seen.voters.contains(id) => {
            Change::RemoveVoters(BTreeSet::from([*id]))
        }
        MemberChange::Remove { id } => Change::RemoveNodes(BTreeSet::from([*id])),
    }
}

impl RaftHandle {
    /// The membership that raft goes by now; on a leader it may be on its way to the others.
    pub fn standings(&self) -> Standings {
        let metrics = self.metrics.borrow_watched();
        let stored = &metrics.membership_config;
        Standings::of(*stored.log_id(), stored.membership())
    }

    /// Makes one change on top of the membership that was `seen`, and returns where it lies in
    /// the log once this member has applied it. When this is dropped, the change may go on.
    pub async fn change_members(
        &self,
        change: &MemberChange,
        seen: &Standings,
    ) -> Result<Position, ChangeEnd> {
        let node = {
            let metrics = self.metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            membership.get_node(&change.member()).cloned()
        };
        let change = openraft_change(change, seen, node.as_ref());
        self.change_if(change, seen).await
    }

    /// Gives a vote to a member that has caught up.
    pub async fn give_vote(&self, id: u64, seen: &Standings) -> Result<Position, ChangeEnd> {
        let change = Change::AddVoterIds(BTreeSet::from([id]));
        self.change_if(change, seen).await
    }

    /// Ends a change that another leader, or a caller who went away, left half done.
    pub async fn settle(&self, seen: &Standings) -> Result<Position, ChangeEnd> {
        self.change_if(Change::AddVoterIds(BTreeSet::new()), seen)
            .await
    }

    async fn change_if(&self, change: Change, seen: &Standings) -> Result<Position, ChangeEnd> {
        let unchanged = Precondition::LastMembershipLogId {
            last_membership_log_id: seen.at,
        };
        // Whoever loses its vote by a change is gone: no learner is made of it.
        let changed = self.raft.change_membership_if(change, false, [unchanged]);
        // Boxed, for it is large and its type deep.
        match changed.boxed().await {
            Ok(done) => Ok(position(Some(*done.log_id()))),
            Err(error) => Err(change_end(error)),
        }
    }
}

/// Where each member listens for its peers, by the applied membership. openraft keeps the address
/// with which it began to talk to a peer; a member may move meanwhile.
#[derive(Debug, Default)]
pub struct Addresses {
    /// A lock for the length of a lookup, taken when a call to a peer begins.
    urls: RwLock<BTreeMap<u64, String>>,
}

impl Addresses {
    /// Takes over an applied membership.
    pub fn update(&self, membership: &Membership) {
        let nodes = membership.nodes();
        *self.urls.write() = nodes.map(|(id, node)| (*id, node.addr.clone())).collect();
    }

    /// A peer where it is now, which may not be where it was.
    pub fn locate(&self, peer: &PeerAddress) -> PeerAddress {
        let urls = self.urls.read().get(&peer.id).cloned();
        PeerAddress {
            id: peer.id,
            urls: urls.unwrap_or_else(|| peer.urls.clone()),
        }
    }
}

/// Whether a member that took part so far does so no longer.
pub fn is_removed_by(id: u64, before: &Membership, now: &Membership) -> bool {
    before.get_node(&id).is_some() && now.get_node(&id).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(voters: &[&[u64]], learners: &[u64], due: &[u64]) -> Membership {
        let mut nodes = BTreeMap::new();
        for id in voters.iter().flat_map(|set| set.iter()).chain(due) {
            nodes.insert(*id, Node::new(format!("http://{id}")));
        }
        for id in learners {
            let node = Node {
                is_learner: true,
                ..Node::new(format!("http://{id}"))
            };
            nodes.insert(*id, node);
        }
        let voters = voters.iter().map(|set| set.iter().copied().collect());
        Membership::new(voters.collect::<Vec<BTreeSet<u64>>>(), nodes).unwrap()
    }

    #[test]
    fn who_waits_for_a_vote_is_no_learner() {
        let standings = Standings::of(None, &membership(&[&[1, 2]], &[3], &[4]));
        assert_eq!(standings.voters, BTreeSet::from([1, 2]));
        assert_eq!(standings.vote_due, BTreeSet::from([4]));
        assert!(!standings.is_joint);
        assert!(Standings::of(None, &membership(&[&[1], &[1, 2]], &[], &[])).is_joint);
    }

    #[test]
    fn changes_come_back_from_the_wire() {
        let peer_urls = vec!["http://a:1".to_owned()];
        for change in [
            MemberChange::Add {
                id: 1,
                peer_urls: peer_urls.clone(),
                is_learner: true,
            },
            MemberChange::Update { id: 2, peer_urls },
            MemberChange::Promote { id: 3 },
            MemberChange::Remove { id: u64::MAX },
        ] {
            assert_eq!(MemberChange::from_wire(change.to_wire()), Ok(change));
        }
        let empty = MemberChange::Update {
            id: 1,
            peer_urls: vec![],
        };
        assert!(MemberChange::from_wire(empty.to_wire()).is_err());
        assert!(MemberChange::from_wire(peer::MemberChangeRequest::default()).is_err());
    }

    #[test]
    fn an_update_keeps_the_role_and_a_removal_fits_it() {
        let now = membership(&[&[1, 2]], &[3], &[]);
        let seen = Standings::of(None, &now);
        let update = MemberChange::Update {
            id: 3,
            peer_urls: vec!["http://new".into()],
        };
        let Change::SetNodes(nodes) = openraft_change(&update, &seen, now.get_node(&3)) else {
            panic!("an update sets a node");
        };
        assert!(nodes[&3].is_learner && nodes[&3].addr == "http://new");
        let remove = |id| openraft_change(&MemberChange::Remove { id }, &seen, None);
        assert_eq!(remove(1), Change::RemoveVoters(BTreeSet::from([1])));
        assert_eq!(remove(3), Change::RemoveNodes(BTreeSet::from([3])));
    }

    #[test]
    fn only_a_former_member_is_removed() {
        let (before, now) = (
            membership(&[&[1, 2]], &[], &[]),
            membership(&[&[1]], &[], &[]),
        );
        assert!(is_removed_by(2, &before, &now));
        assert!(!is_removed_by(1, &before, &now));
        assert!(!is_removed_by(3, &before, &now));
    }
}
