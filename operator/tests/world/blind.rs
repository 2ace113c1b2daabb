//! Planners that overlook something: what is hidden from the planner is what it would ignore.

use quorate_operator::api::MemberPhase;
use quorate_operator::model::{ClaimView, Observed};

use super::{GIB, World};

/// What is overlooked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blind {
    /// That members are down.
    Health,
    /// That data are lost or damaged.
    Data,
    /// That an object stands for a member of the list.
    Objects,
    /// That the cluster has begun.
    Begun,
    /// That a learner is no voter yet.
    Learners,
    /// That somebody leads.
    Leader,
}

impl World {
    /// The look as a planner takes it that overlooks something.
    pub fn overlook(&self, mut seen: Observed) -> Observed {
        match self.blind {
            None => {}
            Some(Blind::Health) => well(&mut seen),
            Some(Blind::Data) => whole(&mut seen),
            Some(Blind::Objects) => drop_first(&mut seen),
            Some(Blind::Begun) => seen.cluster.cluster_id = None,
            Some(Blind::Learners) => {
                let members = seen
                    .listed
                    .iter_mut()
                    .flat_map(|listed| &mut listed.members);
                members.for_each(|member| member.learner = false);
            }
            Some(Blind::Leader) => {
                let voices = seen.voices.values_mut();
                voices.for_each(|voice| voice.leader = u64::MAX);
            }
        }
        seen
    }
}

fn well(seen: &mut Observed) {
    let Some(voice) = seen.voices.values().next().cloned() else {
        return;
    };
    for (name, view) in &mut seen.members {
        view.unhealthy_since = None;
        let Some(id) = view.id else { continue };
        let heard = seen.voices.entry(name.clone());
        heard.or_insert_with(|| quorate_operator::model::Voice {
            id,
            ..voice.clone()
        });
        if let Some(pod) = &mut view.pod {
            pod.ready_since = pod.ready_since.or(Some(view.created));
        }
    }
}

fn whole(seen: &mut Observed) {
    seen.alarms.clear();
    for view in seen.members.values_mut() {
        view.unhealthy_since = None;
        if let Some(pod) = &mut view.pod {
            pod.gate_exit = None;
        }
        let lost = view.claim.as_ref().is_none_or(|claim| claim.lost);
        let Some(uid) = view.claim_uid.clone().filter(|_| lost) else {
            continue;
        };
        if view.phase == MemberPhase::Admitted {
            view.claim = Some(ClaimView {
                uid,
                requested_bytes: GIB,
                capacity_bytes: GIB,
                lost: false,
                deleting: false,
            });
        }
    }
}

fn drop_first(seen: &mut Observed) {
    if seen.members.len() > 2 {
        seen.members.pop_first();
    }
}
