//! Snapshots. To openraft, a snapshot is the state made durable; what goes to a member that fell
//! behind is a checkpoint, made when it is needed and sent file by file.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use openraft::storage::RaftSnapshotBuilder;
use openraft::type_config::alias;
use quorate_proto::quorate::peer::{
    SnapshotChunk, SnapshotData as Data, SnapshotFile, SnapshotHead, snapshot_chunk::Part,
};

use super::applier::{Published, blocking, position};
use super::state::{StateDirectory, io_error};
use super::types::{StoredMembership, TypeConfig, Vote};
use super::{codec, stored};
use crate::model::limits::SNAPSHOT_CHUNK_BYTES;
use crate::storage::checkpoint::{Checkpoint, CheckpointFile};
use crate::storage::{Db, Error};

pub type Meta = alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotData>;

/// What stands behind a snapshot.
pub enum SnapshotData {
    /// The live state, durable up to the snapshot's position.
    Flushed,
    /// A checkpoint in a folder of its own.
    Held(Held),
}

/// A checkpoint whose folder goes away with it.
pub struct Held {
    checkpoint: Option<Checkpoint>,
}

impl SnapshotData {
    /// Freezes the state as it is. Its files are measured when they are sent, while commands are
    /// applied again.
    pub fn freeze(db: &Db, directory: &StateDirectory) -> Result<Self, Error> {
        let path = directory.fresh_checkpoint();
        Checkpoint::link(db, &path)?;
        Ok(Self::Held(Held::of(Checkpoint {
            directory: path,
            files: Vec::new(),
        })))
    }
}

impl Held {
    /// Measures the files of a frozen state. Blocks on the disk for as long as it takes to read
    /// all of them.
    pub fn measured(mut self) -> Result<Self, Error> {
        if let Some(checkpoint) = &mut self.checkpoint {
            *checkpoint = Checkpoint::measure(&checkpoint.directory)?;
        }
        Ok(self)
    }

    /// Takes over a checkpoint.
    pub fn of(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint: Some(checkpoint),
        }
    }

    pub fn checkpoint(&self) -> &Checkpoint {
        let held = self.checkpoint.as_ref();
        held.expect("taken only by into_directory, which consumes")
    }

    /// The folder, which now belongs to the caller.
    pub fn into_directory(mut self) -> PathBuf {
        let taken = self.checkpoint.take();
        taken.expect("taken only here, which consumes").directory
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(checkpoint) = self.checkpoint.take() else {
            return;
        };
        if let Err(error) = fs::remove_dir_all(&checkpoint.directory) {
            let path = checkpoint.directory.display();
            tracing::warn!(%path, %error, "a checkpoint stays behind until the next start");
        }
    }
}

/// Makes the state durable.
pub struct Builder {
    db: Arc<Db>,
    meta: Meta,
    published: Arc<Published>,
}

impl Builder {
    pub fn new(db: Arc<Db>, meta: Meta, published: Arc<Published>) -> Self {
        Self {
            db,
            meta,
            published,
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let index = position(self.meta.last_log_id).index;
        self.published.retention.restart(index);
        let db = Arc::clone(&self.db);
        let started = std::time::Instant::now();
        blocking(move || db.flush())
            .await
            .map_err(|error| self.published.fail("flush of the state", &error))?;
        tracing::info!(index, took = ?started.elapsed(), "saved snapshot");
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot: SnapshotData::Flushed,
        })
    }
}

/// The messages that carry a checkpoint: its head, then each file in chunks. `failed` keeps the
/// reason when the stream ends early.
pub fn chunks(
    vote: &Vote,
    meta: &Meta,
    held: Arc<Held>,
) -> BoxStream<'static, Result<SnapshotChunk, Error>> {
    let files = held.checkpoint().files.iter();
    let head = SnapshotHead {
        vote: Some(codec::vote_to_wire(vote)),
        last_log_id: meta.last_log_id.as_ref().map(codec::log_id_to_wire),
        membership_log_id: meta
            .last_membership
            .log_id()
            .as_ref()
            .map(codec::log_id_to_wire),
        membership: Some(codec::membership_to_wire(meta.last_membership.membership())),
        files: files
            .map(|file| SnapshotFile {
                name: file.name.clone(),
                size_bytes: file.size_bytes,
                crc32c: file.crc32c,
            })
            .collect(),
    };
    let head = SnapshotChunk {
        part: Some(Part::Head(head)),
    };
    let reader = Reader {
        held,
        file: 0,
        offset: 0,
    };
    stream::once(async { Ok(head) })
        .chain(stream::try_unfold(reader, Reader::next))
        .boxed()
}

/// Where in the checkpoint the sender stands.
struct Reader {
    held: Arc<Held>,
    file: usize,
    offset: u64,
}

impl Reader {
    async fn next(mut self) -> Result<Option<(SnapshotChunk, Self)>, Error> {
        let file = loop {
            let Some(file) = self.held.checkpoint().files.get(self.file) else {
                return Ok(None);
            };
            if self.offset < file.size_bytes || file.size_bytes == 0 && self.offset == 0 {
                break file;
            }
            self.file += 1;
            self.offset = 0;
        };
        let rest = file.size_bytes - self.offset;
        let size = usize::try_from(rest).unwrap_or(usize::MAX);
        let size = size.min(SNAPSHOT_CHUNK_BYTES);
        let path = self.held.checkpoint().directory.join(&file.name);
        let offset = self.offset;
        let data = blocking(move || read_at(&path, offset, size)).await?;
        let chunk = SnapshotChunk {
            part: Some(Part::Data(Data {
                file: u32::try_from(self.file).expect("a checkpoint has few files"),
                offset,
                crc32c: crc32c::crc32c(&data),
                data: data.into(),
            })),
        };
        if size == 0 {
            self.file += 1;
        }
        self.offset += size as u64;
        Ok(Some((chunk, self)))
    }
}

fn read_at(path: &std::path::Path, offset: u64, size: usize) -> Result<Vec<u8>, Error> {
    use std::os::unix::fs::FileExt;
    let mut data = vec![0; size];
    let read = fs::File::open(path).and_then(|file| file.read_exact_at(&mut data, offset));
    read.map_err(|error| io_error(path, error))?;
    Ok(data)
}

/// Puts the chunks of a snapshot together in a folder of its own.
pub struct Receiver {
    directory: PathBuf,
    vote: Vote,
    meta: Meta,
    files: Vec<CheckpointFile>,
    file: usize,
    offset: u64,
    open: Option<fs::File>,
    complete: bool,
}

/// Why a snapshot is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("malformed snapshot: {0}")]
    Malformed(String),
    #[error(transparent)]
    Disk(#[from] Error),
}

fn malformed(what: impl Into<String>) -> ReceiveError {
    ReceiveError::Malformed(what.into())
}

impl Receiver {
    /// Begins with the first message, which must be the head.
    pub fn begin(chunk: SnapshotChunk, directory: &StateDirectory) -> Result<Self, ReceiveError> {
        let Some(Part::Head(head)) = chunk.part else {
            return Err(malformed("it does not begin with its head"));
        };
        let vote = head.vote.as_ref().ok_or_else(|| malformed("no vote"))?;
        let last_membership: StoredMembership =
            stored::membership_from_head(&head).map_err(malformed)?;
        let meta = Meta {
            last_log_id: head.last_log_id.as_ref().map(codec::log_id_from_wire),
            last_membership,
        };
        let plain = |name: &str| !name.is_empty() && !name.contains('/') && !name.starts_with("..");
        if let Some(file) = head.files.iter().find(|file| !plain(&file.name)) {
            return Err(malformed(format!("file name {:?}", file.name)));
        }
        let path = directory.fresh_incoming();
        fs::create_dir(&path).map_err(|error| io_error(&path, error))?;
        let files = head.files.into_iter();
        Ok(Self {
            vote: codec::vote_from_wire(vote),
            meta,
            files: files
                .map(|file| CheckpointFile {
                    name: file.name,
                    size_bytes: file.size_bytes,
                    crc32c: file.crc32c,
                })
                .collect(),
            directory: path,
            file: 0,
            offset: 0,
            open: None,
            complete: false,
        })
    }

    pub fn vote(&self) -> Vote {
        self.vote
    }

    /// Takes the next chunk, which must follow the one before. Blocks on the disk.
    pub fn write(&mut self, chunk: SnapshotChunk) -> Result<(), ReceiveError> {
        use std::io::Write;
        let Some(Part::Data(data)) = chunk.part else {
            return Err(malformed("a second head"));
        };
        if crc32c::crc32c(&data.data) != data.crc32c {
            return Err(malformed("checksum of a chunk"));
        }
        if self.open.is_some() && data.file as usize == self.file + 1 {
            self.close_file()?;
        }
        if data.file as usize != self.file || data.offset != self.offset {
            return Err(malformed("chunks out of order"));
        }
        let expected = self.files.get(self.file);
        let expected = expected.ok_or_else(|| malformed("more files than announced"))?;
        let end = self.offset + data.data.len() as u64;
        if end > expected.size_bytes {
            return Err(malformed("a file is longer than announced"));
        }
        let path = self.directory.join(&expected.name);
        let written = match self.open.take() {
            Some(file) => Ok(file),
            None => fs::File::create_new(&path),
        };
        let written = written.and_then(|mut file| {
            file.write_all(&data.data)?;
            Ok(file)
        });
        self.open = Some(written.map_err(|error| io_error(&path, error))?);
        self.offset = end;
        Ok(())
    }

    fn close_file(&mut self) -> Result<(), ReceiveError> {
        let size = self.files.get(self.file).map(|file| file.size_bytes);
        if size != Some(self.offset) {
            return Err(malformed("a file is shorter than announced"));
        }
        self.open = None;
        self.file += 1;
        self.offset = 0;
        Ok(())
    }

    /// Checks that all is there as announced and makes it durable. Blocks on the disk.
    pub fn finish(mut self) -> Result<(Vote, Snapshot), ReceiveError> {
        if self.open.is_some() {
            self.close_file()?;
        }
        if self.file != self.files.len() {
            return Err(malformed("fewer files than announced"));
        }
        let checkpoint = Checkpoint::verify(&self.directory, &self.files)?;
        self.complete = true;
        let snapshot = Snapshot {
            meta: self.meta.clone(),
            snapshot: SnapshotData::Held(Held::of(checkpoint)),
        };
        Ok((self.vote, snapshot))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            let path = self.directory.display();
            tracing::warn!(%path, %error, "an unfinished snapshot stays until the next start");
        }
    }
}
