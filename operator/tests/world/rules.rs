//! What must hold of every action.

use quorate_operator::api::{Lifecycle, MemberPhase};
use quorate_operator::model::{Action, Cause, Observed, Plan};

use super::World;

impl World {
    /// Checks a plan against what was seen and, where the look is fresh, against the world.
    pub fn check(&self, seen: &Observed, plan: &Plan, fresh: bool) {
        let Some(action) = &plan.action else {
            return self.check_rest(plan);
        };
        assert!(plan.operation.is_some(), "an action without an operation");
        assert!(plan.look_again.as_secs() <= 2);
        if seen.cluster.deleting {
            let goes = matches!(action, Action::DropMember { .. } | Action::Release);
            assert!(goes, "{action:?} while deleting");
            return;
        }
        assert!(
            seen.cluster.lifecycle != Lifecycle::Paused,
            "{action:?} while paused"
        );
        if seen.cluster.lifecycle == Lifecycle::Hibernated && !self.memory() {
            assert!(
                matches!(action, Action::DeletePod { .. }),
                "{action:?} in hibernation"
            );
            return;
        }
        self.check_birth(seen, action);
        self.check_end(seen, action, fresh);
        if fresh {
            self.check_quorum(seen, action);
        }
    }

    fn check_rest(&self, plan: &Plan) {
        if let Some(stalled) = &plan.stalled {
            assert!(!stalled.message.is_empty() && !stalled.reason.is_empty());
        }
        if plan.blocked_by.is_some() {
            assert!(plan.operation.is_some(), "blocked, but nothing goes on");
        }
    }

    fn check_birth(&self, seen: &Observed, action: &Action) {
        match action {
            Action::CreateSeed { name } => {
                assert!(seen.cluster.cluster_id.is_none() && seen.members.is_empty());
                assert!(!self.names.contains(name));
            }
            Action::CreateJoiner { name } => {
                assert!(seen.cluster.cluster_id.is_some());
                assert!(!self.names.contains(name));
                let pending = seen
                    .members
                    .values()
                    .filter(|v| v.phase == MemberPhase::Pending);
                assert_eq!(pending.count(), 0, "two births at once");
            }
            Action::AdmitJoiner { name } => {
                let listed = seen.listed.as_ref().expect("no call without a quorum");
                let mut others = listed
                    .members
                    .iter()
                    .filter(|m| m.learner && m.name != *name);
                assert!(others.next().is_none(), "a second learner");
                assert!(self.memory() || seen.members[name].claim.is_some());
            }
            Action::CreatePod { name } => {
                let member = &seen.members[name];
                assert!(member.phase != MemberPhase::Pending && member.initial_cluster.is_some());
                assert!(!seen.cluster.blocks_pods);
                let claim = member.claim.as_ref();
                let same = claim.is_some_and(|c| Some(&c.uid) == member.claim_uid.as_ref());
                assert!(self.memory() || same, "a Pod on a foreign claim");
            }
            _ => {}
        }
    }

    fn check_end(&self, seen: &Observed, action: &Action, fresh: bool) {
        let listed = seen.listed.as_ref();
        match action {
            Action::DropMember { name, .. } => {
                let begun = self.raft.cluster_id.is_some() && seen.cluster.cluster_id.is_some();
                let member = self.member(name);
                assert!(
                    !begun || member.is_none(),
                    "{name} is dropped, but is a member"
                );
                assert_eq!(seen.members[name].phase, MemberPhase::Leaving);
            }
            Action::RemoveMember { id, name } => {
                let listed = listed.expect("no call without a quorum");
                assert!(
                    listed
                        .members
                        .iter()
                        .any(|m| m.id == *id && m.name == *name)
                );
                let object = seen.members.get(name);
                let leaves = object.is_none_or(|o| o.phase == MemberPhase::Leaving);
                assert!(leaves, "{name} is removed, but stays");
                if fresh {
                    assert!(self.raft.leader != Some(*id), "the leader is removed");
                }
            }
            Action::Promote { .. } | Action::MoveLeader { .. } => assert!(listed.is_some()),
            Action::Retire {
                replacement: true, ..
            } if fresh => {
                let most = self.wanted.most_replacements;
                let surge = seen.members.len() > seen.cluster.replicas;
                assert!(
                    surge || self.wanted.replacements.len() < most,
                    "too many replacements"
                );
            }
            Action::DeletePod { name, uid, .. } => {
                assert_eq!(seen.members[name].pod.as_ref().map(|p| &p.uid), Some(uid));
            }
            _ => {}
        }
    }

    /// Whether a majority stays; and one disruption at a time.
    fn check_quorum(&self, seen: &Observed, action: &Action) {
        let voters: Vec<_> = self.voters().collect();
        let up = |but: &str| {
            let others = voters
                .iter()
                .filter(|v| v.name != but && self.votes(&v.name));
            others.count()
        };
        match action {
            Action::RemoveMember { name, .. } => {
                let votes = voters.iter().any(|voter| voter.name == *name);
                let left = voters.len() - usize::from(votes);
                assert!(left > 0, "the last voter is removed");
                assert!(
                    up(name) > left / 2,
                    "the removal of {name} loses the quorum"
                );
            }
            Action::Promote { name, .. } => {
                assert!(
                    up(name) + 1 > voters.len().div_ceil(2),
                    "{name} costs the quorum"
                );
            }
            Action::DeletePod { name, cause, .. } if self.votes(name) => {
                assert_eq!(*cause, Cause::Outdated, "{name} runs");
                assert!(!self.memory(), "{name} has its data in memory");
                assert!(!seen.members[name].claim.as_ref().unwrap().deleting);
                let down = voters
                    .iter()
                    .filter(|voter| !self.votes(&voter.name))
                    .count();
                assert!(down == 0, "a second disruption");
                let few = voters.len() <= 2;
                assert!(
                    few || up(name) > voters.len() / 2,
                    "the restart loses the quorum"
                );
                let leads = self.member(name).map(|m| m.id) == self.raft.leader;
                assert!(!leads || voters.len() == 1, "the leader is restarted");
            }
            _ => {}
        }
    }
}
