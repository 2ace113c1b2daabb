//! Nothing is left to be done: what is still waited for.

use crate::api::OperationKind;

use super::faults;
use super::look::Look;
use super::pods;
use super::step::{Notes, Step, refusal};

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    if let Some(refusal) = look.cluster().refusals.first() {
        notes.stall(refusal);
    }
    for (name, view) in look.staying() {
        let Some(pod) = view.pod.as_ref() else {
            continue;
        };
        if look.healthy(name) {
            continue;
        }
        let kind = pods::kind(look, name);
        if let Some(trouble) = faults::spec_trouble(name, pod) {
            notes.refuse(kind, "waiting for its Pod", name, &trouble);
        } else if late(look, name) && faults::rolled_badly(look, view) {
            let message = format!(
                "the Pod {name} was made from the new spec and does not get healthy: see its log \
                 and mend the spec; no further Pod is changed"
            );
            let refusal = refusal("ProgressDeadlineExceeded", message);
            notes.refuse(kind, "waiting for its Pod", name, &refusal);
        }
    }
    let down = look
        .seen()
        .members
        .iter()
        .find(|(name, _)| !look.healthy(name));
    let (name, view) = down?;
    let kind = pods::kind(look, name);
    let waiting = view.pod.as_ref().and_then(|pod| pod.waiting.as_deref());
    let what = match (waiting, &view.pod) {
        (Some(waiting), _) => format!("the Pod {name} waits: {waiting}"),
        (None, None) => format!("the Pod {name} is not there"),
        (None, Some(pod)) if pod.deleting => format!("the Pod {name} is being deleted"),
        (None, Some(pod)) if pod.node_lost => format!("the node of the Pod {name} is gone"),
        (None, Some(_)) => format!("{name} is not healthy yet"),
    };
    notes.wait(Step::wait(
        kind_or(look, kind),
        "waiting for it",
        name,
        what,
    ));
    None
}

fn late(look: &Look<'_>, name: &str) -> bool {
    let since = look.member(name).and_then(|view| view.unhealthy_since);
    let patience = look.cluster().replace_unhealthy_after_seconds;
    since.is_some_and(|since| look.older(since, patience))
}

fn kind_or(look: &Look<'_>, kind: OperationKind) -> OperationKind {
    match look.going_on() {
        Some(OperationKind::Replacing) => OperationKind::Replacing,
        _ => kind,
    }
}
