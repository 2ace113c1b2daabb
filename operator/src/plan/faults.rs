//! What may be wrong with a member, so that only another one helps.

use quorate_sidecar::wire::exit;

use crate::api::{MemberPhase, NodeLoss};
use crate::model::{Cause, MemberView, PodView, Refusal};

use super::look::Look;
use super::step::refusal;

/// What is wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) cause: Cause,
    /// It cannot be alive: nothing is lost by removing it before another one is added.
    pub(super) dead: bool,
}

/// What is wrong with a member that was admitted and does not leave.
pub(super) fn of(look: &Look<'_>, name: &str) -> Option<Fault> {
    let view = look.member(name)?;
    if view.phase != MemberPhase::Admitted {
        return None;
    }
    let dead = !look.answers(name);
    if look.has_list() && look.listing(name).is_none() {
        let cause = Cause::RemovedFromCluster;
        return Some(Fault { cause, dead: true });
    }
    if let Some(cause) = data(look, name, view) {
        return Some(Fault { cause, dead });
    }
    if view.claim.as_ref().is_some_and(|claim| claim.deleting) {
        // The claim stays only as long as the Pod does.
        let dead = dead && view.pod.is_none();
        let cause = Cause::DataLost;
        return Some(Fault { cause, dead });
    }
    let patience = look.cluster().replace_unhealthy_after_seconds;
    let since = view.unhealthy_since.filter(|_| !look.healthy(name))?;
    if !look.older(since, patience) || waits_for_node(look, view) {
        return None;
    }
    lingering(look, name, view)
}

/// Whether a member's data are known to be gone or damaged.
pub(super) fn data(look: &Look<'_>, name: &str, view: &MemberView) -> Option<Cause> {
    let claim = view.claim.as_ref();
    if look.memory() {
        let gone = view.pod.as_ref().is_none_or(|pod| pod.failed);
        let had = look.is_voter(name) || (!look.has_list() && view.id.is_some());
        if gone && had && look.cluster().cluster_id.is_some() {
            return Some(Cause::DataLost);
        }
    } else {
        let same = claim.is_some_and(|claim| {
            !claim.lost && view.claim_uid.as_ref().is_none_or(|uid| *uid == claim.uid)
        });
        if !same {
            return Some(Cause::DataLost);
        }
    }
    let exit = view.pod.as_ref().and_then(|pod| pod.gate_exit);
    let damaged = matches!(exit, Some(exit::DATA_CORRUPT | exit::WRONG_IDENTITY));
    (damaged || look.corrupt(name)).then_some(Cause::DataCorrupt)
}

/// The member's node is gone, and the spec says that nodes are waited for. A Pod that finds no
/// node although its volume is bound waits for the volume's node.
pub(super) fn waits_for_node(look: &Look<'_>, view: &MemberView) -> bool {
    let bound = view.claim.as_ref().is_some_and(|c| c.capacity_bytes > 0);
    let gone = view.pod.as_ref().is_some_and(|pod| {
        pod.node_lost || (bound && pod.waiting.as_deref() == Some("Unschedulable"))
    });
    gone && look.cluster().on_node_lost == NodeLoss::Wait
}

fn lingering(look: &Look<'_>, name: &str, view: &MemberView) -> Option<Fault> {
    let dead = true;
    let pod = view.pod.as_ref();
    if pod.is_some_and(|pod| pod.node_lost) {
        let cause = Cause::NodeLost;
        return Some(Fault { cause, dead });
    }
    if pod.is_some_and(|pod| spec_trouble(name, pod).is_some()) {
        return None;
    }
    let learner = look.listing(name).is_some_and(|listed| listed.learner);
    let unplaced = pod.is_some_and(|pod| pod.waiting.as_deref() == Some("Unschedulable"));
    let bound = view.claim.as_ref().is_some_and(|c| c.capacity_bytes > 0);
    if learner {
        // Another learner would find no node either.
        let cause = Cause::LearnerStuck;
        return (bound || !unplaced).then_some(Fault { cause, dead });
    }
    if rolled_badly(look, view) {
        return None;
    }
    let (cause, dead) = (Cause::Unhealthy, false);
    Some(Fault { cause, dead })
}

/// The member has the new template while others have the old: the template is to blame, and
/// another member would fare no better.
pub(super) fn rolled_badly(look: &Look<'_>, view: &MemberView) -> bool {
    let current = view.pod.as_ref().is_some_and(|pod| !look.outdated(pod));
    let mut others = look.staying().filter_map(|(_, view)| view.pod.as_ref());
    current && others.any(|pod| look.outdated(pod))
}

/// Why a Pod cannot start before the spec, or what it names, is mended.
pub(super) fn spec_trouble(name: &str, pod: &PodView) -> Option<Refusal> {
    let waiting = pod.waiting.as_deref()?;
    match waiting {
        "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" => {
            let message = format!(
                "{waiting}: the image of Pod {name} cannot be pulled. Check spec.image and \
                 spec.version, the registry, and spec.image.pullSecrets"
            );
            Some(refusal("ImagePullFailed", message))
        }
        "CreateContainerConfigError" | "CreateContainerError" => {
            let message = format!(
                "{waiting}: the Pod {name} refers to something that is missing or wrong. See \
                 `kubectl describe pod {name}`, and mend spec or the Secret or ConfigMap it names"
            );
            Some(refusal("InvalidReference", message))
        }
        _ => None,
    }
}
