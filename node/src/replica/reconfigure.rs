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
        let clash = others.any(|other| other.peer_urls.iter().any(|url| peer_urls.contains(url)));
        if clash {
            Err(Refusal::PeerUrlExists)
        } else {
            Ok(())
        }
    }
}

/// How many of `members` are a majority.
pub fn quorum(members: usize) -> usize {
    members / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, is_started: bool, is_learner: bool) -> Member {
        Member {
            id,
            name: if is_started {
                format!("m{id}")
            } else {
                String::new()
            },
            peer_urls: vec![format!("http://{id}:1")],
            client_urls: Vec::new(),
            is_learner,
        }
    }

    fn voters(started: usize, not_started: usize) -> Vec<Member> {
        let all = 1..=(started + not_started) as u64;
        all.map(|id| member(id, id <= started as u64, false))
            .collect()
    }

    /// Judges at member 1, which hears the members up to `connected`.
    fn judge(members: &[Member], connected: u64, change: &MemberChange) -> Result<(), Refusal> {
        let connected = (1..=connected).collect();
        let circumstances = Circumstances {
            leader: 1,
            members,
            is_removed: false,
            connected: &connected,
            matched: Some(90),
            last_log_index: 100,
        };
        circumstances.check(change, Reconfiguration::default())
    }

    fn add(is_learner: bool) -> MemberChange {
        MemberChange::Add {
            id: 99,
            peer_urls: vec!["http://99:1".into()],
            is_learner,
        }
    }

    /// etcd: server/etcdserver/api/membership/cluster_test.go, TestIsReadyToAddVotingMember.
    #[test]
    fn a_voter_is_added_when_enough_members_have_started() {
        for (started, not_started, expected) in [
            (1, 0, Ok(())),
            (2, 0, Ok(())),
            (3, 0, Ok(())),
            (2, 1, Err(Refusal::NotEnoughStartedMembers)),
            (3, 1, Ok(())),
            (1, 1, Err(Refusal::NotEnoughStartedMembers)),
            (0, 1, Err(Refusal::NotEnoughStartedMembers)),
        ] {
            let members = voters(started, not_started);
            let judged = judge(&members, 9, &add(false));
            assert_eq!(judged, expected, "{started} of {}", members.len());
        }
    }

    #[test]
    fn a_member_is_added_when_a_quorum_with_it_is_heard() {
        for (members, connected, expected) in [
            (1, 1, Ok(())),
            (2, 2, Ok(())),
            (2, 1, Err(Refusal::Unhealthy)),
            (3, 3, Ok(())),
            (3, 2, Err(Refusal::Unhealthy)),
            (4, 3, Ok(())),
        ] {
            let judged = judge(&voters(members, 0), connected, &add(true));
            assert_eq!(judged, expected, "{connected} of {members}");
        }
    }

    #[test]
    fn a_removal_leaves_a_quorum_that_is_heard() {
        let remove = |id| MemberChange::Remove { id };
        for (members, connected, id, expected) in [
            (1, 1, 1, Err(Refusal::NotEnoughStartedMembers)),
            (2, 2, 2, Ok(())),
            (2, 1, 2, Ok(())),
            (3, 3, 1, Ok(())),
            (3, 2, 3, Ok(())),
            (3, 2, 2, Err(Refusal::Unhealthy)),
            (3, 2, 1, Err(Refusal::Unhealthy)),
            (5, 4, 2, Ok(())),
            (5, 3, 2, Err(Refusal::Unhealthy)),
            (3, 3, 7, Err(Refusal::MemberNotFound)),
        ] {
            let judged = judge(&voters(members, 0), connected, &remove(id));
            assert_eq!(judged, expected, "{id}, {connected} of {members}");
        }
        let unstarted = voters(1, 1);
        let refused = Err(Refusal::NotEnoughStartedMembers);
        assert_eq!(judge(&unstarted, 1, &remove(1)), refused);
        assert_eq!(judge(&unstarted, 1, &remove(2)), Ok(()));
    }

    #[test]
    fn a_learner_is_promoted_in_sync_only() {
        let members = [member(1, true, false), member(2, false, true)];
        let connected = BTreeSet::from([1, 2]);
        let promote = |id, matched| {
            let circumstances = Circumstances {
                leader: 1,
                members: &members,
                is_removed: false,
                connected: &connected,
                matched,
                last_log_index: 100,
            };
            circumstances.check(&MemberChange::Promote { id }, Reconfiguration::default())
        };
        assert_eq!(promote(2, Some(90)), Ok(()));
        assert_eq!(promote(2, Some(89)), Err(Refusal::LearnerNotReady));
        assert_eq!(promote(2, None), Err(Refusal::MemberNotFound));
        assert_eq!(promote(1, Some(100)), Err(Refusal::MemberNotLearner));
    }

    #[test]
    fn ids_and_urls_are_used_once() {
        let mut members = voters(3, 0);
        members.push(member(4, false, true));
        assert_eq!(
            judge(&members, 3, &add(true)),
            Err(Refusal::TooManyLearners)
        );
        let at = |id, url: &str| MemberChange::Add {
            id,
            peer_urls: vec![url.to_owned()],
            is_learner: false,
        };
        let judged = judge(&members, 3, &at(4, "http://9:1"));
        assert_eq!(judged, Err(Refusal::MemberExists));
        let judged = judge(&members, 3, &at(9, "http://2:1"));
        assert_eq!(judged, Err(Refusal::PeerUrlExists));
        let update = |id, url: &str| MemberChange::Update {
            id,
            peer_urls: vec![url.to_owned()],
        };
        assert_eq!(judge(&members, 3, &update(2, "http://2:1")), Ok(()));
        let judged = judge(&members, 3, &update(2, "http://3:1"));
        assert_eq!(judged, Err(Refusal::PeerUrlExists));
        let judged = judge(&members, 3, &update(9, "http://9:1"));
        assert_eq!(judged, Err(Refusal::MemberNotFound));
    }

    #[test]
    fn a_removed_member_stays_removed() {
        let (members, connected) = (voters(1, 0), BTreeSet::from([1]));
        let circumstances = Circumstances {
            leader: 1,
            members: &members,
            is_removed: true,
            connected: &connected,
            matched: None,
            last_log_index: 100,
        };
        let judged = circumstances.check(&add(false), Reconfiguration::default());
        assert_eq!(judged, Err(Refusal::MemberNotFound));
    }
}
