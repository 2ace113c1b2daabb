//! Events of the kubelet.

use super::Shared;
use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, PostParams};

/// Tells a warning of a Pod.
///
/// # Errors
/// When the API server refuses it.
pub(super) async fn warn(shared: &Shared, pod: &Pod, reason: &str, message: &str) -> Result<()> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let now = Some(Time(Timestamp::now()));
    let event = Event {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}.")),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name),
            namespace: Some(namespace.clone()),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        count: Some(1),
        first_timestamp: now.clone(),
        last_timestamp: now,
        source: Some(EventSource {
            component: Some("kubelet".to_owned()),
            host: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        }),
        ..Event::default()
    };
    let events: Api<Event> = Api::namespaced(shared.client.clone(), &namespace);
    match events.create(&PostParams::default(), &event).await {
        // The namespace is on its way out.
        Err(kube::Error::Api(error)) if error.code == 403 || error.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
