//! Taking, proving, deleting and starting from backups.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Problem, Store};

/// Take a snapshot of the member on loopback, compress it and store it, as it streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupRequest {
    /// The name of the task: `QuorateBackup`'s name and UID, so that no other can be meant.
    pub name: String,
    /// Where it is to lie.
    pub store: Store,
    /// The object's key below the store's prefix, without an extension:
    /// `<namespace>/<cluster>-<uid8>/<yyyy>/<mm>/<timestamp>`. The sidecar appends
    /// `-<revision>.snap.zst`, and writes the manifest beside it as `….json`, last.
    pub key: String,
    /// Namespace and name of the cluster, for the manifest.
    pub cluster: String,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// It goes on.
    Running,
    /// It is done, and what it made is whole.
    Succeeded,
    /// It is over, and nothing of it counts.
    Failed,
}

/// A backup's task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupState {
    /// How far it is.
    pub phase: Phase,
    /// Bytes of the snapshot that were read so far.
    pub bytes: u64,
    /// What was made; with `Succeeded` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Why it failed; with `Failed` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A backup that lies in a store. Its manifest is this as JSON, beside the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Where it lies, for a person: `s3://bucket/key`, `gs://…`, `az://…`, `pvc://claim/key`.
    pub uri: String,
    /// The object's key, the store's prefix included.
    pub key: String,
    /// The object's size in bytes.
    pub size_bytes: i64,
    /// The size in bytes of the snapshot before compression.
    pub snapshot_bytes: i64,
    /// SHA-256 of the object, in hexadecimal.
    pub sha256: String,
    /// The revision that the snapshot holds.
    pub revision: i64,
    /// HashKV at that revision: what a cluster that starts from it must answer.
    pub hash: u32,
    /// The revision below which history was compacted when the hash was taken.
    pub compact_revision: i64,
    /// How many revisions of keys the snapshot holds.
    pub keys: i64,
    /// The cluster's ID, as sixteen hexadecimal digits.
    pub cluster_id: String,
    /// Namespace and name of the cluster.
    pub cluster: String,
    /// The member that it was taken of.
    pub member: String,
    /// The version that the member reports.
    pub version: String,
    /// When it was begun, RFC 3339.
    pub started_at: String,
    /// When it was whole, RFC 3339.
    pub finished_at: String,
}

/// How a backup is proved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerifyMode {
    /// It is read in full: its SHA-256, its decompression and the snapshot's own hash agree.
    #[default]
    Hash,
    /// As `Hash`; then a throw-away node starts from it and answers the same HashKV.
    TestRestore,
}

/// Prove a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyRequest {
    /// The name of the task.
    pub name: String,
    /// Where the backup lies.
    pub store: Store,
    /// What it must be.
    pub artifact: Artifact,
    /// How it is proved.
    pub mode: VerifyMode,
}

/// A verification's task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyState {
    /// How far it is.
    pub phase: Phase,
    /// Why it failed; with `Failed` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Delete a backup: its manifest first, so that what is left never counts as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteRequest {
    /// Where the backup lies.
    pub store: Store,
    /// The object's key, the store's prefix included. An object that is gone is no error.
    pub key: String,
}

/// What the gate of a new cluster's first member starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreRequest {
    /// Where the backup lies.
    pub store: Store,
    /// The object's key, the store's prefix included.
    pub key: String,
}
