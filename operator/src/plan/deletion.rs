//! The cluster goes: members and Pods go with their objects, claims as `reclaim` says. Nobody is
//! told to leave Raft, since nobody stays.

use crate::api::{OperationKind, Reclaim};
use crate::model::Action;

use super::look::Look;
use super::step::Step;

pub(super) fn rung(look: &Look<'_>) -> Step {
    let Some(name) = look.seen().members.keys().next() else {
        let words = "nothing is left; letting the object go";
        return Step::act(OperationKind::Deleting, words, "", Action::Release);
    };
    let action = Action::DropMember {
        name: name.clone(),
        delete_claim: delete_claim(look),
    };
    Step::act(OperationKind::Deleting, "deleting the member", name, action)
}

/// Whether the claims of members that are gone go too.
pub(super) fn delete_claim(look: &Look<'_>) -> bool {
    look.cluster().storage.reclaim == Reclaim::Delete
}
