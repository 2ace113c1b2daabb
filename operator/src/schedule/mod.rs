//! Backups: when the schedule wants one, which ones stay, and how one goes from wanted to proved.
//! Pure: whoever calls asks Kubernetes and the sidecars, and does what is handed back.

mod backup;
mod cron;
mod ending;
mod keys;
mod proof;
mod retention;
mod step;

pub use backup::{backup_step, refused};
pub use cron::{Due, check, next_run, run_name, verify_mode};
pub use keys::{object_key, task_name};
pub use retention::{Kept, retention};
pub use step::{BackupStep, BackupView, Candidate, ClusterFacts, Heard, MAX_ATTEMPTS};

/// How many characters of a UID tell objects apart.
const UID_CHARS: usize = 8;

#[cfg(test)]
mod backup_test;
#[cfg(test)]
mod cron_test;
#[cfg(test)]
mod retention_test;
