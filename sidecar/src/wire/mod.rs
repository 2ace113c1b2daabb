//! What the operator asks of a sidecar over HTTPS, and what it hears: JSON bodies, one path a
//! task, every task named by its caller so that asking twice is the same as once.
//!
//! ```text
//! GET    /v1/status               → MemberReport
//! POST   /v1/handoff   HandoffRequest or nothing → Handoff   it gives up leadership
//! POST   /v1/backups   BackupRequest  → BackupState  202; 409 while another one runs
//! GET    /v1/backups/{name}       → BackupState      404: not known (the sidecar restarted)
//! DELETE /v1/backups/{name}       → 204              stops it and removes what it uploaded; one
//!                                                    that is whole already stays, and GET says so
//! POST   /v1/verifications VerifyRequest → VerifyState
//! GET    /v1/verifications/{name} → VerifyState
//! POST   /v1/deletions DeleteRequest → 204           an artifact and its manifest go
//! GET    /metrics, /healthz
//! ```
//! A refusal is a [`Problem`] with status 400, 403, 404, 409, 422 or 503.

mod backup;
mod store;

pub use backup::{
    Artifact, BackupRequest, BackupState, DeleteRequest, Phase, RestoreRequest, VerifyMode,
    VerifyRequest, VerifyState,
};
pub use store::{AzureStore, GcsStore, PvcStore, S3Store, Store, StoreError};

use serde::{Deserialize, Serialize};

/// The port of the sidecar's HTTPS API.
pub const PORT: u16 = 2382;

/// The environment variable in which the gate finds its [`RestoreRequest`] as JSON.
pub const RESTORE_VARIABLE: &str = "QUORATE_RESTORE";

/// The exit codes of `quorate-sidecar gate`, which the operator reads from the Pod's status.
pub mod exit {
    /// The data directory cannot be read as one: damaged beyond what a start mends, or empty
    /// although the cluster knows that this member has had data.
    pub const DATA_CORRUPT: i32 = 40;
    /// The cluster says that this member was removed; it must not come back.
    pub const REMOVED: i32 = 41;
    /// The data directory belongs to another member or another cluster.
    pub const WRONG_IDENTITY: i32 = 42;
    /// The backup to start from could not be fetched, or is not what its manifest says.
    pub const RESTORE_FAILED: i32 = 43;
    /// The names of the peers did not resolve in the time given.
    pub const PEERS_UNRESOLVED: i32 = 44;
}

/// What a sidecar knows of its member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberReport {
    /// The name of the member, which is its Pod's.
    pub name: String,
    /// Whether the member answers on loopback.
    pub serving: bool,
    /// Bytes of the data directory's file system: in all.
    pub disk_bytes: u64,
    /// Bytes of the data directory's file system: free for the member.
    pub disk_free_bytes: u64,
    /// The version of the sidecar's own build.
    pub sidecar_version: String,
}

/// A hand-off. Without a body nobody else is leaving.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandoffRequest {
    /// Names of members that must not lead, since they are about to stop or to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<String>,
}

/// The answer to a hand-off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handoff {
    /// Whether the member led when it was asked.
    pub was_leader: bool,
    /// Who leads now, as sixteen hexadecimal digits; None when no one could be handed to.
    pub leader: Option<String>,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// A word that stays the same: `BadRequest`, `NotFound`, `Busy`, `StoreUnreachable`,
    /// `AccessDenied`, `Truncated`, `HashMismatch`, `MemberUnavailable`, `DiskFull`, `Cancelled`,
    /// `Internal`.
    pub reason: String,
    /// What went wrong and what would be right, for a person.
    pub message: String,
}
