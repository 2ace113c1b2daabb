//! What a user reads of a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a user reads of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuorateClusterStatus {
    /// The generation of the spec that all the rest speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions, one a type: Ready, Reconciling, Stalled, QuorumHealthy, Converged,
    /// BackupHealthy, TLSReady, StorageHealthy, ClusterIDConsistent.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// A word for people; programs read conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Ready members of those wanted: `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// The label selector of the members' Pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// How many members there are.
    #[serde(default)]
    pub replicas: i32,
    /// How many of them are ready.
    #[serde(default)]
    pub ready_members: i32,
    /// The cluster's ID, as sixteen hexadecimal digits; latched when the first member has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The name of the member that leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionStatus>,
    /// The largest size of the store among members, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_size: Option<String>,
    /// The members.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub members: Vec<MemberStatus>,
    /// What is being done, and what blocks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// When members were replaced within the last hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replacements: Vec<Time>,
    /// When the schedule last made a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scheduled_backup: Option<Time>,
    /// When the last backup that lies whole in its store was finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<Time>,
    /// When the last backup that was proved was finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_backup: Option<Time>,
    /// How many backups the schedule has made.
    #[serde(default)]
    pub scheduled_backups: i64,
    /// Alarms: `<member>: NOSPACE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// Where clients connect: `https://<cluster>-client.<namespace>.svc:2379`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The Secret with certificate, key and authority that clients may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
}

/// Versions of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// What the spec asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The lowest that a member was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowest: Option<String>,
}

/// One member, as a user reads it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its name, which is its Pod's.
    pub name: String,
    /// Its ID, as sixteen hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it is in Raft.
    #[serde(default)]
    pub role: MemberRole,
    /// Whether it answers, follows the leader and has no alarm.
    #[serde(default)]
    pub healthy: bool,
    /// Whether its Pod is as the spec wants it.
    #[serde(default)]
    pub current: bool,
    /// The node it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The zone of that node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The size of its store in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_size_bytes: Option<i64>,
    /// Why it is not well, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a member is in Raft.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberRole {
    /// It leads.
    Leader,
    /// It votes.
    Voter,
    /// It follows and does not vote yet.
    Learner,
    /// It is not in the cluster (yet, or any more), or nobody could say.
    #[default]
    Unknown,
}

/// What is being done to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// What.
    #[serde(rename = "type")]
    pub kind: OperationKind,
    /// The step at hand, in words.
    pub step: String,
    /// The member it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Since when this kind of operation goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// What it waits for, in words; nothing when it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<String>,
}

/// The kinds of operation; each is a reason of the condition `Reconciling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperationKind {
    /// The first member is coming up.
    Bootstrapping,
    /// A member is added.
    ScalingOut,
    /// A member is removed.
    ScalingIn,
    /// Members are restarted one by one with a new template.
    RollingRestart,
    /// Members are restarted one by one with a new version.
    Upgrading,
    /// A member is replaced by another.
    Replacing,
    /// Volumes grow.
    ExpandingVolume,
    /// A member's Pod is made again.
    Restarting,
    /// Space is being made in the store.
    FreeingSpace,
    /// Pods go; volumes stay.
    Hibernating,
    /// Pods come back.
    Resuming,
    /// All of it goes.
    Deleting,
}
