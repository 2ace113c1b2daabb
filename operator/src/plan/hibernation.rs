//! Pods go, followers first; everything else stays.

use crate::api::{Lifecycle, OperationKind};
use crate::model::{Action, Cause};

use super::look::Look;
use super::step::{Notes, Step, refusal};

const KIND: OperationKind = OperationKind::Hibernating;

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    if look.cluster().lifecycle != Lifecycle::Hibernated {
        return None;
    }
    let pods = look.seen().members.iter();
    let pods = pods.filter_map(|(name, view)| Some((name, view.pod.as_ref()?)));
    let mut pods: Vec<_> = pods.collect();
    if look.memory() {
        let message = "spec.storage.medium is Memory: without Pods all data would be lost. Take a \
                       backup and delete the cluster, or set spec.lifecycle back to Running";
        let refusal = refusal("HibernationUnsafe", message.to_owned());
        notes.stall(&refusal);
        return None;
    }
    if pods.is_empty() {
        return Some(Step::default());
    }
    pods.sort_by_key(|(name, _)| {
        let listing = look.listing(name);
        let leads = listing.is_some_and(|listed| look.leads(listed.id));
        (leads, look.is_voter(name))
    });
    let Some((name, pod)) = pods.iter().find(|(_, pod)| !pod.deleting) else {
        let name = pods.first().map_or("", |(name, _)| name.as_str());
        let what = format!("the Pod {name} is being deleted");
        return Some(Step::wait(KIND, "deleting Pods", name, what));
    };
    let action = Action::DeletePod {
        name: (*name).clone(),
        uid: pod.uid.clone(),
        cause: Cause::Hibernated,
    };
    Some(Step::act(KIND, "deleting the Pod", name, action))
}
