//! Putting one look together for the planner.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;
use rand::Rng as _;

use super::{Heard, Objects, claim_view, pod_view};
use crate::api::{MemberPhase, QuorateCluster, QuorateMember, StorageMedium};
use crate::model::{Cause, ClusterView, MemberView, Observed, Refusal, Storage};
use crate::objects::{self, Names};

/// How long a replacement counts, in seconds.
const REPLACEMENT_SECONDS: i64 = 3600;
/// How many characters of a member's name are random.
const NAME_RANDOM_CHARS: usize = 6;
/// The word of `status.phase` for a cluster whose Pods are gone and whose volumes stay.
const HIBERNATED: &str = "Hibernated";
const NAME_ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// What stands beside the objects of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// What the spec asks for and cannot be had.
    pub refusals: Vec<Refusal>,
    /// No Pod at all can be made now.
    pub blocks_pods: bool,
    /// The revision of the template that Pods should be made from.
    pub revision: String,
    /// Whether the version changes with it.
    pub upgrading: bool,
    /// Whether the storage class lets claims grow.
    pub expandable: Option<bool>,
    /// When space was last made, as far as this process remembers.
    pub space_freed: Option<Timestamp>,
}

/// One look, for the planner.
#[must_use]
pub fn assemble(
    cluster: &QuorateCluster,
    objects: &Objects,
    heard: &Heard,
    circumstances: Circumstances,
    now: Timestamp,
) -> Observed {
    let names = Names::new(cluster);
    let members = objects.members.iter().map(|(name, member)| {
        let pod = objects.pods.get(name).map(|pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            pod_view(pod, node.and_then(|node| objects.nodes.get(node)))
        });
        let claim = objects.claims.get(&names.claim(name)).map(claim_view);
        (name.clone(), member_view(member, pod, claim))
    });
    Observed {
        now,
        cluster: cluster_view(cluster, circumstances, now),
        members: members.collect(),
        listed: heard.listed.clone(),
        voices: heard.voices.clone(),
        alarms: heard.alarms.clone(),
        fresh_name: fresh_name(&names.cluster, &objects.members),
    }
}

fn cluster_view(
    cluster: &QuorateCluster,
    circumstances: Circumstances,
    now: Timestamp,
) -> ClusterView {
    let (spec, status) = (&cluster.spec, cluster.status.clone().unwrap_or_default());
    let recent = |time: &Timestamp| now.as_second() - time.as_second() < REPLACEMENT_SECONDS;
    let bytes = match spec.storage.medium {
        StorageMedium::Persistent => {
            objects::bytes("spec.storage.size", &spec.storage.size).unwrap_or(0)
        }
        StorageMedium::Memory => 0,
    };
    ClusterView {
        name: cluster.name_any(),
        namespace: cluster.namespace().unwrap_or_default(),
        deleting: cluster.metadata.deletion_timestamp.is_some(),
        lifecycle: spec.lifecycle,
        replicas: usize::try_from(spec.replicas).unwrap_or(0),
        cluster_id: status.cluster_id.as_deref().and_then(id_of),
        revision: circumstances.revision,
        upgrading: circumstances.upgrading,
        storage: Storage {
            bytes,
            expandable: circumstances.expandable,
            reclaim: spec.storage.reclaim,
        },
        replace_unhealthy_after_seconds: spec.healing.replace_unhealthy_after_seconds,
        max_replacements_per_hour: usize::try_from(spec.healing.max_replacements_per_hour)
            .unwrap_or(0),
        on_node_lost: spec.healing.on_node_lost,
        replacements: status
            .replacements
            .iter()
            .map(|time| time.0)
            .filter(recent)
            .collect(),
        was_hibernated: status.phase.as_deref() == Some(HIBERNATED),
        space_freed: circumstances.space_freed,
        operation: status.operation.map(|operation| {
            let since = operation.started_at.map_or(now, |time| time.0);
            (operation.kind, since)
        }),
        refusals: circumstances.refusals,
        blocks_pods: circumstances.blocks_pods,
    }
}

fn member_view(
    member: &QuorateMember,
    pod: Option<crate::model::PodView>,
    claim: Option<crate::model::ClaimView>,
) -> MemberView {
    let status = member.status.clone().unwrap_or_default();
    let created = member.metadata.creation_timestamp.as_ref();
    MemberView {
        created: created.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        birth: member.spec.birth,
        phase: status.phase,
        id: status.member_id.as_deref().and_then(id_of),
        initial_cluster: status.initial_cluster,
        leaving: status.leaving_reason.as_deref().and_then(Cause::of_reason),
        unhealthy_since: status.unhealthy_since.map(|time| time.0),
        claim_uid: status.claim_uid,
        pod,
        claim,
    }
}

/// Sixteen hexadecimal digits as an ID.
fn id_of(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// A name for the next member: random, so that it is new also among those that are gone.
fn fresh_name(cluster: &str, taken: &BTreeMap<String, QuorateMember>) -> String {
    let mut random = rand::rng();
    loop {
        let letters = (0..NAME_RANDOM_CHARS)
            .map(|_| char::from(NAME_ALPHABET[random.random_range(0..NAME_ALPHABET.len())]));
        let name = format!("{cluster}-{}", letters.collect::<String>());
        if !taken.contains_key(&name) {
            return name;
        }
    }
}

/// Whether a member's health has flipped: the time to latch since which it is unhealthy, or that
/// it is well again. None: as before.
#[must_use]
pub fn health_flip(
    member: &MemberView,
    healthy: bool,
    now: Timestamp,
) -> Option<Option<Timestamp>> {
    // A member that was never up, or leaves, is no patient.
    if member.phase != MemberPhase::Admitted {
        return None;
    }
    match (healthy, member.unhealthy_since) {
        (true, Some(_)) => Some(None),
        (false, None) => Some(Some(now)),
        _ => None,
    }
}
