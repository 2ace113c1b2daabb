//! etcd's snapshot file: a bbolt file with etcd's buckets, followed by the SHA-256 of that file.
//!
//! ```text
//! source ── entries ──> Plan      first pass: how many pages each bucket takes
//! source ── entries ──> Writer    second pass: pages, from the first byte to the last
//! File ──── entries ──> Status, an import, or a Plan and a Writer again
//! ```
//! Everything flows through [`Entries`]: buckets by name, entries by key. Reading and writing hold
//! a few pages and the largest record in memory, whatever the size of the file; the reader also
//! holds one bit for each page. It knows neither the server nor its store.
//!
//! What a bbolt file is: `go.etcd.io/bbolt` (internal/common/page.go, meta.go, bucket.go).

mod cluster;
mod directory;
pub mod etcd;
mod format;
mod hash_kv;
pub mod identity;
mod manifest;
mod plan;
mod reader;
mod restore;
mod rewrite;
mod scan;
mod status;
mod wal;
mod walk;
mod writer;

pub use cluster::InitialCluster;
pub use directory::{DirectoryOptions, remove_unfinished, restore_directory};
pub use hash_kv::HashKv;
pub use manifest::Manifest;
pub use plan::Plan;
pub use reader::{Digest, File};
pub use restore::{Restore, restore};
pub use rewrite::{StorageVersion, Version, rewrite, storage_version};
pub use scan::{Scan, Scanned};
pub use status::Status;
pub use wal::Wal;
pub use writer::Writer;

/// Why a snapshot file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
    /// The file is not what was written, or no snapshot at all.
    #[error("{path}: damaged at offset {offset}: {what}")]
    Damaged {
        path: String,
        offset: u64,
        what: String,
    },
    /// A bucket holds something that etcd does not write there.
    #[error("bucket {bucket:?}: {what}")]
    Content { bucket: String, what: String },
    /// The file has no trailing SHA-256.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoDigest,
    /// The file's SHA-256 is not that of its content.
    #[error("expected sha256 {expected:?}, got {found:?}")]
    OtherDigest { expected: [u8; 32], found: [u8; 32] },
    /// The revision that was asked for is compacted.
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// The revision that was asked for is not there yet.
    #[error("mvcc: required revision is a future revision")]
    Future,
    /// Two passes over one source differed, or entries came out of order: a fault of the caller.
    #[error("the entries to write {0}")]
    Order(String),
    /// A data directory that is to be made holds something already.
    #[error("data-dir \"{path}\" not empty or could not be read")]
    NotEmpty { path: String },
    /// The members that are named form no cluster.
    #[error("{0}")]
    Cluster(String),
    /// Who receives the entries or the pages has failed.
    #[error(transparent)]
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps the failure of a receiver.
    pub fn sink(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Sink(error.into())
    }

    pub(crate) fn content(bucket: &[u8], what: impl Into<String>) -> Self {
        Self::Content {
            bucket: String::from_utf8_lossy(bucket).into_owned(),
            what: what.into(),
        }
    }
}

/// Receives a file's content: each bucket, in the order of names, and after it its entries, in the
/// order of keys.
pub trait Entries {
    /// A bucket begins.
    ///
    /// # Errors
    /// Whatever makes it pointless to go on.
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error>;

    /// An entry of the bucket that began last.
    ///
    /// # Errors
    /// As [`Entries::bucket`].
    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error>;
}
