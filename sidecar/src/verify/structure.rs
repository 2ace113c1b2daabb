//! A snapshot's file, page by page: its own hash, bbolt's trees, and what the manifest says.

use std::path::Path;

use quorate_sidecar::wire::Artifact;
use quorate_snapshot::{Entries, Error, File, etcd};

use crate::failure::{Failure, Reason};
use crate::restore::blocking;

/// Reads all of the file and holds it against the manifest.
///
/// # Errors
/// It is damaged, or holds something else.
pub async fn check(file: &Path, artifact: &Artifact) -> Result<(), Failure> {
    let file = file.to_owned();
    let count = blocking(move || {
        let file = File::open(&file).map_err(Failure::snapshot)?;
        file.verify_digest().map_err(Failure::snapshot)?;
        let mut count = Count::default();
        file.walk(&mut count).map_err(Failure::snapshot)?;
        Ok(count)
    });
    let count = count.await?;
    let found = (count.revision.max(count.compacted).max(1), count.keys);
    let said = (artifact.revision, artifact.keys);
    if found == said {
        return Ok(());
    }
    let text = format!(
        "the snapshot holds {} revisions of keys up to {}, and its manifest says {} up to {}",
        found.1, found.0, said.1, said.0
    );
    Err(Failure::new(Reason::HashMismatch, text))
}

#[derive(Default)]
struct Count {
    bucket: Vec<u8>,
    keys: i64,
    revision: i64,
    compacted: i64,
}

impl Entries for Count {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.bucket = name.to_vec();
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        match self.bucket.as_slice() {
            etcd::KEY => {
                self.keys += 1;
                self.revision = self.revision.max(etcd::decode_revision(key)?.main);
            }
            etcd::META if key == etcd::SCHEDULED_COMPACT || key == etcd::FINISHED_COMPACT => {
                self.compacted = self.compacted.max(etcd::decode_compaction(value)?);
            }
            _ => {}
        }
        Ok(())
    }
}
