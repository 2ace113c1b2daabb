//! Labels and owners of what the operator makes.
//!
//! The cluster owns its Services, Secrets, budget, policy, monitoring and `QuorateMember`s; a
//! `QuorateMember` owns its Pod and, with reclaim `Delete`, its claim. Claims with reclaim
//! `Retain` have no owner: the garbage collector would delete data that must survive the cluster.
//! They are found by their labels alone.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use super::Names;
use crate::api::{CLUSTER_LABEL, MEMBER_LABEL, QuorateCluster, QuorateMember};

/// Labels by which people and tools find what belongs together.
pub fn of_cluster(cluster: &str) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "quorate"),
        ("app.kubernetes.io/instance", cluster),
        ("app.kubernetes.io/managed-by", "quorate-operator"),
        (CLUSTER_LABEL, cluster),
    ];
    owned(&labels)
}

/// Labels of what belongs to one member.
pub fn of_member(cluster: &str, member: &str) -> BTreeMap<String, String> {
    let mut labels = of_cluster(cluster);
    labels.extend(owned(&[
        ("app.kubernetes.io/component", "member"),
        (MEMBER_LABEL, member),
    ]));
    labels
}

/// What selects the Pods of a cluster's members.
pub fn selector(cluster: &str) -> BTreeMap<String, String> {
    owned(&[
        ("app.kubernetes.io/component", "member"),
        (CLUSTER_LABEL, cluster),
    ])
}

/// The same as text, for the scale subresource.
#[must_use]
pub fn selector_text(cluster: &str) -> String {
    let pairs = selector(cluster);
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.join(",")
}

fn owned(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// The head of an object that the cluster owns.
pub fn cluster_meta(cluster: &QuorateCluster, name: String) -> ObjectMeta {
    let names = Names::new(cluster);
    ObjectMeta {
        name: Some(name),
        namespace: Some(names.namespace),
        labels: Some(of_cluster(&names.cluster)),
        owner_references: owner(cluster),
        ..ObjectMeta::default()
    }
}

/// The head of an object that a member owns.
pub fn member_meta(cluster: &QuorateCluster, member: &QuorateMember, name: String) -> ObjectMeta {
    let names = Names::new(cluster);
    ObjectMeta {
        name: Some(name),
        labels: Some(of_member(&names.cluster, &member.name_any())),
        namespace: Some(names.namespace),
        owner_references: owner(member),
        ..ObjectMeta::default()
    }
}

/// The owner reference; None for an object that has no UID yet, which cannot own anything.
pub fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<Vec<OwnerReference>> {
    let owner = object.controller_owner_ref(&())?;
    Some(vec![OwnerReference {
        // Deletion in the foreground waits for what is owned. It needs the right to update
        // `finalizers` of the owner where that is enforced.
        block_owner_deletion: Some(true),
        ..owner
    }])
}
