//! One backup, from the member to the store, with a few parts of the object in memory.

use std::time::Instant;

use async_compression::tokio::write::ZstdEncoder;
use bytes::Bytes;
use jiff::Timestamp;
use quorate_sidecar::wire::{Artifact, BackupRequest, BackupState, Phase};
use quorate_snapshot::{Scan, Scanned};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;

use super::journal::Journal;
use super::{OBJECT_SUFFIX, manifest_key, read_manifest};

use crate::failure::{Failure, Reason};
use crate::member::snapshot::Snapshot;
use crate::member::{Members, status};
use crate::metrics::Metrics;
use crate::store::{Mounts, Place, Upload, Uploaded};
use crate::tasks::Running;

/// A part of an upload; S3 asks for 5 MiB at least.
const PART_BYTES_MIN: u64 = 8 * 1024 * 1024;
/// S3 takes 10,000; a little is left for what does not compress.
const PARTS_MAX: u64 = 9_000;

/// What taking a backup needs.
pub struct Taking {
    pub members: Members,
    pub mounts: Mounts,
    /// The member's name.
    pub name: String,
    pub metrics: Metrics,
    /// Held while a backup is taken, and while what earlier ones left is removed.
    pub journal: Mutex<Journal>,
}

/// What was read while it was sent on.
struct Sent {
    scanned: Scanned,
    uploaded: Uploaded,
}

impl Taking {
    /// Takes a backup.
    ///
    /// # Errors
    /// Why there is none. Nothing that counts as one is left.
    pub async fn run(
        &self,
        request: BackupRequest,
        running: Running<BackupState>,
    ) -> Result<BackupState, Failure> {
        let started = Instant::now();
        let cleaned = async {
            let mut journal = self.journal.lock().await;
            journal.clean(&self.mounts).await;
            Ok(journal)
        };
        let taken = match unless_cancelled(&running, cleaned).await {
            Ok(mut journal) => self.take(&request, &running, &mut journal).await,
            Err(failure) => Err(failure),
        };
        self.metrics.backup_ended(&taken, started.elapsed());
        match taken {
            Ok(artifact) => {
                tracing::info!(
                    name = request.name,
                    uri = artifact.uri,
                    revision = artifact.revision,
                    "took a backup"
                );
                Ok(BackupState {
                    phase: Phase::Succeeded,
                    bytes: u64::try_from(artifact.snapshot_bytes).unwrap_or(0),
                    artifact: Some(artifact),
                    problem: None,
                })
            }
            Err(failure) => {
                let reason = failure.reason.word();
                tracing::warn!(name = request.name, reason, %failure, "took no backup");
                Err(failure)
            }
        }
    }

    async fn take(
        &self,
        request: &BackupRequest,
        running: &Running<BackupState>,
        journal: &mut Journal,
    ) -> Result<Artifact, Failure> {
        let started_at = Timestamp::now();
        let place = Place::open(&request.store, &self.mounts)?;
        let client = self.members.own()?;
        let begun = async { Ok((status(&client).await?, Snapshot::begin(&client).await?)) };
        let (status, mut snapshot) = unless_cancelled(running, begun).await?;
        let key = format!("{}-{}{OBJECT_SUFFIX}", request.key, snapshot.revision);
        let key = place.key(&key);
        let earlier = find_earlier(&place, &key);
        if let Some(artifact) = unless_cancelled(running, earlier).await? {
            return Ok(artifact);
        }
        let open = Open {
            request,
            place: &place,
            key: &key,
        };
        let sent = open.send(&mut snapshot, running, journal).await?;
        let cluster_id = status.header.as_ref().map_or(0, |header| header.cluster_id);
        let artifact = Artifact {
            uri: place.uri(&key),
            size_bytes: signed(sent.uploaded.size),
            snapshot_bytes: signed(sent.scanned.bytes),
            sha256: sent.uploaded.sha256,
            revision: snapshot.revision,
            hash: snapshot.hash,
            compact_revision: snapshot.compacted,
            keys: signed(sent.scanned.records),
            cluster_id: format!("{cluster_id:016x}"),
            cluster: request.cluster.clone(),
            member: self.name.clone(),
            version: status.version,
            started_at: started_at.to_string(),
            finished_at: Timestamp::now().to_string(),
            key,
        };
        match count(&place, &artifact, running).await {
            Ok(()) => {
                // Left in the journal, it is looked at again, and found to be a backup.
                if let Err(failure) = journal.remove(&artifact.key) {
                    tracing::warn!(%failure, "the journal of uploads cannot be written");
                }
                Ok(artifact)
            }
            Err(failure) => {
                journal.clean(&self.mounts).await;
                Err(failure)
            }
        }
    }
}

/// The backup that lies under `key` already: one that was taken by a sidecar which then died, and
/// is asked for again. It must not be overwritten, since its manifest would lie for a while.
async fn find_earlier(place: &Place, key: &str) -> Result<Option<Artifact>, Failure> {
    match read_manifest(place, key).await {
        Ok(artifact) => Ok(Some(artifact)),
        // Who may not list a bucket is not told that a key is not there.
        Err(failure) if [Reason::NotFound, Reason::AccessDenied].contains(&failure.reason) => {
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// A backup whose object has its key.
struct Open<'a> {
    request: &'a BackupRequest,
    place: &'a Place,
    key: &'a str,
}

impl Open<'_> {
    /// Sends the snapshot to the store, under its final key.
    async fn send(
        &self,
        snapshot: &mut Snapshot,
        running: &Running<BackupState>,
        journal: &mut Journal,
    ) -> Result<Sent, Failure> {
        let first = unless_cancelled(running, snapshot.next()).await?;
        let first = first.ok_or_else(|| {
            Failure::new(Reason::Truncated, "the member sent no byte of its snapshot")
        })?;
        let total_bytes = first.remaining_bytes + first.bytes.len() as u64;
        let part_bytes = total_bytes.div_ceil(PARTS_MAX).max(PART_BYTES_MIN);
        let part_bytes = usize::try_from(part_bytes).unwrap_or(usize::MAX);
        // A file is there from the first moment, a bucket's upload has its ID only afterwards.
        journal.add(&self.request.store, self.key, None)?;
        let mut upload = self.place.upload(self.key, part_bytes).await?;
        journal.add(&self.request.store, self.key, upload.id())?;
        let sending = async {
            let scanned = stream(first.bytes, snapshot, &mut upload, running).await?;
            check(&scanned, snapshot)?;
            Ok(scanned)
        };
        let sent = match unless_cancelled(running, sending).await {
            Ok(scanned) => upload
                .finish()
                .await
                .map(|uploaded| Sent { scanned, uploaded }),
            Err(failure) => Err(failure),
        };
        if sent.is_err() {
            // What cannot be removed now stays in the journal. It does not count as a backup.
            match upload.abort().await {
                Ok(()) => journal.forget(self.place, self.key).await,
                Err(failure) => {
                    let key = self.key;
                    tracing::warn!(key, %failure, "parts of an unfinished upload are left");
                }
            }
        }
        sent
    }
}

/// Writes the manifest: from here on it is a backup.
async fn count(
    place: &Place,
    artifact: &Artifact,
    running: &Running<BackupState>,
) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(artifact);
    let mut text = text.map_err(|error| Failure::internal(error.to_string()))?;
    text.push(b'\n');
    if running.cancel.is_cancelled() {
        return Err(cancelled());
    }
    let key = manifest_key(&artifact.key)?;
    let written = place.put(&key, Bytes::from(text)).await;
    if let Err(failure) = &written
        && let Err(error) = place.delete(&key).await
    {
        // It may be there although the answer was lost; then it is a backup that nobody names.
        tracing::warn!(key, %failure, %error, "a manifest may be left");
    }
    written
}

/// Reads the snapshot to its end, and sends it on compressed.
async fn stream(
    first: Bytes,
    snapshot: &mut Snapshot,
    upload: &mut Upload,
    running: &Running<BackupState>,
) -> Result<Scanned, Failure> {
    let mut scan = Scan::new();
    let mut zstd = ZstdEncoder::new(Vec::new());
    let compressed = |error| Failure::disk("compress the snapshot", &error);
    let mut next = Some(first);
    while let Some(bytes) = next {
        scan.push(&bytes).map_err(Failure::snapshot)?;
        zstd.write_all(&bytes).await.map_err(compressed)?;
        upload.write(zstd.get_ref()).await?;
        zstd.get_mut().clear();
        running.update(|state| state.bytes += bytes.len() as u64);
        next = snapshot.next().await?.map(|piece| piece.bytes);
    }
    zstd.shutdown().await.map_err(compressed)?;
    upload.write(zstd.get_ref()).await?;
    scan.finish().map_err(Failure::snapshot)
}

/// What the file holds must be what the member said of it.
fn check(scanned: &Scanned, snapshot: &Snapshot) -> Result<(), Failure> {
    let said = (snapshot.revision, snapshot.compacted);
    let found = (scanned.revision, scanned.compacted);
    if said == found {
        return Ok(());
    }
    let text = format!(
        "the snapshot holds revision {} compacted to {}, not {} compacted to {} as the member said",
        found.0, found.1, said.0, said.1
    );
    Err(Failure::new(Reason::HashMismatch, text))
}

async fn unless_cancelled<T>(
    running: &Running<BackupState>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = running.cancel.cancelled() => Err(cancelled()),
    }
}

fn cancelled() -> Failure {
    Failure::new(Reason::Cancelled, "it was cancelled before it was whole")
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
