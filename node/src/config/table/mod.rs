//! One table of all flags: name, kind, default, section and what the flag does here.
//!
//! Names, defaults and help are those of etcd 3.7 (server/embed/config.go, server/etcdmain/
//! config.go). A flag that etcd has and we do not is in the table too, with what becomes of it.

mod clustering;
mod member;
mod observing;
mod security;

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Bool,
    /// A whole number that may be negative.
    Int,
    /// A whole number from 0 on.
    Uint,
    /// As Uint, up to 2^32 - 1.
    Uint32,
    /// As Go writes durations: `1h30m`, `100ms`.
    Duration,
    /// URLs, parted by commas.
    Urls,
    /// URLs, parted by commas, or `*`.
    UrlsOrStar,
    /// Texts, parted by commas.
    Texts,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// What a flag does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// What it does in etcd.
    Works,
    /// Nothing; a value other than the default is told in a warning, with this reason.
    Idle(&'static str),
    /// A value other than the default stops the start, for this reason: to take it and do nothing
    /// would leave the store less safe than its operator believes, or another store than asked.
    Refused(&'static str),
}

/// The headings of `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Member,
    Clustering,
    Security,
    Auth,
    Profiling,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Other,
}

impl Section {
    pub const ALL: [Self; 10] = [
        Self::Member,
        Self::Clustering,
        Self::Security,
        Self::Auth,
        Self::Profiling,
        Self::Logging,
        Self::Tracing,
        Self::Features,
        Self::Unsafe,
        Self::Other,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Member => "Member",
            Self::Clustering => "Clustering",
            Self::Security => "Security",
            Self::Auth => "Auth",
            Self::Profiling => "Profiling and Monitoring",
            Self::Logging => "Logging",
            Self::Tracing => "Distributed tracing",
            Self::Features => "Features",
            Self::Unsafe => "Unsafe feature",
            Self::Other => "Other",
        }
    }
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub section: Section,
    pub effect: Effect,
    pub help: &'static str,
}

/// Every flag, in the order of `--help`.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    [
        member::FLAGS,
        clustering::FLAGS,
        security::FLAGS,
        observing::FLAGS,
    ]
    .into_iter()
    .flatten()
}

/// The flag of this name.
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// One row of the table.
const fn row(
    section: Section,
    name: &'static str,
    kind: Kind,
    default: &'static str,
    effect: Effect,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        section,
        effect,
        help,
    }
}

/// Old names with the flag that took over. `Err` names a feature gate instead.
///
/// etcd took these until 3.6.
pub const OLD_NAMES: &[(&str, Result<&str, &str>)] = &[
    (
        "experimental-initial-corrupt-check",
        Err("InitialCorruptCheck"),
    ),
    (
        "experimental-compact-hash-check-enabled",
        Err("CompactHashCheck"),
    ),
    (
        "experimental-enable-lease-checkpoint",
        Err("LeaseCheckpoint"),
    ),
    (
        "experimental-enable-lease-checkpoint-persist",
        Err("LeaseCheckpointPersist"),
    ),
    (
        "experimental-txn-mode-write-with-shared-buffer",
        Err("TxnModeWriteWithSharedBuffer"),
    ),
    (
        "experimental-stop-grpc-service-on-defrag",
        Err("StopGRPCServiceOnDefrag"),
    ),
    ("experimental-corrupt-check-time", Ok("corrupt-check-time")),
    (
        "experimental-compact-hash-check-time",
        Ok("compact-hash-check-time"),
    ),
    (
        "experimental-compaction-batch-limit",
        Ok("compaction-batch-limit"),
    ),
    (
        "experimental-compaction-sleep-interval",
        Ok("compaction-sleep-interval"),
    ),
    (
        "experimental-peer-skip-client-san-verification",
        Ok("peer-skip-client-san-verification"),
    ),
    (
        "experimental-watch-progress-notify-interval",
        Ok("watch-progress-notify-interval"),
    ),
    (
        "experimental-warning-apply-duration",
        Ok("warning-apply-duration"),
    ),
    (
        "experimental-warning-unary-request-duration",
        Ok("warning-unary-request-duration"),
    ),
    (
        "experimental-bootstrap-defrag-threshold-megabytes",
        Ok("bootstrap-defrag-threshold-megabytes"),
    ),
    ("experimental-memory-mlock", Ok("memory-mlock")),
    ("experimental-max-learners", Ok("max-learners")),
    (
        "experimental-snapshot-catchup-entries",
        Ok("snapshot-catchup-entries"),
    ),
    (
        "experimental-snapshot-catch-up-entries",
        Ok("snapshot-catchup-entries"),
    ),
    (
        "experimental-downgrade-check-time",
        Ok("downgrade-check-time"),
    ),
    (
        "experimental-enable-distributed-tracing",
        Ok("enable-distributed-tracing"),
    ),
    (
        "experimental-distributed-tracing-address",
        Ok("distributed-tracing-address"),
    ),
    (
        "experimental-distributed-tracing-service-name",
        Ok("distributed-tracing-service-name"),
    ),
    (
        "experimental-distributed-tracing-instance-id",
        Ok("distributed-tracing-instance-id"),
    ),
    (
        "experimental-distributed-tracing-sampling-rate",
        Ok("distributed-tracing-sampling-rate"),
    ),
];

/// Names that etcd itself takes and ignores.
pub const IGNORED_NAMES: &[&str] = &[
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
];

/// The feature gates of etcd 3.7 with their defaults.
///
/// etcd: server/features/etcd_features.go.
pub const FEATURE_GATES: &[(&str, bool)] = &[
    ("AllAlpha", false),
    ("AllBeta", false),
    ("StopGRPCServiceOnDefrag", false),
    ("TxnModeWriteWithSharedBuffer", true),
    ("InitialCorruptCheck", false),
    ("CompactHashCheck", false),
    ("LeaseCheckpoint", false),
    ("LeaseCheckpointPersist", false),
    ("SetMemberLocalAddr", false),
    ("FastLeaseKeepAlive", true),
    ("PriorityRequest", false),
];
