//! Where backups lie: buckets and mounted volumes behind one face. The only user of object_store.
//!
//! ```text
//! wire::Store ── open ──> Place ──> Upload      parts as they come, whole or not at all
//!                           ├─────> download    in ranges, each bounded in time
//!                           └─────> put, size, delete
//! ```
//! What fails becomes a [`Failure`] with a reason that stays the same and no secret in its text.

mod errors;
mod open;
mod upload;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};

use self::errors::Secrets;
pub use self::open::Mounts;
use self::upload::Parts;
pub use self::upload::{Upload, Uploaded, hexadecimal};
use crate::failure::{Failure, Reason};

/// What one request for an object's content brings: its memory, and what a retry repeats.
const RANGE_BYTES: u64 = 8 * 1024 * 1024;

/// An open store.
#[derive(Clone)]
pub struct Place {
    store: Arc<dyn ObjectStore>,
    uploads: Uploads,
    /// What a URI of it begins with.
    shown: String,
    prefix: Option<String>,
    secrets: Arc<Secrets>,
}

/// How objects are written that do not fit into one request.
#[derive(Clone)]
enum Uploads {
    Bucket(Arc<dyn MultipartStore>),
    /// Files below this folder.
    Folder(PathBuf),
}

impl Place {
    /// A key below the store's prefix.
    pub fn key(&self, below: &str) -> String {
        match self.prefix.as_deref() {
            None | Some("") => below.to_owned(),
            Some(prefix) => format!("{prefix}/{below}"),
        }
    }

    /// Where `key` is, for a person.
    pub fn uri(&self, key: &str) -> String {
        format!("{}/{key}", self.shown)
    }

    /// Begins to upload to `key`, in parts of `part_bytes`.
    ///
    /// # Errors
    /// The store refuses or does not answer.
    pub async fn upload(&self, key: &str, part_bytes: usize) -> Result<Upload, Failure> {
        let failed = |error| self.failed("write", key, error);
        let parsed = parse(key)?;
        let parts = match &self.uploads {
            Uploads::Bucket(store) => Parts::Bucket {
                store: Arc::clone(store),
                id: store.create_multipart(&parsed).await.map_err(failed)?,
                key: parsed,
                sent: Vec::new(),
            },
            Uploads::Folder(_) => {
                Parts::File(self.store.put_multipart(&parsed).await.map_err(failed)?)
            }
        };
        Ok(Upload::new(parts, self.clone(), key, part_bytes))
    }

    /// Removes the parts of an upload to `key` that was neither finished nor aborted. `id` is
    /// what [`Upload::id`] said.
    ///
    /// # Errors
    /// The store refuses or does not answer.
    pub async fn clean(&self, key: &str, id: Option<&str>) -> Result<(), Failure> {
        let parsed = parse(key)?;
        match (&self.uploads, id) {
            (Uploads::Bucket(store), Some(id)) => {
                let forgotten = upload::forget(store.as_ref(), &parsed, &id.to_owned()).await;
                forgotten.map_err(|error| self.failed("abort", key, error))
            }
            (Uploads::Bucket(_), None) => Ok(()),
            (Uploads::Folder(volume), _) => remove_parts(&volume.join(parsed.as_ref())),
        }
    }

    /// Stores a small object.
    ///
    /// # Errors
    /// The store refuses or does not answer.
    pub async fn put(&self, key: &str, content: Bytes) -> Result<(), Failure> {
        let stored = self.store.put(&parse(key)?, content.into()).await;
        let stored = stored.map_err(|error| self.failed("write", key, error))?;
        tracing::debug!(key, version = ?stored.version, "stored");
        Ok(())
    }

    /// The size of an object in bytes.
    ///
    /// # Errors
    /// [`Reason::NotFound`] when it is not there.
    pub async fn size(&self, key: &str) -> Result<u64, Failure> {
        let meta = self.store.head(&parse(key)?).await;
        Ok(meta.map_err(|error| self.failed("read", key, error))?.size)
    }

    /// Some bytes of an object.
    ///
    /// # Errors
    /// [`Reason::NotFound`] when it is not there.
    pub async fn read(&self, key: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        let read = self.store.get_range(&parse(key)?, range).await;
        read.map_err(|error| self.failed("read", key, error))
    }

    /// The first `size` bytes of an object, piece by piece.
    pub fn download(&self, key: &str, size: u64) -> impl Stream<Item = Result<Bytes, Failure>> {
        let (place, key) = (self.clone(), key.to_owned());
        futures::stream::try_unfold(0, move |at| {
            let (place, key) = (place.clone(), key.clone());
            async move {
                if at >= size {
                    return Ok(None);
                }
                let end = size.min(at + RANGE_BYTES);
                let piece = place.read(&key, at..end).await?;
                if piece.is_empty() {
                    let text = format!("{}: it ends at byte {at} of {size}", place.uri(&key));
                    return Err(Failure::new(Reason::Truncated, text));
                }
                let next = at + piece.len() as u64;
                Ok(Some((piece, next)))
            }
        })
    }

    /// Deletes an object. One that is gone is no error.
    ///
    /// # Errors
    /// The store refuses or does not answer.
    pub async fn delete(&self, key: &str) -> Result<(), Failure> {
        match self.store.delete(&parse(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", key, error)),
        }
    }

    fn failed(&self, what: &str, key: &str, error: object_store::Error) -> Failure {
        errors::failure(&error, &format!("{what} {}", self.uri(key)), &self.secrets)
    }
}

/// Removes the files `path#1`, `path#2`, … in which object_store gathers parts of `path`.
fn remove_parts(path: &Path) -> Result<(), Failure> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let begin = format!("{}#", name.to_string_lossy());
    let failed = |error: io::Error| Failure::disk(folder.display(), &error);
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(&begin) {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn parse(key: &str) -> Result<Key, Failure> {
    let parsed = Key::parse(key)
        .ok()
        .filter(|parsed| parsed.as_ref() == key && !key.is_empty());
    parsed.ok_or_else(|| {
        let text = format!("{key:?} is no key of an object: parts between single slashes, no dots");
        Failure::new(Reason::BadRequest, text)
    })
}
