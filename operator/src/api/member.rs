//! `QuorateMember`: one member of Raft, made by the operator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One member of a cluster: an identity, a Pod, a claim. Made and deleted by the operator; its
/// name is never used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "quorate.dev",
    version = "v1alpha1",
    kind = "QuorateMember",
    plural = "quoratemembers",
    shortname = "qm",
    category = "quorate",
    namespaced,
    cel,
    derive = "PartialEq",
    doc = "One member of a cluster: an identity, a Pod, a claim. Made and deleted by the operator; its name is never used again.",
    status = "QuorateMemberStatus",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Member-ID", type_ = "string", json_path = ".status.memberId"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message(
    "the spec of a QuorateMember cannot change: the operator makes another member"
))]
pub struct QuorateMemberSpec {
    /// The name of the `QuorateCluster`.
    #[schemars(length(min = 1, max = 40))]
    pub cluster: String,
    /// How it comes into being.
    pub birth: Birth,
}

/// How a member comes into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Birth {
    /// It is the first of a new cluster.
    Seed,
    /// It joins as a learner and is promoted.
    Join,
}

/// Where a member is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberPhase {
    /// The cluster has not been told of it.
    #[default]
    Pending,
    /// The cluster knows it; its Pod may run.
    Admitted,
    /// It leaves: the cluster is being told, or has been.
    Leaving,
}

/// What became of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuorateMemberStatus {
    /// Where it is in its life.
    #[serde(default)]
    pub phase: MemberPhase,
    /// Its ID, as sixteen hexadecimal digits, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// The value of `--initial-cluster` that it was born with: latched, since a restart on an
    /// empty directory must say the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_cluster: Option<String>,
    /// Since when it is seen unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_since: Option<Time>,
    /// The UID of the claim it was admitted with: another claim under the name is not its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_uid: Option<String>,
    /// Why it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving_reason: Option<String>,
}
