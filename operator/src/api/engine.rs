//! How members are tuned.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Flags of `quorate` that the operator sets itself: `extraArgs` may not name them.
pub const OWNED_FLAGS: &[&str] = &[
    "name",
    "data-dir",
    "wal-dir",
    "listen-client-urls",
    "listen-client-http-urls",
    "listen-peer-urls",
    "listen-metrics-urls",
    "advertise-client-urls",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
    "force-new-cluster",
    "config-file",
    "cert-file",
    "key-file",
    "trusted-ca-file",
    "client-cert-auth",
    "peer-cert-file",
    "peer-key-file",
    "peer-trusted-ca-file",
    "peer-client-cert-auth",
    "auto-tls",
    "peer-auto-tls",
    "quota-backend-bytes",
    "auto-compaction-mode",
    "auto-compaction-retention",
    "snapshot-count",
    "heartbeat-interval",
    "election-timeout",
    "quorate-tls-migration",
];

/// How members are tuned. Every field has etcd's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.electionMs >= 5 * self.heartbeatMs").message(
    "electionMs must be at least 5 times heartbeatMs: else a slow heartbeat costs an election"
))]
pub struct Engine {
    /// At which size of the store writes are refused with NOSPACE; 2 GiB without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_backend: Option<Quantity>,
    /// Compaction of old revisions by the members themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_compaction: Option<AutoCompaction>,
    /// After how many entries the log may be cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub snapshot_count: Option<i64>,
    /// The time between heartbeats of the leader, in milliseconds.
    #[serde(default = "default_heartbeat")]
    #[schemars(range(min = 10, max = 10_000))]
    pub heartbeat_ms: i64,
    /// After how much silence of the leader an election begins, in milliseconds.
    #[serde(default = "default_election")]
    #[schemars(range(min = 50, max = 50_000))]
    pub election_ms: i64,
    /// Further flags of `quorate`, without `--`. Flags that the operator sets are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = Rule::new("self.all(key, key.matches('^[a-z][a-z0-9-]*$') && !(key in ['name','data-dir','wal-dir','listen-client-urls','listen-client-http-urls','listen-peer-urls','listen-metrics-urls','advertise-client-urls','initial-advertise-peer-urls','initial-cluster','initial-cluster-state','initial-cluster-token','force-new-cluster','config-file','cert-file','key-file','trusted-ca-file','client-cert-auth','peer-cert-file','peer-key-file','peer-trusted-ca-file','peer-client-cert-auth','auto-tls','peer-auto-tls','quota-backend-bytes','auto-compaction-mode','auto-compaction-retention','snapshot-count','heartbeat-interval','election-timeout','quorate-tls-migration']))").message("extraArgs are flags of quorate without '--', and may not name one that the operator sets (name, data-dir, listen-*, initial-*, certificates, or one with a field of its own in engine)"))]
    pub extra_args: BTreeMap<String, String>,
}

fn default_heartbeat() -> i64 {
    100
}

fn default_election() -> i64 {
    1000
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            quota_backend: None,
            auto_compaction: None,
            snapshot_count: None,
            heartbeat_ms: default_heartbeat(),
            election_ms: default_election(),
            extra_args: BTreeMap::new(),
        }
    }
}

/// Compaction of old revisions by the members themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoCompaction {
    /// What `retention` counts.
    pub mode: AutoCompactionMode,
    /// How much is kept: with `Periodic` a time such as `1h`, with `Revision` a number.
    #[schemars(
        length(max = 32),
        regex(pattern = "^[0-9]+(ns|us|ms|s|m|h)?([0-9]+(ms|s|m))*$")
    )]
    pub retention: String,
}

/// What the retention of autocompaction counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AutoCompactionMode {
    /// Time.
    Periodic,
    /// Revisions.
    Revision,
}
