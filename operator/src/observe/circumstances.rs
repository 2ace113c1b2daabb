//! What stands beside a cluster's own objects: what its spec refers to, and which changes may be
//! made.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use quorate_sidecar::wire::RestoreRequest;

use super::refusals::{Found, Needs, refusals};
use super::{Circumstances, Objects, path_refusal};
use crate::api::{QuorateBackup, QuorateCluster, StorageMedium};
use crate::model::Refusal;
use crate::objects::{self, Settings, VERSION_ANNOTATION};

/// The annotation of the storage class that is taken when none is named.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// The cluster as Pods are made from it, and what stands beside it.
#[derive(Debug)]
pub struct Surroundings {
    /// The cluster; with the version that runs where the version asked for may not be taken, so
    /// that what must be made again meanwhile is as the others are.
    pub effective: QuorateCluster,
    /// What a seed starts from.
    pub restore: Option<RestoreRequest>,
    /// For the planner.
    pub circumstances: Circumstances,
}

/// Looks at what the spec refers to.
///
/// # Errors
/// The API server does not answer.
pub async fn surroundings(
    client: &Client,
    cluster: &QuorateCluster,
    seen: &Objects,
    settings: &Settings,
) -> kube::Result<Surroundings> {
    let mut circumstances = Circumstances::default();
    let needs = needs(cluster);
    let class = storage_class(client, needs.storage_class.as_deref()).await?;
    let found = found(client, cluster, &needs, class.is_some()).await?;
    circumstances.refusals = refusals(&needs, &found);
    circumstances.expandable = class.and_then(|class| class.allow_volume_expansion);
    let (effective, refused) = effective(cluster, seen, settings);
    circumstances.refusals.extend(refused);
    circumstances.upgrading = versions(seen)
        .iter()
        .any(|running| *running != objects::version(&effective, settings));
    let mut blocked = |refusal| {
        circumstances.refusals.push(refusal);
        circumstances.blocks_pods = true;
    };
    if let Err(refusal) = objects::bytes("spec.storage.size", &cluster.spec.storage.size) {
        blocked(refusal);
    }
    match objects::template_revision(&effective, settings) {
        Ok(revision) => circumstances.revision = revision,
        Err(refusal) => {
            circumstances.refusals.push(refusal);
            circumstances.blocks_pods = true;
        }
    }
    let restore = match restore(client, cluster).await? {
        Ok(restore) => restore,
        Err(refusal) => {
            circumstances.refusals.push(refusal);
            circumstances.blocks_pods = true;
            None
        }
    };
    Ok(Surroundings {
        effective,
        restore,
        circumstances,
    })
}

fn needs(cluster: &QuorateCluster) -> Needs {
    let spec = &cluster.spec;
    let mut needs = Needs {
        storage_class: match spec.storage.medium {
            StorageMedium::Persistent => spec.storage.storage_class_name.clone(),
            StorageMedium::Memory => None,
        },
        priority_class: spec.pod.priority_class_name.clone(),
        ..Needs::default()
    };
    if let Some(backup) = &spec.backup {
        if let Some(secret) = backup.store.credentials_secret() {
            needs.secrets.push((secret.to_owned(), "spec.backup.store"));
        }
        needs.backup_claim = backup.store.pvc.as_ref().map(|pvc| pvc.claim_name.clone());
    }
    for secret in &spec.image.pull_secrets {
        needs
            .secrets
            .push((secret.name.clone(), "spec.image.pullSecrets"));
    }
    needs
}

async fn found(
    client: &Client,
    cluster: &QuorateCluster,
    needs: &Needs,
    storage_class: bool,
) -> kube::Result<Found> {
    let namespace = cluster.namespace().unwrap_or_default();
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
    let mut found = Found {
        storage_class,
        ..Found::default()
    };
    for (name, _) in &needs.secrets {
        let meta: Option<PartialObjectMeta<Secret>> = secrets.get_metadata_opt(name).await?;
        found.secrets.extend(meta.map(|_| name.clone()));
    }
    if let Some(name) = &needs.priority_class {
        let classes = Api::<PriorityClass>::all(client.clone());
        found.priority_class = classes.get_opt(name).await?.is_some();
    }
    if let Some(name) = &needs.backup_claim {
        let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
        found.backup_claim = claims.get_opt(name).await?.is_some();
    }
    Ok(found)
}

/// The named class, or that which claims without a name get.
async fn storage_class(client: &Client, name: Option<&str>) -> kube::Result<Option<StorageClass>> {
    let classes = Api::<StorageClass>::all(client.clone());
    if let Some(name) = name {
        return classes.get_opt(name).await;
    }
    let is_default = |class: &StorageClass| {
        class
            .annotations()
            .get(DEFAULT_CLASS)
            .is_some_and(|value| value == "true")
    };
    let all = classes.list(&ListParams::default()).await?;
    Ok(all.items.into_iter().find(is_default))
}

/// The lowest version that a Pod was made for.
#[must_use]
pub fn lowest_version(seen: &Objects) -> Option<String> {
    let key = |version: &&str| {
        let parts = version
            .split('.')
            .map(|part| part.parse::<u64>().unwrap_or(0));
        parts.collect::<Vec<_>>()
    };
    versions(seen)
        .into_iter()
        .min_by_key(key)
        .map(str::to_owned)
}

/// The versions that Pods were made for.
fn versions(seen: &Objects) -> BTreeSet<&str> {
    let of = |pod: &'_ k8s_openapi::api::core::v1::Pod| {
        let annotations = pod.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get(VERSION_ANNOTATION))
            .is_some()
    };
    let pods = seen.pods.values().filter(|pod| of(pod));
    pods.map(|pod| pod.annotations()[VERSION_ANNOTATION].as_str())
        .collect()
}

/// The cluster with the version that runs where the one asked for may not be taken.
fn effective(
    cluster: &QuorateCluster,
    seen: &Objects,
    settings: &Settings,
) -> (QuorateCluster, Option<Refusal>) {
    let target = objects::version(cluster, settings);
    for running in versions(seen) {
        if let Some(refusal) = path_refusal(running, &target) {
            let mut effective = cluster.clone();
            effective.spec.version = Some(running.to_owned());
            return (effective, Some(refusal));
        }
    }
    (cluster.clone(), None)
}

/// What a seed starts from. Once there is a cluster ID, nothing is asked any more.
async fn restore(
    client: &Client,
    cluster: &QuorateCluster,
) -> kube::Result<Result<Option<RestoreRequest>, Refusal>> {
    let began = cluster
        .status
        .as_ref()
        .is_some_and(|status| status.cluster_id.is_some());
    let Some(bootstrap) = cluster.spec.bootstrap.as_ref().filter(|_| !began) else {
        return Ok(Ok(None));
    };
    let namespace = cluster.namespace().unwrap_or_default();
    let backups = Api::<QuorateBackup>::namespaced(client.clone(), &namespace);
    let backup = match &bootstrap.from_backup.backup {
        Some(name) => backups.get_opt(name).await?,
        None => None,
    };
    Ok(objects::restore_request(cluster, backup.as_ref()))
}
