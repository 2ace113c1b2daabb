//! What surrounds members: Pods, Services, budgets, monitoring, network.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvVar, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the members' Pods are like. A change rolls through the members one by one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// Resources of the container `quorate`. By default it requests 100m of CPU and 256Mi of
    /// memory, and limits nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Resources of the container `sidecar`. By default it requests 10m of CPU and 32Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar_resources: Option<ResourceRequirements>,
    /// Affinity. By default members of a cluster prefer nodes of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How members spread. By default evenly over zones and nodes where that is possible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Labels that nodes must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// The priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub priority_class_name: Option<String>,
    /// Further labels. Those of the operator win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Further annotations. Those of the operator win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Further environment variables of the container `quorate`. Those of the operator win.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_env: Vec<EnvVar>,
    /// How long a member may take to stop, in seconds; 60 without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub termination_grace_period_seconds: Option<i64>,
}

/// The Service that clients use: `<cluster>-client`, port 2379.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSettings {
    /// `ClusterIP`, `NodePort` or `LoadBalancer`; `ClusterIP` without one.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(ClusterIP|NodePort|LoadBalancer)$"))]
    pub type_: Option<String>,
    /// Further annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Further labels. Those of the operator win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Further names and addresses that certificates of the operator's own authority and of
    /// cert-manager are good for.
    #[serde(
        default,
        rename = "additionalSANs",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub additional_sans: Vec<String>,
}

/// The PodDisruptionBudget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DisruptionBudget {
    /// Whether there is one. It counts voters only and always keeps a quorum.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

impl Default for DisruptionBudget {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Whether something is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Automatic {
    /// When its kind exists in the Kubernetes at hand.
    #[default]
    Auto,
    /// Never.
    Disabled,
}

/// What is made for Prometheus and Grafana.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// A PodMonitor for members and sidecars.
    #[serde(default)]
    pub pod_monitor: Automatic,
    /// A ServiceMonitor for members, for Prometheus servers that select no PodMonitors. Members
    /// are scraped once: it is made only when `podMonitor` is Disabled.
    #[serde(default)]
    pub service_monitor: Automatic,
    /// A PrometheusRule: etcd's alerts and those of the operator.
    #[serde(default)]
    pub prometheus_rule: Automatic,
    /// A ConfigMap with a dashboard, labelled `grafana_dashboard: "1"`.
    #[serde(default)]
    pub dashboards: Automatic,
    /// Further labels on all of these, by which a Prometheus selects them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Who may reach the members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRules {
    /// Whether there is a NetworkPolicy: peers reach peers, the operator reaches members, and
    /// clients as below reach port 2379.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Who may reach port 2379; everybody without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_from: Vec<NetworkPolicyPeer>,
    /// Who may scrape ports 2381 (members) and 2383 (sidecars); everybody without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monitoring_from: Vec<NetworkPolicyPeer>,
}

impl Default for NetworkRules {
    fn default() -> Self {
        Self {
            enabled: true,
            client_from: Vec::new(),
            monitoring_from: Vec::new(),
        }
    }
}
