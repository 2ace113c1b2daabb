//! The finalizer on clusters and backups. Each patch names the version that was looked at, so that
//! it fails if somebody else changed the finalizers meanwhile.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::FINALIZER;

/// Puts the finalizer on an object that has none of ours.
///
/// # Errors
/// The API server refuses (409: the object changed meanwhile) or does not answer.
pub async fn hold<K>(client: &Client, object: K) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    if object.finalizers().iter().any(|own| own == FINALIZER) {
        return Ok(object);
    }
    let mut all = object.finalizers().to_vec();
    all.push(FINALIZER.to_owned());
    write(client, &object, &all).await
}

/// Takes the finalizer from an object. One that is gone is no error.
///
/// # Errors
/// The API server refuses (409: the object changed meanwhile) or does not answer.
pub async fn let_go<K>(client: &Client, object: &K) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let mut rest = object.finalizers().to_vec();
    rest.retain(|own| own != FINALIZER);
    match write(client, object, &rest).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

async fn write<K>(client: &Client, object: &K, finalizers: &[String]) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let patch = json!({"metadata": {
        "resourceVersion": object.resource_version(),
        "finalizers": finalizers,
    }});
    let parameters = PatchParams::default();
    api.patch(&object.name_any(), &parameters, &Patch::Merge(patch))
        .await
}
