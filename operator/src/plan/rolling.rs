//! Pods that are not as the spec wants them are made anew, one at a time: followers, then the
//! leader, who hands over first. In memory, where data go with the Pod, members are renewed.

use jiff::Timestamp;

use crate::api::{MemberPhase, OperationKind};
use crate::model::{Action, Cause, ListedMember, MemberView, PodView};

use super::births;
use super::faults;
use super::leaving::{hand_over, needs_quorum};
use super::look::Look;
use super::step::{Notes, Step};

/// How long every Pod must have been ready before the next one goes, in seconds.
const STABLE_SECONDS: i64 = 10;

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    let outdated = outdated(look);
    if outdated.is_empty() {
        return None;
    }
    let kind = look.roll();
    let words = "making Pods anew";
    let refusal = look.cluster().refusals.first();
    if let Some(refusal) = refusal {
        notes.refuse(kind, words, "", refusal);
        return None;
    }
    if let Some(name) = unfit(look) {
        let what = "all members must be healthy before the next Pod goes".to_owned();
        notes.wait(Step::wait(kind, words, name, what));
        return None;
    }
    if let Some(name) = unsettled(look) {
        let what = format!("{name} must be level with the leader and ready for ten seconds");
        return Some(Step::wait(kind, words, name, what));
    }
    if look.memory() {
        return renew(look, notes, kind);
    }
    let follower = outdated
        .iter()
        .find(|(_, listed, _)| !look.leads(listed.id));
    let (name, listed, pod) = follower.or(outdated.first())?;
    let alone = look.voters().count() <= 2 && look.population() == look.cluster().replicas;
    if !alone && !look.may_be_away(listed.id) {
        notes.wait(Step::wait(kind, words, name, needs_quorum(name)));
        return None;
    }
    if follower.is_none() && look.voters().count() > 1 {
        return Some(hand_to_current(look, kind, listed));
    }
    let action = Action::DeletePod {
        name: (*name).to_owned(),
        uid: pod.uid.clone(),
        cause: Cause::Outdated,
    };
    Some(Step::act(
        kind,
        "deleting its Pod to make it anew",
        name,
        action,
    ))
}

fn outdated<'a>(look: &Look<'a>) -> Vec<(&'a str, &'a ListedMember, &'a PodView)> {
    let members = look.staying().filter_map(|(name, view)| {
        let pod = view.pod.as_ref().filter(|pod| look.outdated(pod))?;
        Some((name, look.listing(name)?, pod))
    });
    members.collect()
}

/// A member that is down, has to be replaced, or is on its way in or out: no other one goes.
fn unfit<'a>(look: &Look<'a>) -> Option<&'a str> {
    let mut members = look.seen().members.iter();
    let unfit = members.find(|(name, view)| {
        let settled = view.phase == MemberPhase::Admitted && look.is_voter(name);
        !settled || !look.healthy(name) || faults::of(look, name).is_some()
    });
    let orphan = || look.orphans().next().map(|orphan| orphan.name.as_str());
    unfit.map(|(name, _)| name.as_str()).or_else(orphan)
}

/// A member that has not been well for long enough.
fn unsettled<'a>(look: &Look<'a>) -> Option<&'a str> {
    let fresh = |since: Timestamp| !look.older(since, STABLE_SECONDS);
    let ready = |view: &MemberView| view.pod.as_ref().and_then(|pod| pod.ready_since);
    let mut all = look.staying();
    let found = all.find(|(name, view)| ready(view).is_none_or(fresh) || !look.caught_up(name));
    found.map(|(name, _)| name)
}

fn hand_to_current(look: &Look<'_>, kind: OperationKind, leader: &ListedMember) -> Step {
    let words = "handing leadership to a member with a new Pod";
    let Some((heir, to)) = look.heir(leader.id, true) else {
        let what = "no voter with a new Pod is healthy and caught up".to_owned();
        return Step::wait(kind, words, &leader.name, what);
    };
    let action = Action::MoveLeader {
        to,
        name: heir.to_owned(),
    };
    Step::act(kind, words, &leader.name, action)
}

/// Whether members have to be renewed because their Pods cannot be made anew without loss.
pub(super) fn needs_surge(look: &Look<'_>) -> bool {
    let sound = look.cluster().refusals.is_empty();
    look.memory() && sound && !outdated(look).is_empty()
}

fn renew(look: &Look<'_>, notes: &mut Notes, kind: OperationKind) -> Option<Step> {
    if look.population() <= look.cluster().replicas {
        return births::begin(look, notes, kind);
    }
    let outdated = outdated(look);
    let follower = outdated
        .iter()
        .find(|(_, listed, _)| !look.leads(listed.id));
    let (name, listed, _) = follower.or(outdated.first())?;
    if !look.may_be_removed(listed.id) {
        notes.wait(Step::wait(kind, "renewing it", name, needs_quorum(name)));
        return None;
    }
    if let Some(step) = hand_over(look, notes, kind, listed) {
        return step;
    }
    let words = "another member with a new Pod stands in for it";
    Some(births::retire(name, Cause::Outdated, false, words, look))
}
