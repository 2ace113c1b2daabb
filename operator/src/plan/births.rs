//! Members on their way to be voters: object, claim, learner, Pod, voter. Each step can be taken
//! again; at most one learner is in the list.

use crate::api::{Birth, MemberPhase, OperationKind};
use crate::model::{Action, Cause, MemberView};

use super::faults;
use super::healing;
use super::leaving;
use super::look::Look;
use super::scaling;
use super::step::{Notes, Step};

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    let mut joiners: Vec<_> = look.joiners().collect();
    // The furthest first, so that those behind it wait.
    joiners.sort_by_key(|(name, view)| {
        let listed = look.listing(name).is_some();
        (!listed, view.created, *name)
    });
    let surplus = look.population() > scaling::wanted(look);
    if let Some((name, _)) = joiners.last().filter(|_| surplus) {
        let words = "it is not wanted any more";
        return Some(retire(name, Cause::ScalingIn, false, words, look));
    }
    joiners
        .into_iter()
        .find_map(|(name, view)| bring_up(look, notes, name, view))
}

fn bring_up(look: &Look<'_>, notes: &mut Notes, name: &str, view: &MemberView) -> Option<Step> {
    if view.phase == MemberPhase::Pending {
        if view.birth == Birth::Seed {
            // Made by a pass with an old look, after the cluster had begun.
            let words = "the cluster has begun without it";
            return Some(retire(name, Cause::ScalingIn, false, words, look));
        }
        return announce(look, notes, name, view);
    }
    if let Some(fault) = faults::of(look, name) {
        if !healing::allowed(look) {
            let kind = OperationKind::Replacing;
            notes.refuse(kind, "replacing it", name, &healing::exhausted(look));
            return None;
        }
        let words = "it cannot become a voter; another one will";
        return Some(retire(name, fault.cause, true, words, look));
    }
    promote(look, notes, name, view)
}

fn announce(look: &Look<'_>, notes: &mut Notes, name: &str, view: &MemberView) -> Option<Step> {
    let kind = look.growth();
    if !look.memory() {
        match &view.claim {
            None => {
                let name = name.to_owned();
                let action = Action::CreateClaim { name: name.clone() };
                return Some(Step::act(kind, "making its claim", &name, action));
            }
            Some(claim) if claim.deleting => {
                let what = format!("the claim {name}-data is being deleted");
                notes.wait(Step::wait(kind, "making its claim", name, what));
                return None;
            }
            Some(claim) if claim.lost => {
                let words = "its volume is lost before it was used";
                return Some(retire(name, Cause::DataLost, false, words, look));
            }
            Some(_) => {}
        }
    }
    let words = "adding it as a learner";
    if look.cluster().blocks_pods {
        let refusal = look.cluster().refusals.first()?;
        notes.refuse(kind, words, name, refusal);
        return None;
    }
    if let Some(other) = look.learners().find(|learner| learner.name != name) {
        let what = format!("the learner {} comes first", other.name);
        notes.wait(Step::wait(kind, words, name, what));
        return None;
    }
    if !look.quorate() {
        let what = "fewer than a majority of the voters are healthy".to_owned();
        notes.wait(Step::wait(kind, words, name, what));
        return None;
    }
    let action = Action::AdmitJoiner {
        name: name.to_owned(),
    };
    Some(Step::act(kind, words, name, action))
}

fn promote(look: &Look<'_>, notes: &mut Notes, name: &str, view: &MemberView) -> Option<Step> {
    let (kind, words) = (look.growth(), "waiting for the learner to catch up");
    let listed = look.listing(name)?;
    let trouble = view.pod.as_ref();
    if let Some(trouble) = trouble.and_then(|pod| faults::spec_trouble(name, pod)) {
        notes.refuse(kind, words, name, &trouble);
        return None;
    }
    if look.healthy(name) && look.caught_up(name) && look.quorate() {
        let action = Action::Promote {
            name: name.to_owned(),
            id: listed.id,
        };
        return Some(Step::act(kind, "making the learner a voter", name, action));
    }
    let waiting = view.pod.as_ref().and_then(|pod| pod.waiting.as_deref());
    let what = match waiting {
        Some(waiting) => format!("the Pod {name} waits: {waiting}"),
        None if look.answers(name) => format!("{name} copies the data"),
        None => format!("{name} does not answer yet"),
    };
    notes.wait(Step::wait(kind, words, name, what));
    None
}

/// Begins with another member, unless something speaks against it.
pub(super) fn begin(look: &Look<'_>, notes: &mut Notes, kind: OperationKind) -> Option<Step> {
    let words = "making another member";
    let cluster = look.cluster();
    // What heals may use the template at hand.
    let heals = kind == OperationKind::Replacing;
    if let Some(refusal) = cluster.refusals.first()
        && (cluster.blocks_pods || !heals)
    {
        notes.refuse(kind, words, "", refusal);
        return None;
    }
    if let Some(learner) = look.learners().next() {
        let what = format!("the learner {} comes first", learner.name);
        notes.wait(Step::wait(kind, words, "", what));
        return None;
    }
    if !look.quorate() {
        let what = "fewer than a majority of the voters are healthy".to_owned();
        notes.wait(Step::wait(kind, words, "", what));
        return None;
    }
    let name = look.seen().fresh_name.clone();
    let action = Action::CreateJoiner { name: name.clone() };
    Some(Step::act(kind, words, &name, action))
}

/// Latches that a member leaves.
pub(super) fn retire(
    name: &str,
    cause: Cause,
    replacement: bool,
    words: &str,
    look: &Look<'_>,
) -> Step {
    let action = Action::Retire {
        name: name.to_owned(),
        cause,
        replacement,
    };
    Step::act(leaving::kind(look, Some(cause)), words, name, action)
}
