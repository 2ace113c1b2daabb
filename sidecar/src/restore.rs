//! A backup made into a snapshot's file again, or into a member's data directory, and checked
//! against its manifest on the way.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_compression::tokio::bufread::ZstdDecoder;
use futures::{StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use quorate_sidecar::wire::Artifact;
use quorate_snapshot::{DirectoryOptions, InitialCluster, restore_directory};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use crate::failure::{Failure, Reason};
use crate::store::{Place, hexadecimal};

/// Reads the whole object of `artifact` into the new file `path`, decompressed.
///
/// # Errors
/// The object is not what the manifest says, the store does not answer, or the disk is full. What
/// was written is left to the caller.
pub async fn fetch(place: &Place, artifact: &Artifact, path: &Path) -> Result<(), Failure> {
    let uri = place.uri(&artifact.key);
    let expected = u64::try_from(artifact.size_bytes).unwrap_or(0);
    let found = place.size(&artifact.key).await?;
    if found != expected {
        let text = format!("{uri} has {found} bytes, and its manifest says {expected}");
        return Err(Failure::new(Reason::Truncated, text));
    }
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let hashed = Arc::clone(&hash);
    let pieces = place.download(&artifact.key, found);
    let pieces = pieces.inspect_ok(move |piece| hashed.lock().update(piece));
    let pieces = pieces.map_err(io::Error::other).boxed();
    let file = tokio::fs::File::create_new(path).await;
    let mut file = file.map_err(|error| Failure::disk(path.display(), &error))?;
    // One byte more than there should be, so that more is seen, and not written without an end.
    let limit = u64::try_from(artifact.snapshot_bytes).unwrap_or(0) + 1;
    let mut decoder = ZstdDecoder::new(StreamReader::new(pieces)).take(limit);
    let written = tokio::io::copy(&mut decoder, &mut file).await;
    let mut rest = decoder.into_inner().into_inner();
    let drained = tokio::io::copy_buf(&mut rest, &mut tokio::io::sink()).await;
    // Its own hash tells more than where the decompression gave up.
    let digest = hexadecimal(&std::mem::take(&mut *hash.lock()).finalize());
    let broken = |error: io::Error| told(error, &uri, path);
    if drained.is_ok() && digest != artifact.sha256 {
        let text = format!("{uri} has the SHA-256 {digest}, not {}", artifact.sha256);
        return Err(Failure::new(Reason::HashMismatch, text));
    }
    let written = written.map_err(broken)?;
    drained.map_err(broken)?;
    if written + 1 != limit {
        let text = format!(
            "{uri} decompresses to {written} bytes, and its manifest says {}",
            limit - 1
        );
        return Err(Failure::new(Reason::HashMismatch, text));
    }
    file.sync_all()
        .await
        .map_err(|error| Failure::disk(path.display(), &error))
}

/// What an I/O error in the middle of it was in truth.
fn told(error: io::Error, uri: &str, path: &Path) -> Failure {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Failure>());
    match (inner, error.kind()) {
        (Some(failure), _) => failure.clone(),
        (None, io::ErrorKind::UnexpectedEof) => {
            let text = format!("{uri} ends in the middle of its compressed content");
            Failure::new(Reason::Truncated, text)
        }
        (None, io::ErrorKind::Other | io::ErrorKind::InvalidData) => {
            let text = format!("{uri} cannot be decompressed: {error}");
            Failure::new(Reason::HashMismatch, text)
        }
        (None, _) => Failure::disk(path.display(), &error),
    }
}

/// How a member's data directory is made of a snapshot.
#[derive(Debug, Clone)]
pub struct Target {
    pub cluster: InitialCluster,
    pub name: String,
    /// How much to increase the revision, which is then marked as compacted; 0 for not at all.
    pub bump_revision: u64,
}

impl Target {
    /// Makes `data_dir` of the snapshot in `file`: whole, or not at all.
    ///
    /// # Errors
    /// The snapshot is damaged, or the disk fails.
    pub async fn unpack(&self, file: &Path, data_dir: &Path) -> Result<(), Failure> {
        let (target, file) = (self.clone(), file.to_owned());
        let data_dir = data_dir.to_owned();
        let work = move || {
            let options = DirectoryOptions {
                cluster: &target.cluster,
                name: &target.name,
                bump_revision: target.bump_revision,
                skip_hash_check: false,
            };
            restore_directory(&file, &data_dir, &options).map_err(Failure::snapshot)
        };
        blocking(work).await
    }
}

/// Does what blocks on a thread of its own.
///
/// # Errors
/// What `work` says, or that it broke.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Failure::internal(format!("a task broke: {error}"))))
}
