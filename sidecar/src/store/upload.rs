//! One object that is written as its bytes come: whole under its key, or not there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::{MultipartId, MultipartUpload};
use sha2::{Digest as _, Sha256};

use super::Place;
use crate::failure::{Failure, Reason};

/// How long the store may take to forget what was uploaded.
const ABORT_LIMIT: Duration = Duration::from_secs(10);
/// How many times the store is told to forget parts.
const ABORTS_MAX: usize = 5;
/// How long a part that was on its way is given to arrive.
const ABORT_PAUSE: Duration = Duration::from_millis(500);

/// An upload that is under way. [`Upload::finish`] or [`Upload::abort`] ends it.
pub struct Upload {
    parts: Parts,
    place: Place,
    key: String,
    /// All parts but the last have this size, as some stores ask.
    part_bytes: usize,
    waiting: Vec<u8>,
    hash: Sha256,
    size: u64,
}

/// Where parts wait to become an object.
pub(super) enum Parts {
    /// In a bucket, under an ID, by which they are found again after a crash.
    Bucket {
        store: Arc<dyn MultipartStore>,
        key: Key,
        id: String,
        sent: Vec<PartId>,
    },
    /// In a file with another name beside the one to be.
    File(Box<dyn MultipartUpload>),
}

impl Parts {
    async fn send(&mut self, part: Bytes) -> object_store::Result<()> {
        match self {
            Self::Bucket {
                store,
                key,
                id,
                sent,
            } => {
                let part = store.put_part(key, id, sent.len(), part.into()).await?;
                sent.push(part);
                Ok(())
            }
            Self::File(file) => file.put_part(part.into()).await,
        }
    }

    async fn complete(&mut self) -> object_store::Result<()> {
        let stored = match self {
            Self::Bucket {
                store,
                key,
                id,
                sent,
            } => {
                let parts = std::mem::take(sent);
                store.complete_multipart(key, id, parts).await?
            }
            Self::File(file) => file.complete().await?,
        };
        tracing::debug!(e_tag = ?stored.e_tag, "an upload is whole");
        Ok(())
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        match self {
            Self::Bucket { store, key, id, .. } => forget(store.as_ref(), key, id).await,
            Self::File(file) => file.abort().await,
        }
    }
}

/// An object that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
}

impl Upload {
    pub(super) fn new(parts: Parts, place: Place, key: &str, part_bytes: usize) -> Self {
        Self {
            parts,
            place,
            key: key.to_owned(),
            part_bytes,
            waiting: Vec::with_capacity(part_bytes),
            hash: Sha256::new(),
            size: 0,
        }
    }

    /// By what its parts are found after a crash, where the store needs it.
    pub fn id(&self) -> Option<&str> {
        match &self.parts {
            Parts::Bucket { id, .. } => Some(id),
            Parts::File(_) => None,
        }
    }

    /// Takes the next bytes; sends a part once there are enough.
    ///
    /// # Errors
    /// The store refuses or does not answer.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let taken = bytes.len().min(self.part_bytes - self.waiting.len());
            self.waiting.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.waiting.len() == self.part_bytes {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Failure> {
        let part = std::mem::take(&mut self.waiting);
        self.hash.update(&part);
        self.size += part.len() as u64;
        let sent = self.parts.send(Bytes::from(part)).await;
        self.waiting.reserve_exact(self.part_bytes);
        sent.map_err(|error| self.place.failed("write", &self.key, error))
    }

    /// Sends what is left and gives the object its key.
    ///
    /// # Errors
    /// The store refuses or does not answer. [`Upload::abort`] is still to be called then.
    pub async fn finish(&mut self) -> Result<Uploaded, Failure> {
        if !self.waiting.is_empty() || self.size == 0 {
            self.send().await?;
        }
        let done = self.parts.complete().await;
        done.map_err(|error| self.place.failed("write", &self.key, error))?;
        let digest = std::mem::take(&mut self.hash).finalize();
        Ok(Uploaded {
            size: self.size,
            sha256: hexadecimal(&digest),
        })
    }

    /// Has the store forget the parts. They have no key, so they are no object.
    ///
    /// # Errors
    /// They may be left; [`Place::clean`] tries once more.
    pub async fn abort(mut self) -> Result<(), Failure> {
        match tokio::time::timeout(ABORT_LIMIT, self.parts.abort()).await {
            Ok(Ok(()) | Err(object_store::Error::NotFound { .. })) => Ok(()),
            Ok(Err(error)) => Err(self.place.failed("abort", &self.key, error)),
            Err(_) => {
                let text = format!("abort {}: no answer", self.place.uri(&self.key));
                Err(Failure::new(Reason::StoreUnreachable, text))
            }
        }
    }
}

/// Has a bucket forget an upload. A part that was on its way may arrive after the store forgot
/// the others, so it is told until it knows nothing of them, as S3's documentation of
/// AbortMultipartUpload advises.
///
/// # Errors
/// The store refuses or does not answer.
pub(super) async fn forget(
    store: &dyn MultipartStore,
    key: &Key,
    id: &MultipartId,
) -> object_store::Result<()> {
    for _ in 0..ABORTS_MAX {
        match store.abort_multipart(key, id).await {
            Ok(()) => tokio::time::sleep(ABORT_PAUSE).await,
            Err(object_store::Error::NotFound { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Bytes as lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
