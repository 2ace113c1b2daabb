//! What the operator does to the world, whole or half.

use std::collections::BTreeMap;

use quorate_operator::api::{Birth, MemberPhase};
use quorate_operator::model::{Action, AlarmKind, Cause, ListedMember};

use super::{Claim, GIB, Object, Pod, World};

impl World {
    /// Carries out an action. Updates of objects that changed since the look are refused, as the
    /// API server does; deletions name a UID; calls to members name an ID.
    pub fn act(&mut self, action: &Action, versions: &BTreeMap<String, u64>, half: bool) {
        match action {
            Action::CreateSeed { name } => self.create(name, Birth::Seed),
            Action::CreateJoiner { name } => self.create(name, Birth::Join),
            Action::AdmitSeed { name } => {
                let first = format!("{name}=url");
                self.latch(name, versions, |object, uid| {
                    object.phase = MemberPhase::Admitted;
                    object.initial_cluster = Some(first);
                    object.claim_uid = uid;
                });
            }
            Action::AdmitJoiner { name } => self.admit(name, versions, half),
            Action::LatchClusterId { id } => self.wanted.cluster_id = Some(*id),
            Action::LatchMemberId { name, id } => {
                self.latch(name, versions, |object, _| object.id = Some(*id));
            }
            Action::CreateClaim { name } => self.create_claim(name),
            Action::CreatePod { name } => self.create_pod(name),
            Action::DeletePod { name, uid, .. } => {
                let pod = self.pods.get_mut(name).filter(|pod| pod.uid == *uid);
                if let Some(pod) = pod {
                    pod.deleting = true;
                    pod.running = false;
                }
            }
            Action::ExpandClaim { name, bytes } => {
                if let Some(claim) = self.claims.get_mut(name) {
                    claim.requested = *bytes;
                }
            }
            Action::Promote { id, .. } => self.promote(*id),
            Action::MoveLeader { to, .. } => {
                let fit = self.voters().any(|v| v.id == *to && self.votes(&v.name));
                if fit && self.quorum() {
                    self.raft.leader = Some(*to);
                }
            }
            Action::Retire {
                name,
                cause,
                replacement,
            } => {
                self.retire(name, *cause, *replacement, versions, half);
            }
            Action::RemoveMember { id, .. } => self.remove(*id),
            Action::DropMember { name, delete_claim } => {
                if !half && self.objects.get(name).map(|o| o.version) == versions.get(name).copied()
                {
                    self.objects.remove(name);
                }
                if let Some(pod) = self.pods.get_mut(name) {
                    pod.deleting = true;
                    pod.running = false;
                }
                if *delete_claim && let Some(claim) = self.claims.get_mut(name) {
                    claim.deleting = true;
                }
            }
            Action::FreeSpace => {
                self.wanted.space_freed = Some(self.now);
                if !half {
                    self.raft
                        .alarms
                        .retain(|(_, kind)| *kind == AlarmKind::Corrupt);
                }
            }
            Action::Release => self.wanted.released = true,
        }
    }

    fn create(&mut self, name: &str, birth: Birth) {
        assert!(self.names.insert(name.to_owned()), "{name} is used again");
        let object = Object {
            version: 0,
            created: self.now,
            birth,
            phase: MemberPhase::Pending,
            leaving: None,
            id: None,
            initial_cluster: None,
            claim_uid: None,
            unhealthy_since: None,
        };
        self.objects.insert(name.to_owned(), object);
    }

    fn latch(
        &mut self,
        name: &str,
        versions: &BTreeMap<String, u64>,
        change: impl FnOnce(&mut Object, Option<String>),
    ) {
        let uid = self.claims.get(name).map(|claim| claim.uid.clone());
        let Some(object) = self.objects.get_mut(name) else {
            return;
        };
        if versions.get(name) == Some(&object.version) {
            change(object, uid);
            object.version += 1;
        }
    }

    fn admit(&mut self, name: &str, versions: &BTreeMap<String, u64>, half: bool) {
        if !self.quorum() {
            return;
        }
        let id = if let Some(listed) = self.member(name) {
            listed.id
        } else {
            self.counter += 1;
            let id = 1000 + self.counter;
            self.raft.members.push(ListedMember {
                id,
                name: name.to_owned(),
                learner: true,
            });
            id
        };
        let learners = self.raft.members.iter().filter(|member| member.learner);
        assert!(learners.count() <= 1, "more than one learner");
        if half {
            return;
        }
        let all: Vec<_> = self
            .raft
            .members
            .iter()
            .map(|member| member.name.clone())
            .collect();
        self.latch(name, versions, |object, uid| {
            object.phase = MemberPhase::Admitted;
            object.id = Some(id);
            object.initial_cluster = Some(all.join(","));
            object.claim_uid = uid;
        });
    }

    fn create_claim(&mut self, name: &str) {
        let (requested, uid) = (self.wanted.bytes.max(GIB), self.fresh("uid"));
        if !self.claims.contains_key(name) && self.objects.contains_key(name) {
            let claim = Claim {
                uid,
                requested,
                capacity: 0,
                lost: false,
                deleting: false,
                data: None,
            };
            self.claims.insert(name.to_owned(), claim);
        }
    }

    fn create_pod(&mut self, name: &str) {
        let (revision, uid) = (self.wanted.revision, self.fresh("uid"));
        if self.pods.contains_key(name) || !self.objects.contains_key(name) {
            return;
        }
        let pod = Pod {
            uid,
            revision,
            node: None,
            deleting: false,
            failed: false,
            gate_exit: None,
            waiting: None,
            starting: (self.counter % 3) as u32,
            running: false,
            ready_since: None,
            memory: None,
            cut_off: 0,
        };
        self.pods.insert(name.to_owned(), pod);
    }

    fn promote(&mut self, id: u64) {
        let commit = self.raft.commit;
        let quorum = self.quorum();
        let index = |name: &str| self.data(name).map_or(0, |data| data.index);
        let fit = self.raft.members.iter().position(|member| {
            let level = index(&member.name) >= commit && self.votes(&member.name);
            member.id == id && level && quorum
        });
        if let Some(at) = fit {
            self.raft.members[at].learner = false;
        }
    }

    fn retire(
        &mut self,
        name: &str,
        cause: Cause,
        replacement: bool,
        versions: &BTreeMap<String, u64>,
        half: bool,
    ) {
        if replacement {
            self.wanted.replacements.push(self.now);
        }
        if !half {
            self.latch(name, versions, |object, _| {
                object.phase = MemberPhase::Leaving;
                object.leaving = Some(cause);
            });
        }
    }

    pub fn remove(&mut self, id: u64) {
        if !self.quorum() || self.raft.removed.contains(&id) {
            return;
        }
        let name = self.raft.members.iter().find(|member| member.id == id);
        let name = name.map(|member| member.name.clone());
        self.raft.members.retain(|member| member.id != id);
        self.raft.alarms.retain(|(member, _)| *member != id);
        self.raft.removed.insert(id);
        if self.raft.leader == Some(id) {
            self.raft.leader = None;
        }
        // A removed member ends itself; its gate lets it start no more.
        if let Some(pod) = name.and_then(|name| self.pods.get_mut(&name)) {
            pod.running = false;
            pod.ready_since = None;
        }
    }
}
