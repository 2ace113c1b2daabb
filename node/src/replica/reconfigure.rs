//! Which changes of the members are refused, and why: etcd's rules, on plain values.
//!
//! etcd: server/etcdserver/server.go (mayAddMember, mayRemoveMember, mayPromoteMember),
//! server/etcdserver/api/membership/cluster.go (IsReadyTo…, ValidateConfigurationChange).

use std::collections::BTreeSet;

use crate::model::Refusal;
use crate::model::member::Member;
use crate::raft::membership::MemberChange;

/// What an operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconfiguration {
    /// Refuses what could cost the quorum; `--strict-reconfig-check`.
    pub is_strict: bool,
    /// Learners at the same time; `--max-learners`.
    pub learners_max: usize,
}

impl Default for Reconfiguration {
    fn default() -> Self {
        Self {
            is_strict: true,
            learners_max: 1,
        }
    }
}

/// A learner whose log is so many percent of the leader's, or more, is in sync with it.
const LEARNER_READY_PERCENT: u128 = 90;

/// How things stand when a change is asked for, as the leader knows it.
#[derive(Debug, Clone)]
pub struct Circumstances<'a> {
    pub leader: u64,
    /// The members that clients see.
    pub members: &'a [Member],
    /// The member to be changed was removed before.
    pub is_removed: bool,
    /// Whom the leader hears, itself among them.
    pub connected: &'a BTreeSet<u64>,
    /// How far the log of the member to be changed goes; none when the leader does not know it.
    pub matched: Option<u64>,
    pub last_log_index: u64,
}

impl Circumstances<'_> {
    fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn voting(&self) -> impl Iterator<Item = &Member> + Clone {
        self.members.iter().filter(|member| !member.is_learner)
    }

    fn connected_voting(&self) -> usize {
        self.voting()
            .filter(|member| self.connected.contains(&member.id))
            .count()
    }

    fn started(&self, without: Option<u64>) -> (usize, usize) {
        let left = self.voting().filter(|member| Some(member.id) != without);
        let started = left.clone().filter(|member| member.is_started());
        (started.count(), left.count())
    }

    /// Whether `change` may be made.
    ///
    /// # Errors
    /// Why not, in the order in which etcd looks.
    pub fn check(&self, change: &MemberChange, rules: Reconfiguration) -> Result<(), Refusal> {
        match change {
            MemberChange::Add { is_learner, .. } if rules.is_strict => self.may_add(*is_learner)?,
            MemberChange::Remove { id } if rules.is_strict => self.may_remove(*id)?,
            MemberChange::Promote { .. } => self.may_promote(rules.is_strict)?,
            MemberChange::Add { .. }
            | MemberChange::Remove { .. }
            | MemberChange::Update { .. } => {}
        }
        self.validate(change, rules.learners_max)
    }

    fn may_add(&self, is_learner: bool) -> Result<(), Refusal> {
        let (started, voting) = self.started(None);
        let first = started == 1 && voting == 1;
        if !is_learner && !first && started < quorum(voting + 1) {
            return Err(Refusal::NotEnoughStartedMembers);
        }
        // The new member counts as one that is not there.
        if voting > 1 && self.connected_voting() < quorum(voting + 1) {
            return Err(Refusal::Unhealthy);
        }
        Ok(())
    }

    fn may_remove(&self, id: u64) -> Result<(), Refusal> {
        if self.member(id).is_some_and(|member| member.is_learner) {
            return Ok(());
        }
        let (started, left) = self.started(Some(id));
        if started < quorum(left) {
            return Err(Refusal::NotEnoughStartedMembers);
        }
        // Who is down is not part of the quorum that works.
        if id != self.leader && !self.connected.contains(&id) {
            return Ok(());
        }
        let voting = self.voting().count();
        let left_connected = self.connected_voting().saturating_sub(1);
        if left_connected < 1 + voting.saturating_sub(1) / 2 {
            return Err(Refusal::Unhealthy);
        }
        Ok(())
    }

    fn may_promote(&self, is_strict: bool) -> Result<(), Refusal> {
        let matched = self.matched.ok_or(Refusal::MemberNotFound)?;
        let least = u128::from(self.last_log_index) * LEARNER_READY_PERCENT;
        if u128::from(matched) * 100 < least {
            return Err(Refusal::LearnerNotReady);
        }
        let (started, voting) = self.started(None);
        if is_strict && started + 1 < quorum(voting + 1) {
            return Err(Refusal::NotEnoughStartedMembers);
        }
        Ok(())
    }

    fn validate(&self, change: &MemberChange, learners_max: usize) -> Result<(), Refusal> {
        let member = self.member(change.member());
        if self.is_removed {
            return Err(Refusal::MemberNotFound);
        }
        match change {
            MemberChange::Add {
                id,
                peer_urls,
                is_learner,
            } => {
                if member.is_some() {
                    return Err(Refusal::MemberExists);
                }
                self.check_urls(*id, peer_urls)?;
                let learners = self.members.iter().filter(|member| member.is_learner);
                if *is_learner && learners.count() >= learners_max {
                    return Err(Refusal::TooManyLearners);
                }
                Ok(())
            }
            MemberChange::Promote { .. } => match member {
                None => Err(Refusal::MemberNotFound),
                Some(member) if !member.is_learner => Err(Refusal::MemberNotLearner),
                Some(_) => Ok(()),
            },
            MemberChange::Update { id, peer_urls } => {
                member.ok_or(Refusal::MemberNotFound)?;
                self.check_urls(*id, peer_urls)
            }
            MemberChange::Remove { .. } => member.map(drop).ok_or(Refusal::MemberNotFound),
        }
    }

    /// No other member may listen there.
    fn check_urls(&self, id: u64, peer_urls: &[String]) -> Result<(), Refusal> {
        let mut others = self.members.iter().filter(|member| member.id != id);
        let taken = |url| others.clone().any(|other| other.peer_urls.contains(url));
        if peer_urls.iter().any(taken) && others.next().is_some() {
            return Err(Refusal::PeerUrlExists);
        }
        Ok(())
    }
}

/// How many of `members` are a majority.
pub fn quorum(members: usize) -> usize {
    members / 2 + 1
}
