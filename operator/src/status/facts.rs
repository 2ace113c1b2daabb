//! What a status says beside what a look shows.

use jiff::Timestamp;

use crate::model::Refusal;

/// What a status says beside what a look shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The generation of the spec that the look and the plan are of.
    pub generation: Option<i64>,
    /// The version that the spec asks for.
    pub target_version: Option<String>,
    /// The lowest version that a member's Pod was made with.
    pub lowest_version: Option<String>,
    /// The label selector of the members' Pods.
    pub selector: Option<String>,
    /// Where clients connect.
    pub endpoint: Option<String>,
    /// The Secret that clients may use.
    pub client_secret: Option<String>,
    /// How certificates are.
    pub tls: TlsFacts,
    /// How backups are.
    pub backup: BackupFacts,
}

/// How certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsFacts {
    /// There is no TLS.
    Disabled,
    /// All are there and valid.
    Issued,
    /// One ends soon and was not renewed: which, and what to do.
    Expiring(String),
    /// One has ended: which, and what to do.
    Expired(String),
    /// A Secret is missing, or lacks a key: which, and what to do.
    SecretMissing(String),
}

/// How backups are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackupFacts {
    /// The spec has a schedule that is not suspended.
    pub scheduled_now: bool,
    /// Why there are no runs although there should be: an invalid schedule, a store that cannot be.
    pub refusal: Option<Refusal>,
    /// The last backup that ended has failed, and why.
    pub failure: Option<String>,
    /// The schedule wanted a backup, and there is none in the time given.
    pub overdue: bool,
    /// When the schedule last made one: the time that it was meant for.
    pub last_scheduled: Option<Timestamp>,
    /// When the last one that lies whole in its store was finished.
    pub last: Option<Timestamp>,
    /// When the last one that was proved was finished.
    pub last_verified: Option<Timestamp>,
    /// How many the schedule has made.
    pub scheduled: i64,
}
