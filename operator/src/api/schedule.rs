//! Scheduled backups.

use kube::KubeSchema;
use quorate_sidecar::wire::{Store, VerifyMode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Reclaim;

/// Scheduled backups: each run is a `QuorateBackup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.store.s3), has(self.store.gcs), has(self.store.azure), has(self.store.pvc)].filter(given, given).size() == 1").message(
    "backup.store is exactly one of s3, gcs, azure and pvc"
))]
pub struct BackupSettings {
    /// When: five fields of cron (minute, hour, day of month, month, day of week), or `@hourly`,
    /// `@daily`, `@weekly`, `@monthly`. None: only by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub schedule: Option<String>,
    /// The time zone of the schedule, an IANA name such as `Europe/Berlin`; UTC without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
    /// No new runs while true.
    #[serde(default)]
    pub suspend: bool,
    /// Each run begins up to so many seconds later than the schedule says, always equally much for
    /// one cluster, so that clusters do not begin together.
    #[serde(default)]
    #[schemars(range(min = 0, max = 3600))]
    pub jitter_seconds: i64,
    /// A run that could not begin within so many seconds is left out; 3600 without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub starting_deadline_seconds: Option<i64>,
    /// Where backups lie.
    pub store: Store,
    /// Which backups stay.
    #[serde(default)]
    pub retention: Retention,
    /// How backups are proved.
    #[serde(default)]
    pub verify: Verify,
    /// What becomes of the stored object when its `QuorateBackup` is deleted by a user. Retention
    /// always deletes both.
    #[serde(default)]
    pub reclaim: Reclaim,
}

/// Which scheduled backups stay. The last verified one always does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// At most so many; no bound without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_last: Option<i64>,
    /// At most so old, in hours; no bound without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 876_000))]
    pub max_age_hours: Option<i64>,
}

/// How backups are proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// Each backup is proved by this.
    #[serde(default)]
    pub mode: VerifyMode,
    /// Each so many-th scheduled backup is proved by `TestRestore`, whatever `mode` says. 0: none.
    #[serde(default = "default_every")]
    #[schemars(range(min = 0, max = 10_000))]
    pub test_restore_every: i64,
}

fn default_every() -> i64 {
    7
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            mode: VerifyMode::default(),
            test_restore_every: default_every(),
        }
    }
}
