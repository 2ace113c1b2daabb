//! Time goes by: kubelets start Pods, Raft elects, replicates and acknowledges, volumes grow.

use quorate_operator::api::Birth;
use quorate_operator::model::ListedMember;
use quorate_sidecar::wire::exit;

use super::{Data, World};

impl World {
    pub fn tick(&mut self) {
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in &names {
            self.end_pod(name);
            self.start_pod(name);
        }
        self.claims
            .retain(|name, claim| !claim.deleting || self.pods.contains_key(name));
        for claim in self.claims.values_mut() {
            if claim.capacity > 0 && self.wanted.expandable {
                claim.capacity = claim.requested;
            }
        }
        self.garbage();
        self.elect();
        self.replicate();
        let now = self.now;
        for name in names {
            let ready = self.votes(&name) && self.raft.leader.is_some();
            let Some(pod) = self.pods.get_mut(&name) else {
                continue;
            };
            let ready = ready && !pod.deleting;
            pod.ready_since = if ready {
                pod.ready_since.or(Some(now))
            } else {
                None
            };
        }
    }

    /// Pods go with their objects.
    fn garbage(&mut self) {
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            if !self.objects.contains_key(&name)
                && let Some(pod) = self.pods.get_mut(&name)
            {
                pod.deleting = true;
            }
        }
    }

    fn end_pod(&mut self, name: &str) {
        let Some(pod) = self.pods.get(name) else {
            return;
        };
        // A Pod on a dead node stays until the node is back: nobody may delete it by force.
        if pod.deleting && (pod.node.is_none() || self.node_up(pod)) {
            self.pods.remove(name);
        }
    }

    fn start_pod(&mut self, name: &str) {
        let memory = self.memory();
        let known = self.objects.get(name).cloned();
        let listed = self.member(name).cloned();
        let up = self.nodes.iter().position(|up| *up);
        let start = self.counter as usize % self.nodes.len();
        let place = (0..self.nodes.len()).map(|i| (start + i) % self.nodes.len());
        let place = place.into_iter().find(|node| self.nodes[*node]).or(up);
        let Some(pod) = self.pods.get_mut(name) else {
            return;
        };
        pod.cut_off = pod.cut_off.saturating_sub(1);
        if pod.failed || pod.deleting || pod.running {
            return;
        }
        let claim = self.claims.get_mut(name);
        if !memory
            && claim
                .as_ref()
                .is_none_or(|claim| claim.lost || claim.deleting)
        {
            pod.waiting = Some("Unschedulable".to_owned());
            return;
        }
        if pod.node.is_none() {
            pod.node = place;
            pod.waiting = place.is_none().then(|| "Unschedulable".to_owned());
        }
        let Some(node) = pod.node.filter(|node| self.nodes[*node]) else {
            return;
        };
        pod.waiting = None;
        if self.bad_images.contains(&pod.revision) {
            pod.waiting = Some("ImagePullBackOff".to_owned());
            return;
        }
        if self.bad_configs.contains(&pod.revision) {
            pod.waiting = Some("CrashLoopBackOff".to_owned());
            return;
        }
        if pod.starting > 0 {
            pod.starting -= 1;
            return;
        }
        assert!(node < 9);
        if let Some(claim) = claim {
            claim.capacity = claim.capacity.max(claim.requested.min(1 << 30)).max(1);
        }
        let data = if memory {
            pod.memory.clone()
        } else {
            self.claims[name].data.clone()
        };
        let object = known.expect("a Pod that is not deleted has an object");
        match self.gate(name, object.birth, listed.as_ref(), data) {
            Ok(data) => {
                let pod = self.pods.get_mut(name).unwrap();
                pod.running = true;
                pod.gate_exit = None;
                if memory {
                    pod.memory = Some(data);
                } else {
                    self.claims.get_mut(name).unwrap().data = Some(data);
                }
            }
            Err(code) => self.pods.get_mut(name).unwrap().gate_exit = Some(code),
        }
    }

    /// What a process makes of the directory it finds.
    fn gate(
        &mut self,
        name: &str,
        birth: Birth,
        listed: Option<&ListedMember>,
        data: Option<Data>,
    ) -> Result<Data, i32> {
        if let Some(data) = data {
            if data.corrupt {
                return Err(exit::DATA_CORRUPT);
            }
            return match listed {
                Some(listed) if listed.id == data.id => Ok(data),
                _ => Err(exit::REMOVED),
            };
        }
        if birth == Birth::Seed {
            assert!(
                self.raft.cluster_id.is_none() || self.wanted.cluster_id.is_none(),
                "{name} would be a second seed"
            );
            return Ok(self.begin(name));
        }
        let Some(listed) = listed else {
            return Err(exit::REMOVED);
        };
        // The gate lets no member begin anew that has begun before. For one that votes it must not
        // come to that: only a learner's Pod may be given up with what lies in its memory.
        if self.raft.started.contains(&listed.id) {
            assert!(listed.learner, "{name} has forgotten what it said");
            return Err(exit::DATA_CORRUPT);
        }
        self.raft.started.insert(listed.id);
        Ok(Data {
            id: listed.id,
            index: 0,
            corrupt: false,
        })
    }

    fn begin(&mut self, name: &str) -> Data {
        self.counter += 1;
        let id = 1000 + self.counter;
        let commit = self.raft.commit;
        self.raft = super::Raft::default();
        self.log
            .push(format!("{name} begins a cluster ({commit} entries before)"));
        self.raft.cluster_id = Some(500 + self.counter);
        self.raft.started.insert(id);
        self.raft.members.push(ListedMember {
            id,
            name: name.to_owned(),
            learner: false,
        });
        Data {
            id,
            index: 0,
            corrupt: false,
        }
    }

    fn elect(&mut self) {
        let quorum = self.quorum();
        let stands = self.raft.leader.is_some_and(|leader| {
            self.voters()
                .any(|voter| voter.id == leader && self.votes(&voter.name))
        });
        if stands && quorum {
            return;
        }
        let up = self.voters().filter(|voter| self.votes(&voter.name));
        let best = up.max_by_key(|voter| self.data(&voter.name).map_or(0, |data| data.index));
        let best = best.map(|voter| (voter.id, self.data(&voter.name).map_or(0, |d| d.index)));
        self.raft.leader = best.filter(|_| quorum).map(|(id, index)| {
            assert!(index >= self.raft.commit, "an acknowledged write is lost");
            id
        });
    }

    fn replicate(&mut self) {
        if self.raft.leader.is_none() {
            return;
        }
        self.raft.commit += 7;
        let commit = self.raft.commit;
        let names: Vec<String> = self.raft.members.iter().map(|m| m.name.clone()).collect();
        for name in names {
            if self.votes(&name)
                && let Some(data) = self.data_mut(&name)
            {
                data.index = commit;
            }
        }
    }
}
