//! Pods that ended are made again. Nothing is asked of the cluster for that: a Pod that comes back
//! with its own data can only help.

use crate::api::{Birth, MemberPhase, OperationKind};
use crate::model::{Action, Cause, MemberView, PodView};

use super::faults;
use super::look::Look;
use super::step::{Notes, Step};

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    let members = || look.seen().members.iter();
    for (name, view) in members() {
        let Some(pod) = view.pod.as_ref().filter(|pod| !pod.deleting) else {
            continue;
        };
        if pod.failed && may_run(look, name, view) {
            return Some(delete(look, name, pod, Cause::PodFailed));
        }
        if broken_and_outdated(look, name, view, pod) {
            return Some(delete(look, name, pod, Cause::Outdated));
        }
    }
    let missing = members().find(|(_, view)| view.pod.is_none());
    missing?;
    let (name, _) =
        members().find(|(name, view)| view.pod.is_none() && may_run(look, name, view))?;
    let (kind, words) = (kind(look, name), "making its Pod");
    if look.cluster().blocks_pods {
        if let Some(refusal) = look.cluster().refusals.first() {
            notes.refuse(kind, words, name, refusal);
        }
        return None;
    }
    let action = Action::CreatePod { name: name.clone() };
    Some(Step::act(kind, words, name, action))
}

/// Whether a member's Pod may be there: the cluster knows the member, and its data are its own.
fn may_run(look: &Look<'_>, name: &str, view: &MemberView) -> bool {
    // Only a seed that is known may come back once there is a cluster: it never is one again.
    let known =
        look.cluster().cluster_id.is_none() || view.birth == Birth::Join || view.id.is_some();
    let born = view.initial_cluster.is_some() && known;
    let kept = look.memory() || view.claim.as_ref().is_some_and(|claim| !claim.deleting);
    let sound = kept && faults::data(look, name, view).is_none();
    let listing = look.listing(name);
    let wanted = match view.phase {
        MemberPhase::Pending => false,
        MemberPhase::Admitted => {
            !look.has_list() || listing.is_some() || look.cluster().cluster_id.is_none()
        }
        // It leaves, but its vote may be needed until it does.
        MemberPhase::Leaving => {
            let stays = listing.filter(|listed| !listed.learner);
            let stays = stays.is_some_and(|listed| !look.may_be_removed(listed.id));
            look.cluster().cluster_id.is_some() && (!look.has_list() || stays)
        }
    };
    born && sound && wanted
}

/// A Pod that does not run and is not as it is wanted: the mended spec may be what it waits for.
fn broken_and_outdated(look: &Look<'_>, name: &str, view: &MemberView, pod: &PodView) -> bool {
    let cluster = look.cluster();
    let mended = cluster.refusals.is_empty() && !cluster.blocks_pods;
    // What lies in memory goes with the Pod; whoever might vote is healed otherwise.
    let learner = look.listing(name).is_some_and(|listed| listed.learner);
    let kept = !look.memory() || learner || cluster.cluster_id.is_none();
    let broken = pod.ready_since.is_none() && look.voice(name).is_none() && !pod.node_lost;
    mended && kept && broken && look.outdated(pod) && may_run(look, name, view)
}

fn delete(look: &Look<'_>, name: &str, pod: &PodView, cause: Cause) -> Step {
    let words = match cause {
        Cause::Outdated => "deleting its Pod, which does not run and is outdated",
        _ => "deleting its Pod, which ended",
    };
    let action = Action::DeletePod {
        name: name.to_owned(),
        uid: pod.uid.clone(),
        cause,
    };
    let kind = match cause {
        Cause::Outdated => look.roll(),
        _ => kind(look, name),
    };
    Step::act(kind, words, name, action)
}

/// What a Pod that comes up comes up for.
pub(super) fn kind(look: &Look<'_>, name: &str) -> OperationKind {
    if look.cluster().was_hibernated {
        return OperationKind::Resuming;
    }
    if look.cluster().cluster_id.is_none() {
        return OperationKind::Bootstrapping;
    }
    if look.joiners().any(|(joiner, _)| joiner == name) {
        return look.growth();
    }
    match look.going_on() {
        Some(
            kind @ (OperationKind::Resuming
            | OperationKind::RollingRestart
            | OperationKind::Upgrading),
        ) => kind,
        _ => OperationKind::Restarting,
    }
}
