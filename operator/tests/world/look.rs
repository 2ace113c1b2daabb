//! What the operator sees of the world.

use quorate_operator::api::MemberPhase;
use quorate_operator::model::{ClaimView, Listed, MemberView, Observed, PodView, Voice};
use quorate_operator::plan::is_healthy;

use super::World;

impl World {
    pub fn look(&mut self) -> Observed {
        let fresh_name = self.fresh("c");
        let members = self
            .objects
            .keys()
            .map(|name| (name.clone(), self.view(name)));
        let members = members.collect();
        let quorum = self.quorum() && self.raft.leader.is_some();
        let listed = self
            .raft
            .cluster_id
            .filter(|_| quorum)
            .map(|cluster_id| Listed {
                cluster_id,
                members: self.raft.members.clone(),
            });
        let asked = self.objects.keys().filter(|name| self.reachable(name));
        let voices = asked.filter_map(|name| Some((name.clone(), self.voice(name)?)));
        let mut seen = Observed {
            now: self.now,
            cluster: self.cluster_view(),
            members,
            listed,
            voices: voices.collect(),
            alarms: if quorum {
                self.raft.alarms.clone()
            } else {
                Vec::new()
            },
            fresh_name,
        };
        let names: Vec<String> = seen.members.keys().cloned().collect();
        for name in names {
            let healthy = is_healthy(&seen, &name);
            let object = self.objects.get_mut(&name).unwrap();
            let counts = object.phase != MemberPhase::Pending && !healthy;
            object.unhealthy_since = if counts {
                object.unhealthy_since.or(Some(self.now))
            } else {
                None
            };
            let view = seen.members.get_mut(&name).unwrap();
            view.unhealthy_since = object.unhealthy_since;
        }
        seen
    }

    fn view(&self, name: &str) -> MemberView {
        let object = &self.objects[name];
        let pod = self.pods.get(name).map(|pod| PodView {
            uid: pod.uid.clone(),
            revision: pod.revision.to_string(),
            ready_since: pod.ready_since,
            deleting: pod.deleting,
            failed: pod.failed,
            gate_exit: pod.gate_exit,
            waiting: pod.waiting.clone(),
            restarts: 0,
            node: pod.node.map(|node| format!("node-{node}")),
            zone: pod.node.map(|node| format!("zone-{}", node % 3)),
            node_lost: pod.node.is_some_and(|node| !self.nodes[node]),
        });
        let claim = self.claims.get(name).map(|claim| ClaimView {
            uid: claim.uid.clone(),
            requested_bytes: claim.requested,
            capacity_bytes: claim.capacity,
            lost: claim.lost,
            deleting: claim.deleting,
        });
        MemberView {
            created: object.created,
            birth: object.birth,
            phase: object.phase,
            id: object.id,
            leaving: object.leaving,
            initial_cluster: object.initial_cluster.clone(),
            unhealthy_since: object.unhealthy_since,
            claim_uid: object.claim_uid.clone(),
            pod,
            claim,
        }
    }

    fn voice(&self, name: &str) -> Option<Voice> {
        let data = self.data(name)?;
        let listed = self.member(name);
        Some(Voice {
            cluster_id: self.raft.cluster_id?,
            id: data.id,
            leader: self.raft.leader.unwrap_or(0),
            raft_index: data.index,
            applied_index: data.index,
            learner: listed.is_some_and(|listed| listed.learner),
            db_size_bytes: 1,
            version: "3.7.3".to_owned(),
            errors: Vec::new(),
        })
    }
}
