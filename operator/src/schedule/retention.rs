//! Which scheduled backups stay.

use jiff::{SignedDuration, Timestamp};

use crate::api::{BackupPhase, Retention};

/// How many failed ones are kept, for people to look at.
const FAILED_KEPT: usize = 3;

/// A scheduled backup, as far as retention cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The name of the `QuorateBackup`.
    pub name: String,
    /// How far it is.
    pub phase: BackupPhase,
    /// When it was made.
    pub created: Timestamp,
}

/// The names of those that go, the oldest first. What is not over yet stays, and so does the last
/// one that was proved, whatever the settings say.
#[must_use]
pub fn retention(backups: &[Kept], settings: &Retention, now: Timestamp) -> Vec<String> {
    let verified = newest_first(backups, BackupPhase::Verified);
    let failed = newest_first(backups, BackupPhase::Failed);
    let most = settings
        .keep_last
        .map(|most| usize::try_from(most).unwrap_or(1).max(1));
    let age = settings.max_age_hours.map(SignedDuration::from_hours);
    let goes = |(place, backup): &(usize, &&Kept)| {
        let many = most.is_some_and(|most| *place >= most);
        let old = age.is_some_and(|age| now.duration_since(backup.created) > age);
        *place > 0 && (many || old)
    };
    let verified = verified
        .iter()
        .enumerate()
        .filter(goes)
        .map(|(_, backup)| *backup);
    let mut gone: Vec<_> = verified
        .chain(failed.into_iter().skip(FAILED_KEPT))
        .collect();
    gone.sort_by_key(|backup| (backup.created, &backup.name));
    gone.into_iter().map(|backup| backup.name.clone()).collect()
}

fn newest_first(backups: &[Kept], phase: BackupPhase) -> Vec<&Kept> {
    let mut found: Vec<_> = backups
        .iter()
        .filter(|backup| backup.phase == phase)
        .collect();
    found.sort_by_key(|backup| std::cmp::Reverse((backup.created, &backup.name)));
    found
}
