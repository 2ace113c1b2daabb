//! Members that only another one can stand in for. A dead one is removed first; one that may be
//! alive stays until the new one votes.

use crate::api::OperationKind;
use crate::model::{MemberView, Refusal};

use super::births;
use super::faults::{self, Fault};
use super::leaving::{hand_over, needs_quorum};
use super::look::Look;
use super::step::{Notes, Step, refusal};

const KIND: OperationKind = OperationKind::Replacing;
const WORDS: &str = "replacing it";

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    for (name, view) in look.staying() {
        if faults::waits_for_node(look, view) {
            let what = format!(
                "the node of {name} is gone, and spec.healing.onNodeLost is Wait: bring it back, \
                 or set it to Replace"
            );
            notes.wait(Step::wait(OperationKind::Restarting, "waiting", name, what));
        }
    }
    let mut sick = sick(look);
    sick.sort_by_key(|(_, _, fault)| !fault.dead);
    sick.into_iter()
        .find_map(|(name, _, fault)| heal(look, notes, name, fault))
}

/// The members that cannot be healed themselves; those on their way in are not meant.
fn sick<'a>(look: &Look<'a>) -> Vec<(&'a str, &'a MemberView, Fault)> {
    let all = look.staying();
    let settled = all.filter(|(name, _)| !look.joiners().any(|(joiner, _)| joiner == *name));
    let sick = settled.filter_map(|(name, view)| Some((name, view, faults::of(look, name)?)));
    sick.collect()
}

/// Whether there is one that stays until another one votes for it.
pub(super) fn needs_surge(look: &Look<'_>) -> bool {
    // One that died meanwhile is still the reason for the other one that is on its way.
    let begun = look.population() > look.cluster().replicas;
    let sick = sick(look);
    let mut alive = sick.iter().filter(|(_, _, fault)| !fault.dead);
    (begun && !sick.is_empty()) || (allowed(look) && alive.next().is_some())
}

/// Whether one more member may be replaced now.
pub(super) fn allowed(look: &Look<'_>) -> bool {
    look.cluster().replacements.len() < look.cluster().max_replacements_per_hour
}

pub(super) fn exhausted(look: &Look<'_>) -> Refusal {
    let most = look.cluster().max_replacements_per_hour;
    let message = format!(
        "spec.healing.maxReplacementsPerHour allows {most}, and so many members were replaced \
         within the last hour: find out why they fail, then wait or raise it"
    );
    refusal("ReplacementsExhausted", message)
}

fn heal(look: &Look<'_>, notes: &mut Notes, name: &str, fault: Fault) -> Option<Step> {
    let Some(listed) = look.listing(name) else {
        return leave(look, notes, name, fault);
    };
    if fault.dead {
        if !look.may_be_removed(listed.id) {
            notes.wait(Step::wait(KIND, WORDS, name, needs_quorum(name)));
            return None;
        }
        return leave(look, notes, name, fault);
    }
    if look.population() <= look.cluster().replicas {
        if !allowed(look) {
            notes.refuse(KIND, WORDS, name, &exhausted(look));
            return None;
        }
        return births::begin(look, notes, KIND);
    }
    // The other one has come, unless it is still on its way.
    if look.joiners().next().is_some() {
        return None;
    }
    if !look.may_be_removed(listed.id) {
        notes.wait(Step::wait(KIND, WORDS, name, needs_quorum(name)));
        return None;
    }
    if let Some(step) = hand_over(look, notes, KIND, listed) {
        return step;
    }
    let replacement = replaces(look);
    Some(births::retire(name, fault.cause, replacement, WORDS, look))
}

/// Whether another one comes, or has come, for a member that leaves now; else it is just one too
/// many.
fn replaces(look: &Look<'_>) -> bool {
    look.population() <= look.cluster().replicas + 1
}

fn leave(look: &Look<'_>, notes: &mut Notes, name: &str, fault: Fault) -> Option<Step> {
    let few = look.population() <= look.cluster().replicas;
    if few && !allowed(look) {
        notes.refuse(KIND, WORDS, name, &exhausted(look));
        return None;
    }
    let replacement = replaces(look);
    Some(births::retire(name, fault.cause, replacement, WORDS, look))
}
