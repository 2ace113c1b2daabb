//! The objects around the members: Services, budget, policy, monitoring.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::DeleteParams;
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};

use super::Context;
use super::context::Kinds;
use crate::act::apply;
use crate::api::QuorateCluster;
use crate::monitoring::{self, Kind};
use crate::objects;

/// Writes what there should be, and deletes what there should not be any more.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn keep(
    context: &Context,
    cluster: &QuorateCluster,
    kinds: Kinds,
    voters: usize,
) -> kube::Result<()> {
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
    monitoring(context, cluster, kinds).await
}

/// What is made for Prometheus and Grafana. Kinds that do not exist yet are looked for again.
async fn monitoring(context: &Context, cluster: &QuorateCluster, kinds: Kinds) -> kube::Result<()> {
    let client = &context.client;
    let namespace = cluster.namespace().unwrap_or_default();
    for kind in Kind::ALL {
        let exists = match kind {
            Kind::PodMonitor => kinds.pod_monitor,
            Kind::ServiceMonitor => kinds.service_monitor,
            Kind::PrometheusRule => kinds.prometheus_rule,
        };
        if !exists {
            continue;
        }
        match monitoring::object(cluster, kind) {
            Some(object) => apply(client, &object).await?,
            None => {
                let resource = kind.resource();
                let objects =
                    Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &resource);
                delete(&objects, &cluster.name_any()).await?;
            }
        }
    }
    match monitoring::dashboard(cluster) {
        Some(dashboard) => apply(client, &dashboard).await,
        None => {
            let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
            delete(&maps, &monitoring::dashboard_name(cluster)).await
        }
    }
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
