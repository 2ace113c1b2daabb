//! What users, machines and chance do to the world.

use proptest::prelude::*;
use quorate_operator::api::{Lifecycle, MemberPhase, NodeLoss};
use quorate_operator::model::{AlarmKind, Refusal};

use super::{GIB, Stale, World};

/// What a world begins with.
#[derive(Debug, Clone)]
pub struct Setting {
    pub replicas: usize,
    pub memory: bool,
    pub expandable: bool,
    pub most_replacements: usize,
}

pub fn setting() -> impl Strategy<Value = Setting> {
    let sizes = prop_oneof![1 => Just(1usize), 4 => Just(3), 2 => Just(5), 1 => Just(7)];
    let most = prop_oneof![Just(1usize), Just(3), Just(100)];
    (sizes, prop::bool::weighted(0.2), any::<bool>(), most).prop_map(
        |(replicas, memory, expandable, most_replacements)| Setting {
            replicas: if memory { replicas.max(3) } else { replicas },
            memory,
            expandable,
            most_replacements,
        },
    )
}

/// One thing that happens; numbers choose a member or a node.
#[derive(Debug, Clone)]
pub enum Fault {
    Steps(u8),
    KillPod(u8),
    FailPod(u8),
    CrashContainer(u8),
    DeleteClaim(u8),
    LoseVolume(u8),
    Corrupt(u8),
    NodeDown(u8),
    NodeUp(u8),
    CutOff(u8, u8),
    RemoveObject(u8),
    RemoveByHand(u8),
    Replicas(usize),
    Roll,
    BadImage,
    BadConfig,
    Grow,
    Refuse(bool),
    Mend,
    NoSpace(u8),
    Lifecycle(Lifecycle),
    OnNodeLost(NodeLoss),
    KillOperator,
    HalfDone,
    StaleLook(bool),
}

pub fn fault() -> impl Strategy<Value = Fault> {
    let lifecycle = prop_oneof![
        2 => Just(Lifecycle::Running),
        1 => Just(Lifecycle::Paused),
        1 => Just(Lifecycle::Hibernated),
    ];
    let replicas = prop_oneof![Just(1usize), Just(3), Just(5), Just(7)];
    let user = prop_oneof![
        4 => replicas.prop_map(Fault::Replicas),
        4 => Just(Fault::Roll),
        1 => Just(Fault::BadImage),
        1 => Just(Fault::BadConfig),
        2 => Just(Fault::Grow),
        1 => any::<bool>().prop_map(Fault::Refuse),
        4 => Just(Fault::Mend),
        2 => lifecycle.prop_map(Fault::Lifecycle),
        1 => prop_oneof![Just(NodeLoss::Wait), Just(NodeLoss::Replace)].prop_map(Fault::OnNodeLost),
        1 => any::<u8>().prop_map(Fault::RemoveObject),
        1 => any::<u8>().prop_map(Fault::RemoveByHand),
    ];
    let machine = prop_oneof![
        4 => any::<u8>().prop_map(Fault::KillPod),
        2 => any::<u8>().prop_map(Fault::FailPod),
        2 => any::<u8>().prop_map(Fault::CrashContainer),
        2 => any::<u8>().prop_map(Fault::DeleteClaim),
        1 => any::<u8>().prop_map(Fault::LoseVolume),
        2 => any::<u8>().prop_map(Fault::Corrupt),
        2 => any::<u8>().prop_map(Fault::NodeDown),
        3 => any::<u8>().prop_map(Fault::NodeUp),
        2 => (any::<u8>(), 1u8..60).prop_map(|(member, ticks)| Fault::CutOff(member, ticks)),
        1 => any::<u8>().prop_map(Fault::NoSpace),
    ];
    let operator = prop_oneof![
        Just(Fault::KillOperator),
        Just(Fault::HalfDone),
        any::<bool>().prop_map(Fault::StaleLook),
    ];
    prop_oneof![
        8 => (1u8..40).prop_map(Fault::Steps),
        4 => user,
        5 => machine,
        4 => operator,
    ]
}

impl World {
    fn pick(&self, number: u8) -> Option<String> {
        let names: Vec<_> = self.objects.keys().collect();
        let at = usize::from(number).checked_rem(names.len())?;
        Some(names[at].clone())
    }

    /// Whether enough copies of what was acknowledged are left if this member's go, and if nodes
    /// that are down stay down.
    fn expendable(&self, name: &str) -> bool {
        let copies = self.voters().filter(|voter| {
            let data = self.data(&voter.name);
            let whole = data.is_some_and(|d| !d.corrupt && d.index >= self.raft.commit);
            let kept = self
                .claims
                .get(&voter.name)
                .is_none_or(|c| !c.deleting && !c.lost);
            let pod = self.pods.get(&voter.name);
            let held = !self.memory() || pod.is_some_and(|p| !p.failed && !p.deleting);
            let object = self.objects.get(&voter.name);
            let stays = object.is_some_and(|o| o.phase == MemberPhase::Admitted);
            whole && kept && held && stays && voter.name != name
        });
        copies.count() > self.voters().count() / 2
    }

    /// Lets something happen. What nobody could recover from is left out unless `ruthless`.
    pub fn suffer(&mut self, fault: &Fault, ruthless: bool) {
        self.log.push(format!("{fault:?}"));
        match fault {
            Fault::Steps(steps) => (0..*steps).for_each(|_| drop(self.step())),
            Fault::NodeDown(number) => {
                let node = usize::from(*number) % self.nodes.len();
                self.nodes[node] = false;
            }
            Fault::NodeUp(number) => {
                let node = usize::from(*number) % self.nodes.len();
                self.node_up_again(node);
            }
            Fault::KillOperator => self.killed = true,
            Fault::HalfDone => self.half_done = true,
            Fault::StaleLook(all) => {
                self.stale = Some(if *all { Stale::All } else { Stale::Objects });
            }
            Fault::NoSpace(number) => {
                if let Some(member) = self.raft.members.first() {
                    let id = member.id + u64::from(*number % 2);
                    self.raft.alarms.push((id, AlarmKind::NoSpace));
                }
            }
            Fault::KillPod(number)
            | Fault::FailPod(number)
            | Fault::CrashContainer(number)
            | Fault::DeleteClaim(number)
            | Fault::LoseVolume(number)
            | Fault::Corrupt(number)
            | Fault::CutOff(number, _)
            | Fault::RemoveObject(number)
            | Fault::RemoveByHand(number) => {
                if let Some(name) = self.pick(*number) {
                    self.hurt(&name, fault, ruthless);
                }
            }
            _ => self.edit(fault),
        }
    }

    fn node_up_again(&mut self, node: usize) {
        self.nodes[node] = true;
        for pod in self.pods.values_mut().filter(|pod| pod.node == Some(node)) {
            // Its kubelet finds containers gone and starts them anew.
            pod.running = false;
            pod.starting = 1;
        }
    }

    fn hurt(&mut self, name: &str, fault: &Fault, ruthless: bool) {
        let spared = !ruthless && !self.expendable(name);
        let deadly = match fault {
            Fault::KillPod(_) | Fault::FailPod(_) => self.memory(),
            Fault::CrashContainer(_) | Fault::CutOff(..) => false,
            _ => true,
        };
        if deadly && spared && self.member(name).is_some() {
            return;
        }
        match fault {
            Fault::RemoveObject(_) => {
                self.objects.remove(name);
                self.claims.remove(name);
                self.pods.remove(name);
            }
            Fault::RemoveByHand(_) => {
                let id = self.member(name).map(|member| member.id);
                let last = self.voters().count() < 2;
                if let Some(id) = id.filter(|_| !last) {
                    self.remove(id);
                }
            }
            Fault::KillPod(_) => drop(self.pods.remove(name)),
            Fault::DeleteClaim(_) => {
                if let Some(claim) = self.claims.get_mut(name) {
                    claim.deleting = true;
                }
            }
            Fault::LoseVolume(_) => {
                if let Some(claim) = self.claims.get_mut(name) {
                    claim.lost = true;
                    claim.data = None;
                    self.stop(name);
                }
            }
            Fault::Corrupt(number) => {
                let id = self.data(name).map(|data| data.id);
                if let Some(data) = self.data_mut(name) {
                    data.corrupt = true;
                }
                if number % 2 == 0 {
                    self.stop(name);
                } else if let Some(id) = id {
                    self.raft.alarms.push((id, AlarmKind::Corrupt));
                }
            }
            _ => self.hurt_pod(name, fault),
        }
    }

    fn hurt_pod(&mut self, name: &str, fault: &Fault) {
        let Some(pod) = self.pods.get_mut(name) else {
            return;
        };
        match fault {
            Fault::FailPod(_) => {
                pod.failed = true;
                pod.running = false;
            }
            Fault::CutOff(_, ticks) => pod.cut_off = u32::from(*ticks),
            _ => {
                pod.running = false;
                pod.starting = 2;
            }
        }
    }

    fn stop(&mut self, name: &str) {
        if let Some(pod) = self.pods.get_mut(name) {
            pod.running = false;
        }
    }

    fn edit(&mut self, fault: &Fault) {
        match fault {
            Fault::Replicas(replicas) => {
                let least = if self.memory() { 3 } else { 1 };
                self.wanted.replicas = (*replicas).max(least);
            }
            Fault::Roll => self.wanted.revision += 1,
            Fault::BadImage => {
                self.wanted.revision += 1;
                self.bad_images.insert(self.wanted.revision);
            }
            Fault::BadConfig => {
                self.wanted.revision += 1;
                self.bad_configs.insert(self.wanted.revision);
            }
            Fault::Grow if !self.memory() => self.wanted.bytes += GIB,
            Fault::Refuse(blocks) => {
                let reason = "InvalidReference".to_owned();
                let message = "the Secret x is missing: make it".to_owned();
                self.wanted.refusals = vec![Refusal { reason, message }];
                self.wanted.blocks_pods = *blocks;
            }
            Fault::Mend => self.mend(),
            Fault::Lifecycle(lifecycle) => self.wanted.lifecycle = *lifecycle,
            Fault::OnNodeLost(what) => self.wanted.on_node_lost = *what,
            _ => {}
        }
    }

    /// The spec is as it should be.
    pub fn mend(&mut self) {
        let revision = self.wanted.revision;
        if self.bad_images.contains(&revision) || self.bad_configs.contains(&revision) {
            self.wanted.revision += 1;
        }
        self.wanted.refusals.clear();
        self.wanted.blocks_pods = false;
    }

    /// All that hurts ends.
    pub fn heal(&mut self) {
        self.mend();
        self.wanted.lifecycle = Lifecycle::Running;
        self.wanted.expandable = true;
        self.wanted.on_node_lost = NodeLoss::Replace;
        (self.killed, self.half_done, self.stale) = (false, false, None);
        for node in 0..self.nodes.len() {
            if !self.nodes[node] {
                self.node_up_again(node);
            }
        }
        self.pods.values_mut().for_each(|pod| pod.cut_off = 0);
    }
}
