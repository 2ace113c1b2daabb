//! Volumes on request: a folder for each claim, as a provisioner of local volumes makes them.

use super::Shared;
use anyhow::Result;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Who makes the volumes.
pub(super) const PROVISIONER: &str = "quorate.dev/folder";

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// The class that a claim has when it names none, and one whose volumes cannot grow.
pub const CLASS: &str = "folder";
pub const FIXED_CLASS: &str = "folder-fixed";

/// Makes the storage classes.
///
/// # Errors
/// When the API server refuses.
pub(super) async fn make_classes(shared: &Shared) -> Result<()> {
    let api: Api<StorageClass> = Api::all(shared.client.clone());
    for (name, may_grow) in [(CLASS, true), (FIXED_CLASS, false)] {
        let default = "storageclass.kubernetes.io/is-default-class";
        let class = json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": name, "annotations": {default: may_grow.to_string()}},
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": may_grow,
        });
        api.create(&PostParams::default(), &serde_json::from_value(class)?)
            .await?;
    }
    Ok(())
}

impl Shared {
    pub(super) fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.find(|claim| {
            claim.metadata.namespace.as_deref() == Some(namespace)
                && claim.metadata.name.as_deref() == Some(name)
        })
    }

    /// The folder of a claim that is bound; it is the same for as long as the claim lives.
    pub(super) fn claim_folder(&self, namespace: &str, name: &str) -> Option<PathBuf> {
        let claim = self.claim(namespace, name)?;
        let bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
        let volume = claim.spec.as_ref()?.volume_name.as_deref()?;
        bound.then(|| self.dir.join("volumes").join(volume))
    }
}

fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let claims = volumes.into_iter().flatten();
    let claims = claims.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.map(|claim| claim.claim_name.clone()).collect()
}

/// The volumes of a Pod's claims that have one.
pub(super) fn volumes_of(shared: &Shared, pod: &Pod) -> Vec<Arc<PersistentVolume>> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let names = claim_names(pod).into_iter();
    let claims = names.filter_map(|name| shared.claim(namespace, &name));
    let bound = claims.filter_map(|claim| claim.spec.as_ref()?.volume_name.clone());
    let found = bound.filter_map(|name| {
        shared
            .volumes
            .find(|volume| volume.metadata.name.as_ref() == Some(&name))
    });
    found.collect()
}

/// How far the claims of a Pod are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    Bound,
    /// The node is chosen; the volumes are on their way.
    Waits,
    /// There is no such claim.
    Missing,
}

/// Binds all claims of a Pod; for those that wait for it, the node is chosen.
///
/// # Errors
/// When the API server refuses.
pub(super) async fn bind(shared: &Shared, pod: &Pod, node: &str) -> Result<Binding> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let names = claim_names(pod);
    if names
        .iter()
        .any(|name| shared.claim(namespace, name).is_none())
    {
        return Ok(Binding::Missing);
    }
    let mut binding = Binding::Bound;
    for name in names {
        if shared.claim_folder(namespace, &name).is_some() {
            continue;
        }
        binding = Binding::Waits;
        let claim = shared.claim(namespace, &name);
        let annotations = claim.and_then(|claim| claim.metadata.annotations.clone());
        if annotations.is_some_and(|known| known.contains_key(SELECTED_NODE)) {
            continue;
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(shared.client.clone(), namespace);
        let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
        settle(
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                .await,
        )?;
    }
    Ok(binding)
}

/// Makes, grows and removes volumes.
///
/// # Errors
/// When the API server refuses.
pub(super) async fn pass(shared: &Shared) -> Result<()> {
    for claim in shared.claims.state() {
        let Some(class) = our_class(shared, &claim) else {
            continue;
        };
        let status = claim.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        if phase == Some("Bound") {
            grow(shared, &claim).await?;
        } else if claim.metadata.deletion_timestamp.is_none() {
            provision(shared, &claim, &class).await?;
        }
    }
    for volume in shared.volumes.state() {
        let annotations = volume.metadata.annotations.as_ref();
        let is_ours = annotations
            .and_then(|annotations| annotations.get(PROVISIONED_BY))
            .is_some_and(|by| by == PROVISIONER);
        let phase = volume
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if is_ours && phase == Some("Released") && volume.metadata.deletion_timestamp.is_none() {
            remove(shared, &volume).await?;
        }
    }
    Ok(())
}

fn our_class(shared: &Shared, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
    let name = claim.spec.as_ref()?.storage_class_name.clone()?;
    let class = shared
        .classes
        .find(|class| class.metadata.name.as_ref() == Some(&name))?;
    (class.provisioner == PROVISIONER).then_some(class)
}

async fn provision(
    shared: &Shared,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
) -> Result<()> {
    let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    let annotations = claim.metadata.annotations.clone().unwrap_or_default();
    let node = annotations.get(SELECTED_NODE);
    if waits && node.is_none() {
        return Ok(());
    }
    let (meta, spec) = (&claim.metadata, claim.spec.clone().unwrap_or_default());
    let uid = meta.uid.clone().unwrap_or_default();
    let name = format!("pvc-{uid}");
    if shared
        .volumes
        .find(|volume| volume.metadata.name.as_ref() == Some(&name))
        .is_some()
    {
        return Ok(());
    }
    let modes = spec.access_modes.unwrap_or_default();
    let is_everywhere = modes.iter().any(|mode| mode == "ReadWriteMany");
    let folder = shared.dir.join("volumes").join(&name);
    std::fs::create_dir_all(&folder)?;
    let requests = spec.resources.and_then(|resources| resources.requests);
    let mut volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": requests.unwrap_or_default().get("storage")},
            "accessModes": modes,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": uid,
            },
            "persistentVolumeReclaimPolicy": class.reclaim_policy,
            "storageClassName": class.metadata.name,
        },
    });
    // What is on one node's disk stays there.
    match node.filter(|_| !is_everywhere) {
        Some(node) => {
            volume["spec"]["local"] = json!({"path": folder});
            volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{
                "matchExpressions": [{
                    "key": "kubernetes.io/hostname", "operator": "In", "values": [node],
                }],
            }]}});
        }
        None => volume["spec"]["hostPath"] = json!({"path": folder}),
    }
    let api: Api<PersistentVolume> = Api::all(shared.client.clone());
    settle(
        api.create(&PostParams::default(), &serde_json::from_value(volume)?)
            .await,
    )
}

/// The volume first, then what the claim says that it has.
async fn grow(shared: &Shared, claim: &PersistentVolumeClaim) -> Result<()> {
    let storage = |of: Option<&std::collections::BTreeMap<_, _>>| {
        let found: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> =
            of.and_then(|resources| resources.get("storage"));
        found.cloned()
    };
    let spec = claim.spec.clone().unwrap_or_default();
    let wanted = spec.resources.and_then(|resources| resources.requests);
    let wanted = storage(wanted.as_ref());
    let has = storage(
        claim
            .status
            .as_ref()
            .and_then(|status| status.capacity.as_ref()),
    );
    let (Some(wanted), Some(volume)) = (wanted, spec.volume_name) else {
        return Ok(());
    };
    if has.as_ref() == Some(&wanted) {
        return Ok(());
    }
    let params = PatchParams::default();
    let volumes: Api<PersistentVolume> = Api::all(shared.client.clone());
    let patch = Patch::Merge(json!({"spec": {"capacity": {"storage": wanted}}}));
    settle(volumes.patch(&volume, &params, &patch).await)?;
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    let name = claim.metadata.name.clone().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(shared.client.clone(), &namespace);
    let patch = Patch::Merge(json!({"status": {"capacity": {"storage": wanted}}}));
    settle(claims.patch_status(&name, &params, &patch).await)
}

async fn remove(shared: &Shared, volume: &PersistentVolume) -> Result<()> {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    if policy != Some("Delete") {
        return Ok(());
    }
    let name = volume.metadata.name.clone().unwrap_or_default();
    let folder = shared.dir.join("volumes").join(&name);
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let api: Api<PersistentVolume> = Api::all(shared.client.clone());
    match api.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Who was slower than another, or too late, looks again at the next pass.
fn settle<T>(outcome: kube::Result<T>) -> Result<()> {
    match outcome {
        Err(kube::Error::Api(error)) if [404, 409].contains(&error.code) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
