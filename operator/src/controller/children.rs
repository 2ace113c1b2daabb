//! The objects around the members: Services, budget, policy, monitoring.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};

use super::Context;
use crate::act::apply;
use crate::api::QuorateCluster;
use crate::objects;

/// Writes what there should be, and deletes what there should not be any more.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn keep(context: &Context, cluster: &QuorateCluster, voters: usize) -> kube::Result<()> {
    let client = &context.client;
    let (service, headless) = objects::services(cluster);
    apply(client, &service).await?;
    apply(client, &headless).await?;
    let namespace = cluster.namespace().unwrap_or_default();
    match objects::disruption_budget(cluster, voters) {
        Some(budget) => apply(client, &budget).await?,
        None => {
            let budgets = Api::<PodDisruptionBudget>::namespaced(client.clone(), &namespace);
            delete(&budgets, &cluster.name_any()).await?;
        }
    }
    match objects::network_policy(cluster, &context.settings) {
        Some(policy) => apply(client, &policy).await?,
        None => {
            let policies = Api::<NetworkPolicy>::namespaced(client.clone(), &namespace);
            delete(&policies, &cluster.name_any()).await?;
        }
    }
    Ok(())
}

async fn delete<K>(api: &Api<K>, name: &str) -> kube::Result<()>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}
