//! No majority answers: membership is left alone, whatever else may be wrong.

use crate::api::OperationKind;
use crate::model::{Action, MemberView};

use super::faults;
use super::look::{Look, majority};
use super::pods;
use super::step::{Notes, Step, refusal};

/// How long most members may be unhealthy before it is more than a restart, in seconds.
const PATIENCE_SECONDS: i64 = 60;

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    if look.has_list() {
        return latch_seed(look);
    }
    if look.cluster().cluster_id.is_none() {
        return Some(first(look, notes));
    }
    let known = look.seen().members.iter();
    let known: Vec<_> = known.filter(|(_, view)| view.id.is_some()).collect();
    let needed = majority(known.len());
    let trouble = known.iter().find_map(|(name, view)| {
        let pod = view.pod.as_ref()?;
        faults::spec_trouble(name, pod)
    });
    if let Some(trouble) = trouble {
        notes.stall(&trouble);
    }
    let lost = known.iter().filter(|(name, view)| lost(look, name, view));
    let (lost, left) = (lost.count(), known.len());
    let long = known.iter().filter(|(name, view)| silent(look, name, view));
    if left - lost < needed {
        let message = "most members' data are gone: no quorum can come back. Begin a new cluster \
                       from a backup (spec.bootstrap.fromBackup), or bring the volumes back";
        notes.stall(&refusal("QuorumLost", message.to_owned()));
    } else if long.count() >= needed {
        let message = "most members do not answer, so that nothing can be agreed on: see their \
                       Pods, their nodes, and whether the operator can reach port 2379 of them";
        notes.stall(&refusal("QuorumLost", message.to_owned()));
    }
    let down = known.iter().find(|(name, _)| !look.healthy(name));
    let name = down.map_or("", |(name, _)| name.as_str());
    let kind = match down {
        Some((name, _)) => pods::kind(look, name),
        None => look.going_on().unwrap_or(OperationKind::Restarting),
    };
    let what = "no quorum of the members answers".to_owned();
    Some(Step::wait(kind, "waiting for a quorum", name, what))
}

/// Waits for the first member.
fn first(look: &Look<'_>, notes: &mut Notes) -> Step {
    let (kind, words) = (OperationKind::Bootstrapping, "waiting for the first member");
    let mut pods = look.staying();
    let pod = pods.find_map(|(name, view)| Some((name, view.pod.as_ref()?)));
    let name = pod.map_or("", |(name, _)| name);
    let trouble = pod.and_then(|(name, pod)| faults::spec_trouble(name, pod));
    let what = match (&trouble, pod.and_then(|(_, pod)| pod.waiting.as_deref())) {
        (Some(trouble), _) => trouble.message.clone(),
        (None, Some(waiting)) => format!("the Pod {name} waits: {waiting}"),
        (None, None) => "it does not answer yet".to_owned(),
    };
    if let Some(trouble) = trouble {
        notes.stall(&trouble);
    }
    Step::wait(kind, words, name, what)
}

/// The member cannot come back.
fn lost(look: &Look<'_>, name: &str, view: &MemberView) -> bool {
    faults::data(look, name, view).is_some() && !look.answers(name)
}

fn silent(look: &Look<'_>, name: &str, view: &MemberView) -> bool {
    let since = view.unhealthy_since;
    let long = since.is_some_and(|since| look.older(since, PATIENCE_SECONDS));
    long && !look.answers(name)
}

/// A pass that was interrupted may have left a member of the list without its ID.
fn latch_seed(look: &Look<'_>) -> Option<Step> {
    let mut unknown = look.staying().filter(|(_, view)| view.id.is_none());
    let (name, id) = unknown.find_map(|(name, view)| {
        let admitted = view.phase == crate::api::MemberPhase::Admitted;
        let listed = look.listing(name).filter(|_| admitted)?;
        Some((name.to_owned(), listed.id))
    })?;
    let kind = pods::kind(look, &name);
    let action = Action::LatchMemberId {
        name: name.clone(),
        id,
    };
    Some(Step::act(kind, "latching its ID", &name, action))
}
