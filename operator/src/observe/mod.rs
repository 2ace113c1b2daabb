//! One look at a cluster: its objects, and what its members say.
//!
//! Lists come fresh from the API server, never from a cache: what is decided on a stale look may
//! be done twice.

mod assemble;
mod circumstances;
mod refusals;
mod versions;
mod views;
mod voices;

pub use assemble::{Circumstances, assemble, health_flip};
pub use circumstances::{Surroundings, lowest_version, surroundings};
pub use versions::path_refusal;
pub use views::{claim_view, node_lost, pod_view};
pub use voices::{Heard, hear};

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::api::{CLUSTER_LABEL, QuorateCluster, QuorateMember};

/// The objects of one cluster, as the API server has them now.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Members by name.
    pub members: BTreeMap<String, QuorateMember>,
    /// Pods by name, which is the member's.
    pub pods: BTreeMap<String, Pod>,
    /// Claims by name.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// The nodes that the Pods are on, by name; a Pod's node that is not here is gone.
    pub nodes: BTreeMap<String, Node>,
}

/// Lists a cluster's objects.
///
/// # Errors
/// The API server does not answer, or forbids it.
pub async fn objects(client: &Client, cluster: &QuorateCluster) -> kube::Result<Objects> {
    let namespace = cluster.namespace().unwrap_or_default();
    let of_cluster =
        ListParams::default().labels(&format!("{CLUSTER_LABEL}={}", cluster.name_any()));
    let members = Api::<QuorateMember>::namespaced(client.clone(), &namespace);
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &namespace);
    let (members, pods, claims) = tokio::try_join!(
        members.list(&of_cluster),
        pods.list(&of_cluster),
        claims.list(&of_cluster)
    )?;
    let mut objects = Objects {
        members: by_name(members.items),
        pods: by_name(pods.items),
        claims: by_name(claims.items),
        nodes: BTreeMap::new(),
    };
    let nodes = Api::<Node>::all(client.clone());
    for pod in objects.pods.values() {
        let Some(name) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else {
            continue;
        };
        if objects.nodes.contains_key(name) {
            continue;
        }
        if let Some(node) = nodes.get_opt(name).await? {
            objects.nodes.insert(name.to_owned(), node);
        }
    }
    Ok(objects)
}

fn by_name<K: ResourceExt>(items: Vec<K>) -> BTreeMap<String, K> {
    items
        .into_iter()
        .map(|item| (item.name_any(), item))
        .collect()
}
