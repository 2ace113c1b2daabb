//! The Pod of a member.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Pod, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec, SeccompProfile,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use quorate_sidecar::wire::RestoreRequest;

use super::containers::Parts;
use super::volumes::Volumes;
use super::{Names, Peer, Settings, VERSION_ANNOTATION, image, labels, template_revision, version};
use crate::api::{
    Birth, MemberRole, PodSettings, QuorateCluster, QuorateMember, REVISION_ANNOTATION, ROLE_LABEL,
};
use crate::model::Refusal;

/// The user and group of everything in the Pod.
const USER: i64 = 65532;
const GRACE_SECONDS: i64 = 60;
const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// The Pod of a member, from the template at hand. `peers` are the other members, as far as they
/// are known; `restore` is what [`super::restore_request`] says, and counts for a seed that has
/// no ID yet.
///
/// # Errors
/// Something in the spec is none: an image, a quantity, a flag. Or the member was not admitted.
pub fn pod(
    cluster: &QuorateCluster,
    member: &QuorateMember,
    settings: &Settings,
    peers: &[Peer],
    restore: Option<&RestoreRequest>,
) -> Result<Pod, Refusal> {
    let mut pod = template(cluster, member, settings, peers, restore)?;
    let revision = template_revision(cluster, settings)?;
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(REVISION_ANNOTATION.to_owned(), revision);
    let all = pod.metadata.labels.get_or_insert_default();
    all.insert(ROLE_LABEL.to_owned(), role(cluster, member).to_owned());
    Ok(pod)
}

/// What the label says of a Pod that is made now; it changes with a promotion.
fn role(cluster: &QuorateCluster, member: &QuorateMember) -> &'static str {
    let known = cluster.status.iter().flat_map(|status| &status.members);
    let name = member.name_any();
    let votes = known
        .filter(|known| known.name == name)
        .any(|known| matches!(known.role, MemberRole::Leader | MemberRole::Voter));
    match votes || member.spec.birth == Birth::Seed {
        true => "voter",
        false => "learner",
    }
}

/// The Pod but for what says that it was made: its revision, its role.
pub(super) fn template(
    cluster: &QuorateCluster,
    member: &QuorateMember,
    settings: &Settings,
    peers: &[Peer],
    restore: Option<&RestoreRequest>,
) -> Result<Pod, Refusal> {
    let names = Names::new(cluster);
    let name = member.name_any();
    let restore = restore_now(cluster, member, restore)?;
    let volumes = Volumes::new(cluster, member, restore);
    let parts = Parts {
        cluster,
        member,
        image: image(cluster, settings)?,
        volumes: &volumes,
        peers,
        restore,
    };
    let gate = parts.gate()?;
    let containers = vec![parts.quorate()?, parts.sidecar()];
    let wanted = &cluster.spec.pod;
    let mut metadata = labels::member_meta(cluster, member, name.clone());
    metadata.labels = Some(labels_of(
        wanted,
        metadata.labels.take().unwrap_or_default(),
    ));
    metadata.annotations = Some(annotations_of(wanted, version(cluster, settings)));
    let pull_secrets = cluster.spec.image.pull_secrets.clone();
    Ok(Pod {
        metadata,
        spec: Some(PodSpec {
            init_containers: Some(vec![gate]),
            containers,
            hostname: Some(name),
            subdomain: Some(names.peer_service()),
            volumes: Some(volumes.into_volumes()),
            security_context: Some(security()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some("Always".to_owned()),
            termination_grace_period_seconds: Some(
                wanted
                    .termination_grace_period_seconds
                    .unwrap_or(GRACE_SECONDS),
            ),
            affinity: Some(affinity(wanted, &names.cluster)),
            topology_spread_constraints: Some(spread(wanted, &names.cluster)),
            tolerations: some_if_any(wanted.tolerations.clone()),
            node_selector: Some(wanted.node_selector.clone()).filter(|all| !all.is_empty()),
            priority_class_name: wanted.priority_class_name.clone(),
            image_pull_secrets: some_if_any(pull_secrets),
            ..PodSpec::default()
        }),
        status: None,
    })
}

fn some_if_any<T>(all: Vec<T>) -> Option<Vec<T>> {
    (!all.is_empty()).then_some(all)
}

/// What a Pod starts from now: a seed's first start only. Later its data directory is what counts,
/// and neither the store nor its credentials need to be there any more.
fn restore_now<'a>(
    cluster: &QuorateCluster,
    member: &QuorateMember,
    restore: Option<&'a RestoreRequest>,
) -> Result<Option<&'a RestoreRequest>, Refusal> {
    let started = member.status.as_ref();
    let started = started.is_some_and(|status| status.member_id.is_some());
    if member.spec.birth != Birth::Seed || started || cluster.spec.bootstrap.is_none() {
        return Ok(None);
    }
    restore.map(Some).ok_or_else(|| Refusal {
        reason: "InvalidReference".to_owned(),
        message: "spec.bootstrap.fromBackup is not resolved yet: the cluster does not begin empty \
                  instead"
            .to_owned(),
    })
}

fn labels_of(wanted: &PodSettings, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = wanted.labels.clone();
    all.extend(own);
    all
}

fn annotations_of(wanted: &PodSettings, version: String) -> BTreeMap<String, String> {
    let mut all = wanted.annotations.clone();
    all.insert(VERSION_ANNOTATION.to_owned(), version);
    all.insert(
        "kubectl.kubernetes.io/default-container".to_owned(),
        "quorate".to_owned(),
    );
    all
}

fn security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // A volume of millions of files is not walked at each start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn selector(cluster: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels::selector(cluster)),
        ..LabelSelector::default()
    }
}

fn affinity(wanted: &PodSettings, cluster: &str) -> Affinity {
    let own_nodes = || Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm {
                    weight: 100,
                    pod_affinity_term: PodAffinityTerm {
                        label_selector: Some(selector(cluster)),
                        topology_key: HOST.to_owned(),
                        ..PodAffinityTerm::default()
                    },
                },
            ]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    };
    wanted.affinity.clone().unwrap_or_else(own_nodes)
}

fn spread(wanted: &PodSettings, cluster: &str) -> Vec<TopologySpreadConstraint> {
    if !wanted.topology_spread_constraints.is_empty() {
        return wanted.topology_spread_constraints.clone();
    }
    let over = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector(cluster)),
        ..TopologySpreadConstraint::default()
    };
    vec![over(ZONE), over(HOST)]
}

#[cfg(test)]
#[path = "pod_test.rs"]
mod pod_test;
