//! Writing objects by server-side apply, as one field manager.

use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde_json::json;

use crate::api::{
    FIELD_MANAGER, GROUP, QuorateCluster, QuorateClusterStatus, QuorateMember, QuorateMemberStatus,
    VERSION,
};

/// Applies an object of any kind, whoever else wrote to it: what the operator owns is put right.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn apply<K>(client: &Client, object: &K) -> kube::Result<()>
where
    K: Serialize,
{
    let value = serde_json::to_value(object).map_err(kube::Error::SerdeError)?;
    let dynamic: DynamicObject = serde_json::from_value(value).map_err(kube::Error::SerdeError)?;
    let types = dynamic.types.clone().unwrap_or_default();
    let (group, version) = match types.api_version.split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", types.api_version.as_str()),
    };
    let kind = kube::core::GroupVersionKind::gvk(group, version, &types.kind);
    let resource = ApiResource::from_gvk(&kind);
    let namespace = dynamic.namespace().unwrap_or_default();
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &resource);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&dynamic.name_any(), &parameters, &Patch::Apply(&dynamic))
        .await?;
    Ok(())
}

/// Writes the whole status of a cluster, if the cluster is still the one that was looked at.
///
/// # Errors
/// The API server refuses (409: the cluster changed meanwhile) or does not answer.
pub async fn write_cluster_status(
    client: &Client,
    cluster: &QuorateCluster,
    status: QuorateClusterStatus,
) -> kube::Result<QuorateCluster> {
    write_status(client, cluster, json!(status)).await
}

/// Writes the whole status of a member, if the member is still the one that was looked at.
///
/// # Errors
/// The API server refuses (409: the member changed meanwhile) or does not answer.
pub async fn write_member_status(
    client: &Client,
    member: &QuorateMember,
    status: QuorateMemberStatus,
) -> kube::Result<QuorateMember> {
    write_status(client, member, json!(status)).await
}

pub(crate) async fn write_status<K>(
    client: &Client,
    object: &K,
    status: serde_json::Value,
) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": K::kind(&()),
        "metadata": {
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
        },
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&object.name_any(), &parameters, &Patch::Apply(&patch))
        .await
}
