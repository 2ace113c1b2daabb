//! How tasks and stored objects are called, so that asking twice means the same thing.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::UID_CHARS;

/// The name of a backup's task in a sidecar: nothing else can be meant by it, also when a backup
/// of the same name was there before. A sidecar tells of a task that has failed for as long as it
/// remembers it, so that each attempt is a task of its own.
#[must_use]
pub fn task_name(backup: &str, uid: &str, attempt: i32) -> String {
    format!("{backup}-{}-{attempt}", short(uid))
}

/// The key of a backup below the store's prefix, as `BackupRequest` wants it. It is the same for
/// every attempt.
#[must_use]
pub fn object_key(namespace: &str, cluster: &str, cluster_uid: &str, at: Timestamp) -> String {
    let at = at.to_zoned(TimeZone::UTC);
    let folder = at.strftime("%Y/%m");
    let time = at.strftime("%Y%m%dT%H%M%SZ");
    format!(
        "{namespace}/{cluster}-{}/{folder}/{time}",
        short(cluster_uid)
    )
}

fn short(uid: &str) -> String {
    uid.chars()
        .filter(char::is_ascii_alphanumeric)
        .take(UID_CHARS)
        .collect()
}
