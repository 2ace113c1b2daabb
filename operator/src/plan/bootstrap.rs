//! The first member. Only as long as the cluster's ID is not latched is there a seed; what a seed
//! knows of itself is latched before the cluster's ID is, so that it can always come back.

use crate::api::{MemberPhase, OperationKind};
use crate::model::{Action, Cause, MemberView};

use super::deletion::delete_claim;
use super::faults;
use super::look::Look;
use super::step::{Notes, Step, refusal};

const KIND: OperationKind = OperationKind::Bootstrapping;

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    if look.cluster().cluster_id.is_some() {
        return None;
    }
    let leaving = look.seen().members.iter();
    let mut leaving = leaving.filter(|(_, view)| view.phase == MemberPhase::Leaving);
    if let Some((name, _)) = leaving.next() {
        let action = Action::DropMember {
            name: name.clone(),
            delete_claim: delete_claim(look),
        };
        return Some(Step::act(KIND, "dropping a failed seed", name, action));
    }
    let seeds = look.seeds();
    let Some((name, view)) = seeds.first() else {
        return Some(begin(look, notes));
    };
    // A pass with an old look may have made a second one; it never ran.
    let other = look.staying().find(|(other, _)| other != name);
    if let Some((other, _)) = other {
        return Some(retire(other, Cause::ScalingIn, "dropping a second seed"));
    }
    seed(look, notes, name, view)
}

fn begin(look: &Look<'_>, notes: &mut Notes) -> Step {
    let name = look.seen().fresh_name.clone();
    if let Some(refusal) = look.cluster().refusals.first() {
        notes.stall(refusal);
        let message = refusal.message.clone();
        return Step::wait(KIND, "making the first member", "", message);
    }
    let action = Action::CreateSeed { name: name.clone() };
    Step::act(KIND, "making the first member", &name, action)
}

fn seed(look: &Look<'_>, notes: &mut Notes, name: &str, view: &MemberView) -> Option<Step> {
    if let Some(voice) = look.voice(name).filter(|voice| voice.leader != 0) {
        let (id, words) = (voice.id, "the first member is up");
        let action = if view.id == Some(id) {
            let id = voice.cluster_id;
            Action::LatchClusterId { id }
        } else {
            let name = name.to_owned();
            Action::LatchMemberId { name, id }
        };
        return Some(Step::act(KIND, words, name, action));
    }
    if view.phase == MemberPhase::Pending {
        return announce(look, name, view);
    }
    if let Some(cause) = faults::data(look, name, view) {
        return Some(retire(name, cause, "the first member failed to start"));
    }
    let restoring = view.pod.as_ref().and_then(|pod| pod.gate_exit);
    if restoring == Some(quorate_sidecar::wire::exit::RESTORE_FAILED) {
        let message = format!(
            "{name} could not fetch the backup to begin with, or it is not what its manifest says: \
             see the log of its container gate; it tries again"
        );
        notes.stall(&refusal("RestoreFailed", message));
    }
    None
}

fn announce(look: &Look<'_>, name: &str, view: &MemberView) -> Option<Step> {
    if !look.memory() {
        match &view.claim {
            None => {
                let name = name.to_owned();
                let action = Action::CreateClaim { name: name.clone() };
                return Some(Step::act(KIND, "making its claim", &name, action));
            }
            Some(claim) if claim.deleting => {
                let what = format!("the claim {name}-data is being deleted");
                return Some(Step::wait(KIND, "making its claim", name, what));
            }
            Some(claim) if claim.lost => {
                return Some(retire(name, Cause::DataLost, "its volume is lost"));
            }
            Some(_) => {}
        }
    }
    let action = Action::AdmitSeed {
        name: name.to_owned(),
    };
    Some(Step::act(KIND, "admitting the first member", name, action))
}

fn retire(name: &str, cause: Cause, words: &str) -> Step {
    let action = Action::Retire {
        name: name.to_owned(),
        cause,
        replacement: false,
    };
    Step::act(KIND, words, name, action)
}
