//! One object that is written as its bytes come: whole under its key, or not there.

use std::time::Duration;

use bytes::Bytes;
use object_store::MultipartUpload;
use sha2::{Digest as _, Sha256};

use super::Place;
use crate::failure::Failure;

/// How long the store may take to forget what was uploaded.
const ABORT_LIMIT: Duration = Duration::from_secs(10);

/// An upload that is under way. [`Upload::finish`] or [`Upload::abort`] ends it.
pub struct Upload {
    parts: Box<dyn MultipartUpload>,
    place: Place,
    key: String,
    /// All parts but the last have this size, as some stores ask.
    part_bytes: usize,
    waiting: Vec<u8>,
    hash: Sha256,
    size: u64,
}

/// An object that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
}

impl Upload {
    pub(super) fn new(
        parts: Box<dyn MultipartUpload>,
        place: Place,
        key: &str,
        part_bytes: usize,
    ) -> Self {
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
        let sent = self.parts.put_part(Bytes::from(part).into()).await;
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
        let done = done.map_err(|error| self.place.failed("write", &self.key, error))?;
        tracing::debug!(key = self.key, e_tag = ?done.e_tag, "uploaded");
        let digest = std::mem::take(&mut self.hash).finalize();
        Ok(Uploaded {
            size: self.size,
            sha256: hexadecimal(&digest),
        })
    }

    /// Has the store forget the parts. What cannot be forgotten has no key, so it is no object;
    /// it is told, and left to the bucket's lifecycle rule.
    pub async fn abort(mut self) {
        let key = &self.key;
        match tokio::time::timeout(ABORT_LIMIT, self.parts.abort()).await {
            Ok(Ok(())) => tracing::info!(key, "removed the parts of an unfinished upload"),
            Ok(Err(error)) => {
                let failure = self.place.failed("abort", key, error);
                tracing::warn!(key, %failure, "parts of an unfinished upload are left");
            }
            Err(_) => tracing::warn!(key, "parts of an unfinished upload are left: no answer"),
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
