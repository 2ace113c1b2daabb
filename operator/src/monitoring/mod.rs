//! What is made for Prometheus and Grafana: pure functions of a cluster's spec.
//!
//! Members and sidecars are scraped with the labels `namespace`, `pod` and `quorate_cluster`; the
//! operator's metrics have `namespace` and `cluster`. Rules and panels name no others.

mod alerts;
mod dashboard;
mod panels;
mod scrape;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

use crate::api::{Automatic, QuorateCluster};
use crate::objects::{Names, cluster_meta};

pub use dashboard::operator_dashboard;

/// The group of prometheus-operator's kinds.
pub const GROUP: &str = "monitoring.coreos.com";
/// The label with the cluster's name on all that is scraped of its members.
pub const LABEL: &str = "quorate_cluster";

/// A kind of prometheus-operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Scrapes Pods.
    PodMonitor,
    /// Scrapes what is behind Services.
    ServiceMonitor,
    /// Alerts.
    PrometheusRule,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PodMonitor, Self::ServiceMonitor, Self::PrometheusRule];

    /// As the API server knows it. Its objects of a cluster have the cluster's name.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        let kind = format!("{self:?}");
        ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", &kind))
    }
}

/// The object of a kind; None when the spec wants none. Whether the kind exists is for the caller
/// to find out, now and then again.
#[must_use]
pub fn object(cluster: &QuorateCluster, kind: Kind) -> Option<DynamicObject> {
    let wanted = &cluster.spec.monitoring;
    let on = |setting: Automatic| setting == Automatic::Auto;
    let spec = match kind {
        Kind::PodMonitor if on(wanted.pod_monitor) => scrape::pod_monitor(cluster),
        // Members are scraped once.
        Kind::ServiceMonitor if on(wanted.service_monitor) && !on(wanted.pod_monitor) => {
            scrape::service_monitor(cluster)
        }
        Kind::PrometheusRule if on(wanted.prometheus_rule) => alerts::rules(cluster),
        Kind::PodMonitor | Kind::ServiceMonitor | Kind::PrometheusRule => return None,
    };
    let resource = kind.resource();
    let name = Names::new(cluster).cluster;
    let mut object = DynamicObject::new(&name, &resource);
    object.data = serde_json::json!({ "spec": spec });
    object.metadata = cluster_meta(cluster, name);
    let labels = object.metadata.labels.get_or_insert_default();
    for (key, value) in &wanted.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Some(object)
}

/// The name of the ConfigMap with a cluster's dashboard.
#[must_use]
pub fn dashboard_name(cluster: &QuorateCluster) -> String {
    format!("{}-dashboard", Names::new(cluster).cluster)
}

/// The ConfigMap with the cluster's dashboard; None when the spec wants none.
#[must_use]
pub fn dashboard(cluster: &QuorateCluster) -> Option<ConfigMap> {
    if cluster.spec.monitoring.dashboards != Automatic::Auto {
        return None;
    }
    let names = Names::new(cluster);
    let file = format!("quorate-{}-{}.json", names.namespace, names.cluster);
    let text = dashboard::of_cluster(&names).to_string();
    let mut metadata = cluster_meta(cluster, dashboard_name(cluster));
    let labels = metadata.labels.get_or_insert_default();
    labels.insert("grafana_dashboard".to_owned(), "1".to_owned());
    for (key, value) in &cluster.spec.monitoring.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Some(ConfigMap {
        metadata,
        data: Some([(file, text)].into()),
        ..ConfigMap::default()
    })
}

/// The selector of what is scraped of a cluster's members.
fn scraped(names: &Names) -> String {
    format!(
        "namespace=\"{}\",{LABEL}=\"{}\"",
        names.namespace, names.cluster
    )
}

/// The selector of what the operator says of a cluster.
fn told(names: &Names) -> String {
    format!(
        "namespace=\"{}\",cluster=\"{}\"",
        names.namespace, names.cluster
    )
}

#[cfg(test)]
mod tests;
