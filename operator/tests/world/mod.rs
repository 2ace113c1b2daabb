//! A model of everything around the planner: Raft, Kubernetes, nodes, volumes, a user, and an
//! operator that may be killed at any moment or look at what is no longer true.

mod act;
mod blind;
mod faults;
mod look;
mod rules;
mod tick;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use quorate_operator::api::{Birth, Lifecycle, MemberPhase, NodeLoss, OperationKind, Reclaim};
use quorate_operator::model::{
    AlarmKind, Cause, ClusterView, ListedMember, Observed, Plan, Refusal, Storage,
};
use quorate_operator::plan::plan;

pub use blind::Blind;
pub use faults::{Setting, fault, setting};

pub const GIB: u64 = 1 << 30;
pub const PATIENCE: i64 = 60;

/// What a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    pub id: u64,
    pub index: u64,
    pub corrupt: bool,
}

/// A `QuorateMember`.
#[derive(Debug, Clone)]
pub struct Object {
    pub version: u64,
    pub created: Timestamp,
    pub birth: Birth,
    pub phase: MemberPhase,
    pub leaving: Option<Cause>,
    pub id: Option<u64>,
    pub initial_cluster: Option<String>,
    pub claim_uid: Option<String>,
    pub unhealthy_since: Option<Timestamp>,
}

/// A Pod; `memory` is what lies in its memory.
#[derive(Debug, Clone)]
pub struct Pod {
    pub uid: String,
    pub revision: u64,
    pub node: Option<usize>,
    pub deleting: bool,
    pub failed: bool,
    pub gate_exit: Option<i32>,
    pub waiting: Option<String>,
    /// Ticks until the process runs.
    pub starting: u32,
    pub running: bool,
    pub ready_since: Option<Timestamp>,
    pub memory: Option<Data>,
    /// Ticks for which nobody reaches it.
    pub cut_off: u32,
}

/// A claim with its volume.
#[derive(Debug, Clone)]
pub struct Claim {
    pub uid: String,
    pub requested: u64,
    pub capacity: u64,
    pub lost: bool,
    pub deleting: bool,
    pub data: Option<Data>,
}

/// The cluster as Raft has it.
#[derive(Debug, Default)]
pub struct Raft {
    pub cluster_id: Option<u64>,
    pub members: Vec<ListedMember>,
    pub leader: Option<u64>,
    /// The last entry that was acknowledged.
    pub commit: u64,
    /// Members that ever started, and those that were removed.
    pub started: BTreeSet<u64>,
    pub removed: BTreeSet<u64>,
    pub alarms: Vec<(u64, AlarmKind)>,
}

/// What the user wants, and what the status of the cluster holds.
#[derive(Debug)]
pub struct Wanted {
    pub replicas: usize,
    pub lifecycle: Lifecycle,
    pub revision: u64,
    pub bytes: u64,
    pub expandable: bool,
    pub on_node_lost: NodeLoss,
    pub refusals: Vec<Refusal>,
    pub blocks_pods: bool,
    pub deleting: bool,
    pub released: bool,
    pub cluster_id: Option<u64>,
    pub replacements: Vec<Timestamp>,
    pub most_replacements: usize,
    pub operation: Option<(OperationKind, Timestamp)>,
    pub was_hibernated: bool,
    pub space_freed: Option<Timestamp>,
}

pub struct World {
    pub now: Timestamp,
    pub wanted: Wanted,
    pub objects: BTreeMap<String, Object>,
    pub pods: BTreeMap<String, Pod>,
    pub claims: BTreeMap<String, Claim>,
    pub nodes: Vec<bool>,
    pub raft: Raft,
    /// Revisions of the template whose image cannot be pulled, or whose process crashes.
    pub bad_images: BTreeSet<u64>,
    pub bad_configs: BTreeSet<u64>,
    pub names: BTreeSet<String>,
    pub counter: u64,
    /// The look before the last action, and versions of the objects in it.
    pub old_look: Option<(Observed, BTreeMap<String, u64>)>,
    /// How the next look and the next action go wrong.
    pub stale: Option<Stale>,
    pub half_done: bool,
    pub killed: bool,
    /// What the planner is not shown, to see whether these rules find out.
    pub blind: Option<Blind>,
    pub log: Vec<String>,
}

/// What is old in a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    All,
    Objects,
}

impl World {
    pub fn new(setting: &Setting) -> Self {
        let wanted = Wanted {
            replicas: setting.replicas,
            lifecycle: Lifecycle::Running,
            revision: 1,
            bytes: if setting.memory { 0 } else { GIB },
            expandable: setting.expandable,
            on_node_lost: NodeLoss::Replace,
            refusals: Vec::new(),
            blocks_pods: false,
            deleting: false,
            released: false,
            cluster_id: None,
            replacements: Vec::new(),
            most_replacements: setting.most_replacements,
            operation: None,
            was_hibernated: false,
            space_freed: None,
        };
        Self {
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            wanted,
            objects: BTreeMap::new(),
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
            nodes: vec![true; 9],
            raft: Raft::default(),
            bad_images: BTreeSet::new(),
            bad_configs: BTreeSet::new(),
            names: BTreeSet::new(),
            counter: 0,
            old_look: None,
            stale: None,
            half_done: false,
            killed: false,
            blind: None,
            log: Vec::new(),
        }
    }

    pub fn memory(&self) -> bool {
        self.wanted.bytes == 0
    }

    pub fn fresh(&mut self, what: &str) -> String {
        self.counter += 1;
        // Names do not sort by age.
        format!("{what}-{:02}{}", (self.counter * 37) % 97, self.counter)
    }

    pub fn member(&self, name: &str) -> Option<&ListedMember> {
        self.raft.members.iter().find(|member| member.name == name)
    }

    pub fn data(&self, name: &str) -> Option<&Data> {
        if self.memory() {
            self.pods.get(name)?.memory.as_ref()
        } else {
            self.claims.get(name)?.data.as_ref()
        }
    }

    pub fn data_mut(&mut self, name: &str) -> Option<&mut Data> {
        if self.memory() {
            self.pods.get_mut(name)?.memory.as_mut()
        } else {
            self.claims.get_mut(name)?.data.as_mut()
        }
    }

    pub fn node_up(&self, pod: &Pod) -> bool {
        pod.node.is_some_and(|node| self.nodes[node])
    }

    /// Whether a member's process runs and can be reached.
    pub fn reachable(&self, name: &str) -> bool {
        let pod = self.pods.get(name);
        pod.is_some_and(|pod| pod.running && pod.cut_off == 0 && self.node_up(pod))
    }

    pub fn votes(&self, name: &str) -> bool {
        let data = self.data(name);
        let own = data
            .zip(self.member(name))
            .is_some_and(|(d, m)| d.id == m.id);
        self.reachable(name) && own
    }

    pub fn voters(&self) -> impl Iterator<Item = &ListedMember> {
        self.raft.members.iter().filter(|member| !member.learner)
    }

    pub fn quorum(&self) -> bool {
        let all = self.voters().count();
        let up = self
            .voters()
            .filter(|voter| self.votes(&voter.name))
            .count();
        all > 0 && up > all / 2
    }

    /// One look, one action, and the time until the next.
    pub fn step(&mut self) -> Plan {
        self.tick();
        let look = self.look();
        let versions: BTreeMap<_, _> = self
            .objects
            .iter()
            .map(|(name, object)| (name.clone(), object.version))
            .collect();
        let (seen, seen_versions) = match (self.stale.take(), self.old_look.clone()) {
            (Some(Stale::All), Some((old, versions))) => {
                let fresh_name = look.fresh_name.clone();
                (Observed { fresh_name, ..old }, versions)
            }
            (Some(Stale::Objects), Some((old, versions))) => {
                let seen = Observed {
                    members: old.members,
                    cluster: old.cluster,
                    ..look.clone()
                };
                (seen, versions)
            }
            _ => (look.clone(), versions.clone()),
        };
        let fresh = seen == look;
        let plan = plan(&self.overlook(seen.clone()));
        let how = if fresh { "" } else { "STALE " };
        self.note(format!(
            "{how}{:?} {:?} {:?}",
            plan.action, plan.blocked_by, plan.stalled
        ));
        self.old_look = Some((look, versions));
        self.check(&seen, &plan, fresh);
        if !std::mem::take(&mut self.killed) {
            self.report(&plan);
            if let Some(action) = &plan.action {
                let half = std::mem::take(&mut self.half_done);
                self.act(action, &seen_versions, half);
            }
        }
        let pause = plan.look_again.as_secs().max(1);
        let exhausted = plan
            .stalled
            .as_ref()
            .is_some_and(|s| s.reason == "ReplacementsExhausted");
        let pause = if exhausted { 600 } else { pause };
        self.now += SignedDuration::from_secs(pause as i64);
        self.old_alarms();
        plan
    }

    /// Keeps a line for what a failure prints, unless it is the last one again.
    pub fn note(&mut self, line: String) {
        if self.log.last() != Some(&line) {
            self.log.push(line);
        }
    }

    /// What status keeps of a plan.
    fn report(&mut self, plan: &Plan) {
        let old = self.wanted.operation;
        self.wanted.operation = plan.operation.as_ref().map(|(kind, _, _)| match old {
            Some((before, since)) if before == *kind => (before, since),
            _ => (*kind, self.now),
        });
        let resting = self.wanted.lifecycle == Lifecycle::Hibernated && self.pods.is_empty();
        let resumed = plan.operation.is_none()
            || self
                .wanted
                .operation
                .is_some_and(|(kind, _)| kind != OperationKind::Hibernating);
        if resting {
            self.wanted.was_hibernated = true;
        } else if self.wanted.lifecycle == Lifecycle::Running && resumed && plan.action.is_none() {
            self.wanted.was_hibernated = false;
        }
    }

    fn old_alarms(&mut self) {
        let hour = SignedDuration::from_hours(1);
        let now = self.now;
        self.wanted
            .replacements
            .retain(|at| now.duration_since(*at) < hour);
    }

    pub fn cluster_view(&self) -> ClusterView {
        let revisions = self
            .pods
            .values()
            .any(|pod| pod.revision + 1 == self.wanted.revision);
        ClusterView {
            name: "c".to_owned(),
            namespace: "n".to_owned(),
            deleting: self.wanted.deleting,
            lifecycle: self.wanted.lifecycle,
            replicas: self.wanted.replicas,
            cluster_id: self.wanted.cluster_id,
            revision: self.wanted.revision.to_string(),
            upgrading: revisions && self.wanted.revision.is_multiple_of(2),
            storage: Storage {
                bytes: self.wanted.bytes,
                expandable: Some(self.wanted.expandable),
                reclaim: Reclaim::Delete,
            },
            replace_unhealthy_after_seconds: PATIENCE,
            max_replacements_per_hour: self.wanted.most_replacements,
            on_node_lost: self.wanted.on_node_lost,
            replacements: self.wanted.replacements.clone(),
            space_freed: self.wanted.space_freed,
            was_hibernated: self.wanted.was_hibernated,
            operation: self.wanted.operation,
            refusals: self.wanted.refusals.clone(),
            blocks_pods: self.wanted.blocks_pods,
        }
    }

    /// As many healthy voters as are wanted, all as they should be, and nothing else.
    pub fn converged(&self) -> bool {
        let revision = self.wanted.revision;
        let voters = self.voters().count();
        let all = self.raft.members.iter().all(|member| {
            let pod = self.pods.get(&member.name);
            let current = pod.is_some_and(|pod| {
                pod.revision == revision && pod.ready_since.is_some() && !pod.deleting
            });
            let admitted = self.objects.get(&member.name);
            let admitted = admitted.is_some_and(|o| o.phase == MemberPhase::Admitted);
            let large = self.memory()
                || self
                    .claims
                    .get(&member.name)
                    .is_some_and(|c| c.capacity >= self.wanted.bytes);
            current && admitted && large && self.votes(&member.name) && !member.learner
        });
        all && voters == self.wanted.replicas
            && self.objects.len() == voters
            && self.pods.len() == voters
    }
}
