//! Backups: taken as the member sends them, and deleted.
//!
//! ```text
//! Maintenance.Snapshot ─ pieces ─> Scan ─> zstd ─ parts ─> store     then the manifest
//! ```
//! What counts as a backup is an object with its manifest beside it. The manifest is written last
//! and deleted first, so that whatever dies in the middle leaves nothing that counts.
//!
//! The object's name holds the revision. The member says it before the first byte, so that the
//! object is written under its final name at once: nothing is copied or renamed, which in S3 is
//! not possible in one request above 5 GiB.

mod journal;
mod take;

use std::sync::Arc;

use quorate_sidecar::wire::{Artifact, BackupRequest, BackupState, DeleteRequest, Phase};

pub use self::journal::Journal;
pub use self::take::Taking;
use crate::failure::{Failure, Reason};
use crate::store::{Mounts, Place};
use crate::tasks::{State, Tasks};

/// How an object's key ends.
pub const OBJECT_SUFFIX: &str = ".snap.zst";
const MANIFEST_SUFFIX: &str = ".json";
/// A larger manifest is none.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024;

impl State for BackupState {
    fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    fn failed(self, failure: Failure) -> Self {
        Self {
            phase: Phase::Failed,
            problem: Some(failure.into()),
            ..self
        }
    }
}

/// Begins to take a backup, unless it was asked for before.
///
/// # Errors
/// [`Reason::Busy`] while another one runs, [`Reason::BadRequest`] for what no backup can be.
pub fn begin(
    tasks: &Tasks<BackupState>,
    taking: &Arc<Taking>,
    request: BackupRequest,
) -> Result<BackupState, Failure> {
    if request.name.is_empty() || request.key.is_empty() {
        let text = "a backup has a name and a key";
        return Err(Failure::new(Reason::BadRequest, text));
    }
    let first = BackupState {
        phase: Phase::Running,
        bytes: 0,
        artifact: None,
        problem: None,
    };
    let taking = Arc::clone(taking);
    let name = request.name.clone();
    tasks.begin(&name, first, |running| async move {
        taking.run(request, running).await
    })
}

/// The key of the manifest that belongs to the object `key`.
///
/// # Errors
/// [`Reason::BadRequest`] when it is no key of a backup's object.
pub fn manifest_key(key: &str) -> Result<String, Failure> {
    match key.strip_suffix(OBJECT_SUFFIX) {
        Some(stem) => Ok(format!("{stem}{MANIFEST_SUFFIX}")),
        None => {
            let text = format!("{key:?} is no backup: its key ends in {OBJECT_SUFFIX}");
            Err(Failure::new(Reason::BadRequest, text))
        }
    }
}

/// Reads the manifest of the object `key`.
///
/// # Errors
/// [`Reason::NotFound`] when there is none, [`Reason::HashMismatch`] when it is that of another.
pub async fn read_manifest(place: &Place, key: &str) -> Result<Artifact, Failure> {
    let manifest = manifest_key(key)?;
    let size = place.size(&manifest).await?.min(MANIFEST_BYTES_MAX);
    let text = place.read(&manifest, 0..size).await?;
    let wrong = |what: String| {
        let text = format!("{}: {what}", place.uri(&manifest));
        Failure::new(Reason::HashMismatch, text)
    };
    let artifact: Artifact = serde_json::from_slice(&text)
        .map_err(|error| wrong(format!("it is no manifest of a backup: {error}")))?;
    match artifact.key == key {
        true => Ok(artifact),
        false => Err(wrong(format!("it is the manifest of {:?}", artifact.key))),
    }
}

/// Deletes a backup: its manifest first, so that what is left never counts as one.
///
/// # Errors
/// The store refuses or does not answer.
pub async fn delete(request: &DeleteRequest, mounts: &Mounts) -> Result<(), Failure> {
    let manifest = manifest_key(&request.key)?;
    let place = Place::open(&request.store, mounts)?;
    place.delete(&manifest).await?;
    place.delete(&request.key).await?;
    tracing::info!(uri = place.uri(&request.key), "deleted a backup");
    Ok(())
}
