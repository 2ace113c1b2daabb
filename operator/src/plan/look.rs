//! What a look says, as the rungs ask for it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::api::{Birth, MemberPhase, OperationKind};
use crate::model::{AlarmKind, ClusterView, ListedMember, MemberView, Observed, PodView, Voice};

/// How many entries a member may be behind the leader and count as caught up. Members are asked
/// one after another, so that under load even level ones differ by some.
const LAG_MAX: u64 = 1000;

/// How many of `voters` are a majority.
pub(super) fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// A look, and what follows from it.
pub(super) struct Look<'a> {
    seen: &'a Observed,
    leader: Option<u64>,
}

impl<'a> Look<'a> {
    pub(super) fn new(seen: &'a Observed) -> Self {
        // One that was cut off may still take itself for the leader: most voices decide.
        let mut counts = BTreeMap::<u64, usize>::new();
        for voice in seen.voices.values().filter(|voice| voice.leader != 0) {
            *counts.entry(voice.leader).or_default() += 1;
        }
        let own = |id: u64| {
            seen.voices
                .values()
                .any(|voice| voice.id == id && voice.leader == id)
        };
        let most = counts
            .into_iter()
            .max_by_key(|(id, count)| (*count, own(*id)));
        Self {
            seen,
            leader: most.map(|(id, _)| id),
        }
    }

    pub(super) fn seen(&self) -> &'a Observed {
        self.seen
    }

    pub(super) fn cluster(&self) -> &'a ClusterView {
        &self.seen.cluster
    }

    /// Whether data lie in memory and go with the Pod.
    pub(super) fn memory(&self) -> bool {
        self.cluster().storage.bytes == 0
    }

    /// Whether `since` is at least so many seconds ago.
    pub(super) fn older(&self, since: Timestamp, seconds: i64) -> bool {
        self.seen.now.duration_since(since) >= SignedDuration::from_secs(seconds)
    }

    /// What the status says is being done.
    pub(super) fn going_on(&self) -> Option<OperationKind> {
        self.cluster().operation.map(|(kind, _)| kind)
    }

    pub(super) fn member(&self, name: &str) -> Option<&'a MemberView> {
        self.seen.members.get(name)
    }

    pub(super) fn pod(&self, name: &str) -> Option<&'a PodView> {
        self.member(name)?.pod.as_ref()
    }

    /// Members that are not leaving: those that count.
    pub(super) fn staying(&self) -> impl Iterator<Item = (&'a str, &'a MemberView)> {
        let all = self.seen.members.iter();
        all.filter(|(_, view)| view.phase != MemberPhase::Leaving)
            .map(|(name, view)| (name.as_str(), view))
    }

    pub(super) fn population(&self) -> usize {
        self.staying().count()
    }

    /// Members as the cluster lists them; empty when no quorum answered.
    pub(super) fn listed(&self) -> &'a [ListedMember] {
        self.seen.listed.as_ref().map_or(&[], |l| &l.members)
    }

    pub(super) fn has_list(&self) -> bool {
        self.seen.listed.is_some()
    }

    /// The member's entry in the list: by its name, or by its latched ID.
    pub(super) fn listing(&self, name: &str) -> Option<&'a ListedMember> {
        let id = self.member(name).and_then(|view| view.id);
        let mut all = self.listed().iter();
        all.find(|listed| listed.name == name || Some(listed.id) == id)
    }

    /// Members of the list that no object of ours stands for.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &'a ListedMember> {
        let members = &self.seen.members;
        self.listed().iter().filter(move |listed| {
            let by_id = members.values().any(|view| view.id == Some(listed.id));
            !members.contains_key(&listed.name) && !by_id
        })
    }

    pub(super) fn voters(&self) -> impl Iterator<Item = &'a ListedMember> {
        self.listed().iter().filter(|listed| !listed.learner)
    }

    pub(super) fn is_voter(&self, name: &str) -> bool {
        self.listing(name).is_some_and(|listed| !listed.learner)
    }

    pub(super) fn learners(&self) -> impl Iterator<Item = &'a ListedMember> {
        self.listed().iter().filter(|listed| listed.learner)
    }

    /// Members on their way to be voters: announced, or learners.
    pub(super) fn joiners(&self) -> impl Iterator<Item = (&'a str, &'a MemberView)> {
        self.staying().filter(|(name, view)| {
            view.phase == MemberPhase::Pending
                || self.listing(name).is_some_and(|listed| listed.learner)
        })
    }

    pub(super) fn voice(&self, name: &str) -> Option<&'a Voice> {
        let voice = self.seen.voices.get(name)?;
        let id = self.member(name).and_then(|view| view.id);
        let known = id.or_else(|| self.listing(name).map(|listed| listed.id));
        known.is_none_or(|id| id == voice.id).then_some(voice)
    }

    /// Whether a member answers and knows a leader.
    pub(super) fn answers(&self, name: &str) -> bool {
        self.voice(name).is_some_and(|voice| voice.leader != 0)
    }

    pub(super) fn corrupt(&self, name: &str) -> bool {
        let id = self.listing(name).map(|listed| listed.id);
        let id = id.or_else(|| self.member(name).and_then(|view| view.id));
        let mut alarms = self.seen.alarms.iter();
        alarms.any(|(member, kind)| *kind == AlarmKind::Corrupt && Some(*member) == id)
    }

    /// Whether a member may be relied on: it answers, knows a leader, has no damage; a voter's
    /// Pod is ready, too.
    pub(super) fn healthy(&self, name: &str) -> bool {
        let pod = self.pod(name);
        let ready = pod.is_some_and(|pod| pod.ready_since.is_some() && !pod.deleting);
        let ready = ready || (pod.is_some() && !self.is_voter(name));
        ready && self.answers(name) && !self.corrupt(name)
    }

    fn healthy_voters_but(&self, id: u64) -> usize {
        let others = self.voters().filter(|voter| voter.id != id);
        others.filter(|voter| self.healthy(&voter.name)).count()
    }

    pub(super) fn healthy_voters(&self) -> usize {
        self.healthy_voters_but(0)
    }

    /// Whether most voters are healthy: no call that changes membership is made otherwise.
    pub(super) fn quorate(&self) -> bool {
        self.has_list() && self.healthy_voters() >= majority(self.voters().count())
    }

    /// Whether a majority stays when this member is away for a while.
    pub(super) fn may_be_away(&self, id: u64) -> bool {
        self.healthy_voters_but(id) >= majority(self.voters().count())
    }

    /// Whether this member can be removed now: today's majority can agree to it, and a majority
    /// of those that are left is healthy. A learner's vote is not missed.
    pub(super) fn may_be_removed(&self, id: u64) -> bool {
        let voters = self.voters().count();
        if !self.voters().any(|voter| voter.id == id) {
            return self.has_list();
        }
        self.quorate() && voters > 1 && self.healthy_voters_but(id) >= majority(voters - 1)
    }

    pub(super) fn leader_name(&self) -> Option<&'a str> {
        let of = |id: u64| {
            self.seen
                .voices
                .iter()
                .find(move |(_, voice)| voice.id == id)
        };
        of(self.leader?).map(|(name, _)| name.as_str())
    }

    pub(super) fn leads(&self, id: u64) -> bool {
        self.leader == Some(id)
    }

    /// Whether a member has applied what the leader has, but for what is on its way.
    pub(super) fn caught_up(&self, name: &str) -> bool {
        let leader = self.leader_name().and_then(|name| self.voice(name));
        let (Some(leader), Some(voice)) = (leader, self.voice(name)) else {
            return false;
        };
        voice.applied_index.saturating_add(LAG_MAX) >= leader.raft_index
    }

    /// Whether a Pod is not as it is wanted.
    pub(super) fn outdated(&self, pod: &PodView) -> bool {
        pod.revision != self.cluster().revision
    }

    /// The healthy voter that is to lead in place of another: the furthest, of those with current
    /// Pods if there are any.
    pub(super) fn heir(&self, but: u64, current_only: bool) -> Option<(&'a str, u64)> {
        let fit = self
            .voters()
            .filter(|voter| voter.id != but)
            .filter(|voter| {
                let stays = self.member(&voter.name);
                let stays = stays.is_some_and(|view| view.phase == MemberPhase::Admitted);
                stays && self.healthy(&voter.name) && self.caught_up(&voter.name)
            });
        let ranked = fit.filter_map(|voter| {
            let pod = self.pod(&voter.name)?;
            let applied = self.voice(&voter.name)?.applied_index;
            let current = !self.outdated(pod);
            (current || !current_only).then_some((current, applied, voter))
        });
        let best = ranked.max_by_key(|(current, applied, _)| (*current, *applied));
        best.map(|(_, _, voter)| (voter.name.as_str(), voter.id))
    }

    /// What members that come up now come up for.
    pub(super) fn growth(&self) -> OperationKind {
        match self.going_on() {
            Some(
                kind @ (OperationKind::Bootstrapping
                | OperationKind::ScalingOut
                | OperationKind::Replacing
                | OperationKind::RollingRestart
                | OperationKind::Upgrading),
            ) if kind_fits(kind, self.memory()) => kind,
            _ if self.cluster().replacements.is_empty() => OperationKind::ScalingOut,
            _ => OperationKind::Replacing,
        }
    }

    /// The kind of a change that goes through all members.
    pub(super) fn roll(&self) -> OperationKind {
        if self.cluster().upgrading {
            OperationKind::Upgrading
        } else {
            OperationKind::RollingRestart
        }
    }

    /// Seeds among the members that stay, the one to keep first.
    pub(super) fn seeds(&self) -> Vec<(&'a str, &'a MemberView)> {
        let seeds = self.staying().filter(|(_, view)| view.birth == Birth::Seed);
        let mut seeds: Vec<_> = seeds.collect();
        seeds.sort_by_key(|(name, view)| {
            let begun = (view.id.is_none(), view.pod.is_none());
            (
                begun,
                view.phase == MemberPhase::Pending,
                view.created,
                *name,
            )
        });
        seeds
    }
}

// Only where Pods cannot be made anew in place do members come and go to be renewed.
fn kind_fits(kind: OperationKind, memory: bool) -> bool {
    let renewal = matches!(
        kind,
        OperationKind::RollingRestart | OperationKind::Upgrading
    );
    memory || !renewal
}
