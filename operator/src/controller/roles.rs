//! The label that tells voters from learners: the disruption budget counts by it.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::api::ROLE_LABEL;
use crate::model::Listed;
use crate::observe::Objects;

/// Labels every Pod whose role is known and not what its label says.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn label(
    client: &Client,
    namespace: &str,
    objects: &Objects,
    listed: Option<&Listed>,
) -> kube::Result<()> {
    let Some(listed) = listed else { return Ok(()) };
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    for (name, pod) in &objects.pods {
        let found = listed.members.iter().find(|member| member.name == *name);
        let role = match found {
            Some(member) if !member.learner => "voter",
            _ => "learner",
        };
        let gone = pod.metadata.deletion_timestamp.is_some();
        if gone
            || pod
                .labels()
                .get(ROLE_LABEL)
                .is_some_and(|label| label == role)
        {
            continue;
        }
        let patch = json!({"metadata": {
            "uid": pod.uid(),
            "labels": {ROLE_LABEL: role},
        }});
        match pods
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            // Another Pod by now, or none: the next look sees it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {}
            other => drop(other?),
        }
    }
    Ok(())
}
