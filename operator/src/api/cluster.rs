//! `QuorateCluster`: what a user wants.

use k8s_openapi::api::core::v1::LocalObjectReference;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use quorate_sidecar::wire::Store;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BackupSettings, DisruptionBudget, Engine, Monitoring, NetworkRules, PodSettings,
    QuorateClusterStatus, Reclaim, ServiceSettings, Tls,
};

/// A cluster of Quorate: members that the operator makes, secures, heals, rolls and backs up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "quorate.dev",
    version = "v1alpha1",
    kind = "QuorateCluster",
    plural = "quorateclusters",
    shortname = "qc",
    category = "quorate",
    namespaced,
    cel,
    derive = "PartialEq",
    doc = "A cluster of Quorate: members that the operator makes, secures, heals, rolls and backs up.",
    status = "QuorateClusterStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version.lowest"),
    printcolumn(name = "Leader", type_ = "string", json_path = ".status.leader"),
    printcolumn(
        name = "Quorum",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"QuorumHealthy\")].reason"
    ),
    printcolumn(name = "Backup", type_ = "date", json_path = ".status.lastVerifiedBackup"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "DB-Size", type_ = "string", json_path = ".status.dbSize", priority = 1),
    printcolumn(
        name = "Cluster-ID",
        type_ = "string",
        json_path = ".status.clusterId",
        priority = 1
    ),
    printcolumn(
        name = "Operation",
        type_ = "string",
        json_path = ".status.operation.type",
        priority = 1
    ),
    validation = Rule::new("size(self.metadata.name) <= 40").message(
        "metadata.name may have 40 characters: names of members and Services are built from it"
    ),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message(
        "metadata.name must begin with a letter and hold lower-case letters, digits and '-': names of Services are built from it"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.bootstrap) == has(oldSelf.bootstrap) && (!has(self.bootstrap) || self.bootstrap == oldSelf.bootstrap)")
        .message("bootstrap is consulted once, when the cluster begins, and cannot change: make a new cluster"),
    validation = Rule::new("self.storage.medium == oldSelf.storage.medium")
        .message("storage.medium cannot change: make a new cluster from a backup"),
    validation = Rule::new("has(self.storage.storageClassName) == has(oldSelf.storage.storageClassName) && (!has(self.storage.storageClassName) || self.storage.storageClassName == oldSelf.storage.storageClassName)")
        .message("storage.storageClassName cannot change: make a new cluster from a backup"),
    validation = Rule::new("quantity(self.storage.size).compareTo(quantity(oldSelf.storage.size)) >= 0")
        .message("storage.size can only grow"),
    validation = Rule::new("self.storage.medium != 'Memory' || self.replicas >= 3")
        .message("storage.medium Memory needs at least 3 replicas: a single member would lose all with its Pod"),
    validation = Rule::new("!has(self.version) || !has(oldSelf.version) || self.version == oldSelf.version || self.replicas == oldSelf.replicas")
        .message("version and replicas cannot change in one edit: change one, wait for Converged, then the other")
)]
pub struct QuorateClusterSpec {
    /// How many voting members: 1, 3, 5 or 7. An even number tolerates no more failures than the
    /// odd one below it.
    #[serde(default = "default_replicas")]
    #[x_kube(validation = Rule::new("self in [1, 3, 5, 7]").message("replicas must be 1, 3, 5 or 7: an even number of voters tolerates no more failures than one less"))]
    pub replicas: i32,
    /// The version of Quorate that members run, as `0.1.0`; the operator's own without one. One
    /// minor version at a time, and never back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+$"))]
    pub version: Option<String>,
    /// The members' image; the operator's default without one.
    #[serde(default)]
    pub image: Image,
    /// `Running`; `Paused`: the operator looks and reports, and changes nothing; `Hibernated`: no
    /// Pods, volumes kept, schedules stopped.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Where members keep their data.
    #[serde(default)]
    pub storage: Storage,
    /// How members are tuned.
    #[serde(default)]
    pub engine: Engine,
    /// TLS towards clients and between members. By default the operator's own authority secures
    /// both, and clients must show a certificate.
    #[serde(default)]
    pub tls: Tls,
    /// What the cluster begins with. Empty without it. Consulted once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// When and how a member that is lost is replaced.
    #[serde(default)]
    pub healing: Healing,
    /// What the members' Pods are like.
    #[serde(default)]
    pub pod: PodSettings,
    /// The Service that clients use.
    #[serde(default)]
    pub service: ServiceSettings,
    /// The PodDisruptionBudget, whose number the operator computes.
    #[serde(default)]
    pub pdb: DisruptionBudget,
    /// What is made for Prometheus and Grafana.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// Who may reach the members.
    #[serde(default)]
    pub network_policy: NetworkRules,
    /// Scheduled backups. None without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupSettings>,
}

fn default_replicas() -> i32 {
    3
}

/// The members' image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Registry and name, without a tag: `registry.example.org:5000/quorate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub repository: Option<String>,
    /// The tag; `version` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]*$"))]
    pub tag: Option<String>,
    /// The digest, `sha256:…`; it decides when both are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// `Always`, `IfNotPresent` or `Never`; Kubernetes' own default without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(Always|IfNotPresent|Never)$"))]
    pub pull_policy: Option<String>,
    /// Secrets for the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull_secrets: Vec<LocalObjectReference>,
}

/// Whether the cluster runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Lifecycle {
    /// The operator keeps the cluster as it should be.
    #[default]
    Running,
    /// The operator looks and reports, and changes nothing.
    Paused,
    /// No Pods; volumes, Secrets and Services stay; schedules stop.
    Hibernated,
}

/// Where members keep their data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// The size of each member's volume. It can only grow, if the storage class lets volumes grow.
    #[serde(default = "default_size")]
    pub size: Quantity,
    /// The storage class; the cluster's default without one. It cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// `Persistent`: a PersistentVolumeClaim a member. `Memory`: memory of the node, gone with the
    /// Pod; needs 3 replicas. It cannot change.
    #[serde(default)]
    pub medium: StorageMedium,
    /// What becomes of the claims of members that leave, and of the cluster's when it is deleted:
    /// `Retain` relabels them as retired and keeps them.
    #[serde(default)]
    pub reclaim: Reclaim,
}

fn default_size() -> Quantity {
    Quantity("8Gi".to_owned())
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: default_size(),
            storage_class_name: None,
            medium: StorageMedium::default(),
            reclaim: Reclaim::default(),
        }
    }
}

/// What members' data lies on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StorageMedium {
    /// A PersistentVolumeClaim a member.
    #[default]
    Persistent,
    /// Memory of the node, gone with the Pod.
    Memory,
}

/// What a cluster begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bootstrap {
    /// A backup. Keys, leases, users and alarms are those of the backup; IDs of members are new.
    pub from_backup: FromBackup,
}

/// A backup to begin with: a `QuorateBackup` by name, or a key of a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.backup) != (has(self.store) && has(self.key))").message(
    "fromBackup is either backup (the name of a QuorateBackup) or both store and key"
))]
pub struct FromBackup {
    /// The name of a `QuorateBackup` of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub backup: Option<String>,
    /// The store; with `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// The object's key, the store's prefix included; with `store`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key: Option<String>,
}

/// When and how a member that is lost is replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Healing {
    /// How long a member may be unhealthy before it is replaced, in seconds. A member whose data
    /// is known to be lost or damaged is replaced at once.
    #[serde(default = "default_patience")]
    #[schemars(range(min = 10, max = 86_400))]
    pub replace_unhealthy_after_seconds: i64,
    /// How many members may be replaced within an hour.
    #[serde(default = "default_replacements")]
    #[schemars(range(min = 0, max = 100))]
    pub max_replacements_per_hour: i32,
    /// What is done when a member's node is gone: `Replace` it on another node once
    /// `replaceUnhealthyAfterSeconds` is over, or `Wait` for the node.
    #[serde(default)]
    pub on_node_lost: NodeLoss,
}

fn default_patience() -> i64 {
    600
}

fn default_replacements() -> i32 {
    3
}

impl Default for Healing {
    fn default() -> Self {
        Self {
            replace_unhealthy_after_seconds: default_patience(),
            max_replacements_per_hour: default_replacements(),
            on_node_lost: NodeLoss::default(),
        }
    }
}

/// What is done when a member's node is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeLoss {
    /// The member is replaced.
    #[default]
    Replace,
    /// The node is waited for.
    Wait,
}
