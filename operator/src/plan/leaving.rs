//! What leaves is seen out: first of the cluster, then of Kubernetes.

use crate::api::{MemberPhase, OperationKind};
use crate::model::{Action, Cause, ListedMember};

use super::deletion::delete_claim;
use super::look::Look;
use super::step::{Notes, Step};

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    for (name, view) in &look.seen().members {
        if view.phase != MemberPhase::Leaving {
            continue;
        }
        let kind = kind(look, view.leaving);
        let Some(listed) = look.listing(name) else {
            let action = Action::DropMember {
                name: name.clone(),
                delete_claim: delete_claim(look),
            };
            let words = "it is out of the cluster; deleting its objects";
            return Some(Step::act(kind, words, name, action));
        };
        if let Some(step) = remove(look, notes, kind, listed) {
            return Some(step);
        }
    }
    let mut orphans = look.orphans();
    orphans.find_map(|orphan| remove(look, notes, OperationKind::Replacing, orphan))
}

/// What a member leaves for.
pub(super) fn kind(look: &Look<'_>, cause: Option<Cause>) -> OperationKind {
    match cause {
        Some(Cause::ScalingIn) => OperationKind::ScalingIn,
        Some(Cause::Outdated) => look.roll(),
        _ => OperationKind::Replacing,
    }
}

fn remove(
    look: &Look<'_>,
    notes: &mut Notes,
    kind: OperationKind,
    listed: &ListedMember,
) -> Option<Step> {
    let name = &listed.name;
    if !look.may_be_removed(listed.id) {
        notes.wait(Step::wait(kind, "removing it", name, needs_quorum(name)));
        return None;
    }
    if let Some(step) = hand_over(look, notes, kind, listed) {
        return step;
    }
    let action = Action::RemoveMember {
        id: listed.id,
        name: name.clone(),
    };
    Some(Step::act(
        kind,
        "removing it from the cluster",
        name,
        action,
    ))
}

/// The first thing to do with a member that is to go: if it leads, another one has to. The inner
/// None: no other one can.
pub(super) fn hand_over(
    look: &Look<'_>,
    notes: &mut Notes,
    kind: OperationKind,
    listed: &ListedMember,
) -> Option<Option<Step>> {
    if !look.leads(listed.id) {
        return None;
    }
    let words = "handing leadership over";
    let Some((heir, to)) = look.heir(listed.id, false) else {
        let name = &listed.name;
        let what = format!("{name} leads, and no other voter is healthy and caught up");
        notes.wait(Step::wait(kind, words, name, what));
        return Some(None);
    };
    let action = Action::MoveLeader {
        to,
        name: heir.to_owned(),
    };
    Some(Some(Step::act(kind, words, &listed.name, action)))
}

pub(super) fn needs_quorum(name: &str) -> String {
    format!("without {name}, the healthy voters would be no majority: waiting for the others")
}
