//! `QuorateBackup`: one snapshot in a store.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use quorate_sidecar::wire::{Artifact, Store, VerifyMode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One backup of a cluster, made by hand or by the schedule. Its spec cannot change, and its end
/// is final.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "quorate.dev",
    version = "v1alpha1",
    kind = "QuorateBackup",
    plural = "quoratebackups",
    shortname = "qb",
    category = "quorate",
    namespaced,
    cel,
    derive = "PartialEq",
    doc = "One backup of a cluster, made by hand or by the schedule. Its spec cannot change, and its end is final.",
    status = "QuorateBackupStatus",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Revision",
        type_ = "integer",
        json_path = ".status.artifact.revision"
    ),
    printcolumn(
        name = "Bytes",
        type_ = "integer",
        json_path = ".status.artifact.sizeBytes"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "URI",
        type_ = "string",
        json_path = ".status.artifact.uri",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Succeeded\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self == oldSelf").message(
        "the spec of a QuorateBackup cannot change: make another one"
    ),
    validation = Rule::new("!has(self.store) || [has(self.store.s3), has(self.store.gcs), has(self.store.azure), has(self.store.pvc)].filter(given, given).size() == 1")
        .message("store is exactly one of s3, gcs, azure and pvc")
)]
pub struct QuorateBackupSpec {
    /// The name of the `QuorateCluster`, of the same namespace.
    #[schemars(length(min = 1, max = 40))]
    pub cluster: String,
    /// Where it is to lie; `spec.backup.store` of the cluster without one. Its credentials must be
    /// those that the cluster's `spec.backup.store` names: members mount no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// How it is proved; `spec.backup.verify.mode` of the cluster without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyMode>,
    /// What becomes of the stored object when this is deleted.
    #[serde(default)]
    pub reclaim: Reclaim,
}

/// What becomes of data when the object that stands for it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reclaim {
    /// It stays.
    #[default]
    Retain,
    /// It goes too.
    Delete,
}

/// How far a backup is. `Verified` and `Failed` are final.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// It waits for a healthy member.
    #[default]
    Pending,
    /// It is being taken and uploaded.
    Running,
    /// It lies whole in the store and is being proved.
    Uploaded,
    /// It is proved.
    Verified,
    /// It is over, and nothing of it counts.
    Failed,
}

/// What became of a backup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuorateBackupStatus {
    /// How far it is.
    #[serde(default)]
    pub phase: BackupPhase,
    /// The member that it is taken of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// How many times it was begun.
    #[serde(default)]
    pub attempts: i32,
    /// When it was begun, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Where it lies: latched when it is begun, so that a later edit of the cluster does not lose
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// What was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// How it was proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_by: Option<VerifyMode>,
    /// `Succeeded`: Unknown while it goes on, then True, or False with the reason.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
