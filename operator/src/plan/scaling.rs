//! As many voters as are wanted.

use std::cmp::Reverse;

use crate::api::{MemberPhase, OperationKind};
use crate::model::{Cause, MemberView};

use super::births;
use super::faults;
use super::healing;
use super::leaving::{hand_over, needs_quorum};
use super::look::Look;
use super::rolling;
use super::step::{Notes, Step};

/// How many members there should be: one more than the spec says while one waits for another that
/// is to stand in for it.
pub(super) fn wanted(look: &Look<'_>) -> usize {
    let surge = healing::needs_surge(look) || rolling::needs_surge(look);
    look.cluster().replicas + usize::from(surge)
}

/// One and two voters bear no loss: further ones come before Pods are made anew.
pub(super) fn out_of_the_danger_zone(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    if look.voters().count() >= 3 {
        return None;
    }
    outwards(look, notes)
}

/// Fewer than are wanted: one more, if none is on its way.
pub(super) fn outwards(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    let few = look.population() < look.cluster().replicas;
    if !few || look.joiners().next().is_some() {
        return None;
    }
    let kind = look.growth();
    if let Some(name) = restarting(look, None) {
        let what = format!("{name} is not healthy yet");
        notes.wait(Step::wait(kind, "making another member", name, what));
        return None;
    }
    births::begin(look, notes, kind)
}

/// More than are wanted: the one that is missed the least goes.
pub(super) fn inwards(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    let (kind, words) = (OperationKind::ScalingIn, "choosing who leaves");
    if look.population() <= wanted(look) {
        return None;
    }
    let mut members = look.seen().members.values();
    if members.any(|view| view.phase == MemberPhase::Leaving) {
        // One at a time; what it waits for is noted.
        return None;
    }
    let (name, _) = victim(look)?;
    if let Some(other) = restarting(look, Some(name)) {
        let what = format!("{other} is not healthy yet");
        notes.wait(Step::wait(kind, words, other, what));
        return None;
    }
    if let Some(listed) = look.listing(name) {
        if !look.may_be_removed(listed.id) {
            notes.wait(Step::wait(kind, words, name, needs_quorum(name)));
            return None;
        }
        if let Some(step) = hand_over(look, notes, kind, listed) {
            return step;
        }
    }
    let words = "fewer members are wanted";
    Some(births::retire(name, Cause::ScalingIn, false, words, look))
}

/// A member other than `but` that is down and may well come back by itself: one disruption is
/// enough.
fn restarting<'a>(look: &Look<'a>, but: Option<&str>) -> Option<&'a str> {
    let others = look.staying().filter(|(name, _)| Some(*name) != but);
    let mut down = others.filter(|(name, _)| look.is_voter(name) && !look.healthy(name));
    down.find(|(name, _)| faults::of(look, name).is_none())
        .map(|(name, _)| name)
}

/// Who leaves: a joiner, one that is beyond help, an outdated one, one that is not well; rather a
/// follower; of the fullest zone; the newest.
fn victim<'a>(look: &Look<'a>) -> Option<(&'a str, &'a MemberView)> {
    let joiners: Vec<_> = look.joiners().map(|(name, _)| name).collect();
    look.staying().max_by_key(|(name, view)| {
        let outdated = view.pod.as_ref().is_some_and(|pod| look.outdated(pod));
        let listing = look.listing(name);
        let leads = listing.is_some_and(|listed| look.leads(listed.id));
        let worth = (
            joiners.contains(name),
            faults::of(look, name).is_some(),
            outdated,
            !look.healthy(name),
            !leads,
        );
        (worth, crowd(look, view), view.created, Reverse(*name))
    })
}

/// How many members are in the member's zone.
fn crowd(look: &Look<'_>, view: &MemberView) -> usize {
    let zone = |view: &MemberView| view.pod.as_ref().and_then(|pod| pod.zone.clone());
    let own = zone(view);
    let all = look.staying().filter(|(_, other)| zone(other) == own);
    if own.is_some() { all.count() } else { 0 }
}
