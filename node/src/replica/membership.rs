//! Changes of the members: asked for at any member, made by the leader, one at a time.
//!
//! The leader judges a change on the membership it has applied and proposes it on top of just that
//! one, so that no other change can come between.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt;
use quorate_proto::quorate::peer;
use tokio::time::Instant;

use super::Replica;
use super::reconfigure::{Circumstances, quorum};
use crate::machine::Position;
use crate::model::Refusal;
use crate::model::limits::{MEMBERS_WAIT_MS, PROPOSAL_PAUSE_MS, VOTE_LAG_ENTRIES_MAX};
use crate::model::member::Member;
use crate::raft::membership::{ChangeEnd, MemberChange, Standings};
use crate::raft::receive::PeerRefusal;
use crate::raft::transport::PeerError;
use crate::storage::Error;

/// Refusals that a leader sends to the member that asked.
const REFUSALS: [Refusal; 12] = [
    Refusal::MemberNotFound,
    Refusal::MemberExists,
    Refusal::PeerUrlExists,
    Refusal::NotEnoughStartedMembers,
    Refusal::MemberNotLearner,
    Refusal::LearnerNotReady,
    Refusal::TooManyLearners,
    Refusal::Unhealthy,
    Refusal::Timeout,
    Refusal::TimeoutLeaderFailure,
    Refusal::TimeoutConnectionLost,
    Refusal::TimeoutWaitAppliedIndex,
];

/// What came of looking at those who wait for a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Votes {
    /// One got its vote: the membership is another one.
    Given,
    /// One that is there is not ready yet.
    Awaited,
    Nobody,
}

const PAUSE: Duration = Duration::from_millis(PROPOSAL_PAUSE_MS);

fn position_to_wire(position: Position) -> peer::LogId {
    peer::LogId {
        term: position.term,
        index: position.index,
        leader: 0,
    }
}

impl Replica {
    /// Makes one change of the members, and returns who they are once this member has applied it.
    /// Never repeated by itself when it may have been proposed.
    ///
    /// # Errors
    /// etcd's refusals; [`Refusal::Timeout`] and its like leave the outcome unknown.
    pub async fn change_members(&self, change: MemberChange) -> Result<Vec<Member>, Refusal> {
        let deadline = Instant::now() + self.request_timeout();
        let done = loop {
            match self.change_once(&change, deadline).await {
                Err(Refusal::NotLeader) if Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Refusal::NotLeader) => return Err(Refusal::Timeout),
                done => break done?,
            }
        };
        let removed = match change {
            MemberChange::Remove { id } => Some(id),
            MemberChange::Add { .. }
            | MemberChange::Update { .. }
            | MemberChange::Promote { .. } => None,
        };
        // Nothing more is sent to a member that was removed, so that it may never apply this.
        if removed != Some(self.member_id()) {
            self.reads.applied(done, deadline).await?;
        }
        let members = self.view().members();
        let mut members = members.map_err(|error| self.unreadable(&error))?;
        members.retain(|member| Some(member.id) != removed);
        Ok(members)
    }

    /// Asks the leader once; [`Refusal::NotLeader`] means that nothing was proposed.
    async fn change_once(
        &self,
        change: &MemberChange,
        deadline: Instant,
    ) -> Result<Position, Refusal> {
        let leader = self.raft.leadership().leader;
        if leader == self.member_id() {
            return self.change_here(change, deadline).await;
        }
        let peer = self.raft.peer(leader).ok_or(Refusal::NotLeader)?;
        let call = self.raft.transport().member_change(&peer, change.to_wire());
        let answer = match tokio::time::timeout_at(deadline, call).await {
            Err(_) => return Err(Refusal::Timeout),
            Ok(Err(PeerError::Refused { .. })) => return Err(Refusal::NotLeader),
            Ok(Err(PeerError::Unreachable { .. } | PeerError::Timeout { .. })) => {
                return Err(Refusal::TimeoutConnectionLost);
            }
            Ok(Ok(answer)) => answer,
        };
        match answer.log_id {
            Some(at) => Ok(Position {
                term: at.term,
                index: at.index,
            }),
            None => {
                let known = REFUSALS.into_iter();
                let mut same = known.filter(|known| known.to_string() == answer.refusal);
                Err(same.next().unwrap_or(Refusal::Timeout))
            }
        }
    }

    /// What another member asks of this leader.
    pub async fn receive_member_change(
        &self,
        request: peer::MemberChangeRequest,
    ) -> Result<peer::MemberChangeResponse, PeerRefusal> {
        let change = MemberChange::from_wire(request)?;
        let deadline = Instant::now() + self.request_timeout();
        match self.change_here(&change, deadline).await {
            Ok(at) => Ok(peer::MemberChangeResponse {
                log_id: Some(position_to_wire(at)),
                refusal: String::new(),
            }),
            Err(Refusal::NotLeader) => Err(PeerRefusal::NotLeader),
            Err(Refusal::Stopped) => Err(PeerRefusal::Stopped),
            Err(refusal) => Ok(peer::MemberChangeResponse {
                log_id: None,
                refusal: refusal.to_string(),
            }),
        }
    }

    /// Makes a change as the leader.
    async fn change_here(
        &self,
        change: &MemberChange,
        deadline: Instant,
    ) -> Result<Position, Refusal> {
        let alone = tokio::time::timeout_at(deadline, self.changing.lock()).await;
        let _alone = alone.map_err(|_| Refusal::Timeout)?;
        let made = async {
            loop {
                // Boxed, for its type is deep.
                let end = self.try_change(change, deadline).boxed().await;
                match end {
                    Err(Some(refusal)) => return Err(refusal),
                    Err(None) => tokio::time::sleep(PAUSE).await,
                    Ok(position) => return Ok(position),
                }
            }
        };
        let made = tokio::time::timeout_at(deadline, made).await;
        let made = made.unwrap_or(Err(Refusal::Timeout));
        if matches!(change, MemberChange::Promote { .. }) && made != Err(Refusal::NotLeader) {
            self.promotions.count(&made);
        }
        made
    }

    /// One attempt; none as the reason means that another attempt may succeed.
    async fn try_change(
        &self,
        change: &MemberChange,
        deadline: Instant,
    ) -> Result<Position, Option<Refusal>> {
        // Whoever looks at the members must have seen every change before.
        match self.reads.barrier().await {
            Ok(()) => {}
            Err(Refusal::LeaderChanged) => return Err(Some(Refusal::NotLeader)),
            Err(refusal) => return Err(Some(refusal)),
        }
        if self.raft.leadership().leader != self.member_id() {
            return Err(Some(Refusal::NotLeader));
        }
        let seen = self.raft.standings();
        self.reads.applied(seen.position(), deadline).await?;
        if seen.is_joint {
            // What another leader began.
            return Err(self.change_refused(self.raft.settle(&seen).await.err()));
        }
        self.judge(change)?;
        if let MemberChange::Remove { id } = change
            && seen.voters.contains(id)
        {
            // etcd counts members as voters that here wait for their vote: they come first, so
            // that what is left bears as many losses as there.
            let works = self.works_without(*id, &seen);
            match self.give_votes(&seen).await {
                Votes::Given => return Err(None),
                Votes::Awaited if !works => return Err(None),
                Votes::Nobody if !works && self.config.reconfiguration.is_strict => {
                    return Err(Some(Refusal::Unhealthy));
                }
                Votes::Awaited | Votes::Nobody => {}
            }
        }
        let made = self.raft.change_members(change, &seen).await;
        let position = made.map_err(|end| self.change_refused(Some(end)))?;
        tracing::info!(?change, "applied a configuration change through raft");
        Ok(position)
    }

    fn change_refused(&self, end: Option<ChangeEnd>) -> Option<Refusal> {
        match end? {
            ChangeEnd::NotLeader => Some(Refusal::NotLeader),
            ChangeEnd::Busy => None,
            ChangeEnd::LastVoter => Some(Refusal::NotEnoughStartedMembers),
            ChangeEnd::Unknown => Some(Refusal::TimeoutLeaderFailure),
            ChangeEnd::Stopped => Some(Refusal::Stopped),
        }
    }

    /// Whether etcd would make this change as things stand.
    fn judge(&self, change: &MemberChange) -> Result<(), Refusal> {
        let view = self.view();
        let id = change.member();
        let read = || Ok::<_, Error>((view.members()?, view.is_removed(id)?));
        let (members, is_removed) = read().map_err(|error| self.unreadable(&error))?;
        let connected = self.connected(members.iter().map(|member| member.id));
        let last_log_index = self.raft.standing().last_log_index;
        let matched = if id == self.member_id() {
            Some(last_log_index)
        } else {
            self.raft.progress(id).map(|progress| progress.matched)
        };
        let circumstances = Circumstances {
            leader: self.member_id(),
            members: &members,
            is_removed,
            connected: &connected,
            matched,
            last_log_index,
        };
        let judged = circumstances.check(change, self.config.reconfiguration);
        if let Err(refusal) = &judged {
            tracing::warn!(?change, %refusal, "rejecting a change of members");
        }
        judged
    }

    /// Which of `members` this leader hears, itself among them.
    fn connected(&self, members: impl Iterator<Item = u64>) -> BTreeSet<u64> {
        members
            .filter(|id| *id == self.member_id() || self.is_healthy(*id))
            .collect()
    }

    /// Whether those who vote besides `id` are a majority without it.
    fn works_without(&self, id: u64, seen: &Standings) -> bool {
        let left = || seen.voters.iter().copied().filter(|voter| *voter != id);
        let connected = self.connected(left());
        left().next().is_some() && connected.len() >= quorum(left().count())
    }

    /// Gives votes to members that wait for theirs and have caught up, and ends a change that was
    /// left half done; the leader's duty.
    pub async fn give_due_votes(&self) {
        let seen = self.raft.standings();
        if seen.vote_due.is_empty() && !seen.is_joint {
            return;
        }
        let Ok(_alone) = self.changing.try_lock() else {
            return;
        };
        if seen.is_joint {
            let settled = self.raft.settle(&seen).await;
            tracing::info!(?settled, "a change of members was left half done");
        } else {
            self.give_votes(&seen).await;
        }
    }

    /// Asks the others for a sign when none of a leader comes: one of them may know that this
    /// member was removed, and the transport then tells. A learner would not ask by itself.
    pub async fn look_for_others(&self) {
        let limit = self.config.raft.election_timeout;
        let asked = self.raft.peers().into_iter().map(|peer| async move {
            let call = self.raft.transport().read_index(&peer);
            match tokio::time::timeout(limit, call).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "no sign of a leader"),
                Err(_) => tracing::debug!(peer = peer.id, "no sign of a peer"),
            }
        });
        futures::future::join_all(asked).await;
    }

    /// As [`Replica::give_due_votes`], while no other change can be made.
    async fn give_votes(&self, seen: &Standings) -> Votes {
        let members = match self.view().members() {
            Ok(members) => members,
            Err(error) => {
                tracing::error!(%error, "cannot read the members");
                return Votes::Nobody;
            }
        };
        // One that has not published itself may still lose its disk without anybody knowing.
        let started = members.iter().filter(|member| member.is_started());
        let due = started.map(|member| member.id);
        let due = due.filter(|id| seen.vote_due.contains(id) && self.is_healthy(*id));
        let mut votes = Votes::Nobody;
        for id in due {
            votes = Votes::Awaited;
            let last = self.raft.standing().last_log_index;
            let matched = self
                .raft
                .progress(id)
                .map_or(0, |progress| progress.matched);
            if last.saturating_sub(matched) > VOTE_LAG_ENTRIES_MAX {
                continue;
            }
            let member = format!("{id:016x}");
            match self.raft.give_vote(id, seen).await {
                Ok(_) => {
                    tracing::info!(member, "a new member has caught up and votes from now on");
                    votes = Votes::Given;
                }
                Err(end) => tracing::debug!(member, ?end, "a new member does not vote yet"),
            }
            // The others wait for the next look: this membership is no longer the present one.
            break;
        }
        votes
    }

    /// Who the members are, for one that is about to join.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn members_for_joiner(&self, linearizable: bool) -> Result<Vec<Member>, Error> {
        if linearizable {
            let limit = Duration::from_millis(MEMBERS_WAIT_MS);
            // Without a leader, what this member knows has to do, as in etcd.
            match tokio::time::timeout(limit, self.barrier()).await {
                Ok(Ok(())) => {}
                Ok(Err(refusal)) => tracing::debug!(%refusal, "the members may be outdated"),
                Err(_) => tracing::debug!("the members may be outdated"),
            }
        }
        self.view().members()
    }

    fn unreadable(&self, error: &Error) -> Refusal {
        self.fail("members", error);
        Refusal::Stopped
    }
}
