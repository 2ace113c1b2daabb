//! Volumes grow, one at a time.

use crate::api::{MemberPhase, OperationKind};
use crate::model::Action;

use super::look::Look;
use super::step::{Notes, Step, refusal};

const KIND: OperationKind = OperationKind::ExpandingVolume;

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    let storage = look.cluster().storage;
    let claims = look.staying();
    let claims = claims.filter(|(_, view)| view.phase == MemberPhase::Admitted);
    let claims = claims.filter_map(|(name, view)| Some((name, view.claim.as_ref()?)));
    let claims = claims.filter(|(_, claim)| !claim.lost && !claim.deleting);
    let claims: Vec<_> = claims.collect();
    let growing = claims.iter().find(|(_, claim)| {
        claim.capacity_bytes > 0 && claim.capacity_bytes < claim.requested_bytes
    });
    if let Some((name, _)) = growing {
        let what = format!("the volume of the claim {name}-data is being resized");
        notes.wait(Step::wait(KIND, "waiting for its volume", name, what));
        return None;
    }
    let mut small = claims.iter();
    let (name, _) = small.find(|(_, claim)| claim.requested_bytes < storage.bytes)?;
    if storage.expandable == Some(false) {
        let message = "the storage class does not let volumes grow (allowVolumeExpansion): set \
                       spec.storage.size back by making a new cluster from a backup, or let the \
                       class expand";
        let refusal = refusal("VolumeNotExpandable", message.to_owned());
        notes.refuse(KIND, "asking for a larger volume", name, &refusal);
        return None;
    }
    let action = Action::ExpandClaim {
        name: (*name).to_owned(),
        bytes: storage.bytes,
    };
    Some(Step::act(KIND, "asking for a larger volume", name, action))
}
