//! Floor 2: disk. The only user of RocksDB, and the raft log's files.
//!
//! `log/` is our own segmented log: the one thing that is fsynced on the write path. The state is
//! RocksDB without its own WAL: the log replays what was not flushed. Every key encoding stands
//! beside its decoder in `layout.rs`.

pub mod batch;
pub mod checkpoint;
mod count;
pub mod db;
pub mod import;
pub mod layout;
pub mod log;
mod options;
pub mod read;
mod recent;
pub mod record;
pub mod scan;
pub mod snapshot;
mod tables;
mod versions;

pub use batch::{Batch, Eraser};
pub use count::CountBuild;
pub use db::Db;
pub use read::{Pair, Reader};
pub use record::Record;
pub use scan::Found;
pub use snapshot::Snapshot;

/// A disk error. It stops the node: nothing above tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("state store: {0}")]
    Engine(String),
    #[error("{path}: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
    /// What lies on disk is not what was written.
    #[error("{path} is damaged at offset {offset}: {what}")]
    Damaged {
        path: String,
        offset: u64,
        what: String,
    },
    /// Another process has the directory.
    #[error("{path} is in use by another process")]
    InUse { path: String },
    /// The directory belongs to another member or cluster.
    #[error("{path} belongs to {what}")]
    Foreign { path: String, what: String },
}
