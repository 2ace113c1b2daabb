//! The raft log: our own segmented files, the one thing that is fsynced on the write path.
//!
//! ```text
//! callers ── append, vote, … ──> queue ──> writer thread ──> segment files
//!    └───── read <── memory (recent entries, index) <── place, complete ──┘
//! ```
//! It owns the directory `log/`, keeps entries, the vote and the commit index as one ordered
//! stream of records, and knows nothing of what the entries mean. The raft floor calls it. It
//! must never acknowledge what is not durable, and never sync again after a sync has failed.

#[cfg(test)]
mod faults;
mod head;
mod memory;
mod queue;
mod record;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

pub use self::head::Identity;
use self::head::{Head, Summary};
pub use self::memory::CACHE_BYTES_MAX;
use self::memory::{Memory, Source};
use self::queue::{Operation, Shared};
pub use self::queue::{QUEUE_BYTES_MAX, Ready};
use self::record::PAYLOAD_BYTES_MAX;
use self::recovery::{Replay, Tail, replay};
use self::segment::Directory;
use self::writer::{Writer, encode_head};
use super::Error;

/// Bytes of a segment unless told otherwise.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
const SEGMENT_BYTES_MIN: u64 = 4096;
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// A position in the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPosition {
    pub term: u64,
    pub index: u64,
}

/// For whom this member voted in a term, and whether that leader won.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vote {
    pub term: u64,
    pub leader: u64,
    pub committed: bool,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub term: u64,
    pub index: u64,
    /// What the payload is; kept and given back.
    pub kind: u8,
    pub payload: Bytes,
}

/// One sync of the log.
#[derive(Debug, Clone, Copy)]
pub struct Flush {
    /// Bytes written since the one before.
    pub bytes: u64,
    /// How long the sync took.
    pub sync: Duration,
}

/// How to keep the log.
#[derive(Clone)]
pub struct Options {
    /// Bytes of a segment file, [`SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// False gives up durability: `--unsafe-no-fsync`.
    pub fsync: bool,
    /// Whose log it is; a log of another is refused.
    pub identity: Identity,
    /// The member has a past: a log without a segment has been lost.
    pub must_exist: bool,
    /// Hears of each sync, in the writer's thread.
    pub on_flush: Option<Arc<dyn Fn(Flush) + Send + Sync>>,
    #[cfg(test)]
    pub(crate) faults: faults::Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            fsync: true,
            identity: Identity::default(),
            must_exist: false,
            on_flush: None,
            #[cfg(test)]
            faults: faults::Faults::default(),
        }
    }
}

/// What the log held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub vote: Option<Vote>,
    pub committed: Option<LogPosition>,
    pub purged: Option<LogPosition>,
    /// The indexes of the entries that there are.
    pub entries: Range<u64>,
    /// The last entry, or the last purged one.
    pub last: Option<LogPosition>,
    /// Bytes of a torn write that were cut; none of them was acknowledged.
    pub torn_bytes: u64,
}

/// Hears that an operation is durable, or that the log failed. Called in the writer's thread, in
/// order; it must not block.
pub type Completion = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// The open log. Appending and reading never wait for the disk's writes.
pub struct Log {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens or creates the log in `path`.
    ///
    /// # Errors
    /// `Damaged` with file and offset for anything but a torn last write; `InUse` while another
    /// process has it; `Foreign` if it belongs to another member.
    pub fn open(path: &Path, options: Options) -> Result<(Self, Recovered), Error> {
        let mut options = options;
        options.segment_bytes = options
            .segment_bytes
            .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let mut directory = Directory::open(path)?;
        let numbers = directory.list(options.segment_bytes)?;
        let replay = match numbers.as_slice() {
            [] if options.must_exist => return Err(recovery::lost(&directory)),
            [] => create(&mut directory, &options)?,
            numbers => replay(&directory, numbers, options.identity)?,
        };
        let recovered = Recovered {
            vote: replay.summary.vote,
            committed: replay.summary.committed,
            purged: replay.summary.purged,
            entries: replay.memory.range(),
            last: replay.memory.last(),
            torn_bytes: replay.torn_bytes,
        };
        if recovered.torn_bytes > 0 {
            tracing::warn!(
                path = %directory.path().display(),
                offset = replay.tail.offset,
                bytes = recovered.torn_bytes,
                "cut the torn end of the raft log, which was never acknowledged"
            );
        }
        let shared = Shared::new(replay.memory);
        let mut writer = Writer::new(
            Arc::clone(&shared),
            directory,
            options,
            replay.segment,
            replay.tail,
            replay.summary,
            replay.last_indexes,
        );
        writer.begin()?;
        let writer = std::thread::Builder::new()
            .name("raft-log".into())
            .spawn(move || writer::run(writer))
            .map_err(|e| segment::failed(path, e))?;
        let log = Self {
            shared,
            writer: Mutex::new(Some(writer)),
        };
        Ok((log, recovered))
    }

    /// Reads the log in `path` as [`Log::open`] does, and changes nothing.
    ///
    /// # Errors
    /// What [`Log::open`] would refuse.
    pub fn check(path: &Path, identity: Identity, must_exist: bool) -> Result<(), Error> {
        if !must_exist && !path.exists() {
            return Ok(());
        }
        let directory = Directory::look(path)?;
        match directory.numbers()?.as_slice() {
            [] if must_exist => Err(recovery::lost(&directory)),
            [] => Ok(()),
            numbers => replay(&directory, numbers, identity).map(drop),
        }
    }

    /// Appends entries, which can be read at once. `done` is called when they are durable.
    ///
    /// # Errors
    /// When the log has failed or is closed, or when the entries do not follow those that there
    /// are; `done` is then not called and nothing has changed.
    pub fn append(&self, entries: Vec<Entry>, done: Completion) -> Result<(), Error> {
        let mut misfit = None;
        self.shared.submit(|memory, operation| {
            let mut expected = None;
            for entry in &entries {
                let follows =
                    expected.map_or_else(|| memory.accepts(entry.index), |e| e == entry.index);
                if !follows || entry.payload.len() > PAYLOAD_BYTES_MAX {
                    misfit = Some(entry.index);
                    return None;
                }
                expected = Some(entry.index + 1);
            }
            for entry in &entries {
                memory.append(operation, entry.clone());
            }
            Some(Operation::Append { entries, done })
        })?;
        match misfit {
            None => Ok(()),
            Some(index) => Err(Error::Io {
                path: "raft log".into(),
                source: std::io::Error::new(
                    std::io::ErrorKind::InvalidInput,
                    format!("entry {index} is too large or does not follow the last one"),
                ),
            }),
        }
    }

    /// Saves the vote; `done` is called when it is durable.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn save_vote(&self, vote: Vote, done: Completion) -> Result<(), Error> {
        self.shared.submit(|memory, _| {
            memory.vote = Some(vote);
            Some(Operation::Vote { vote, done })
        })
    }

    /// Saves how far the log is committed, soon and without a sync.
    ///
    /// # Errors
    /// When the log has failed or is closed.
    pub fn save_committed(&self, committed: LogPosition) -> Result<(), Error> {
        self.shared.submit_committed(committed)
    }

    /// Drops the entries behind `last`, all of them if it is none. Later operations become durable
    /// after it.
    ///
    /// # Errors
    /// When the log has failed or is closed.
    pub fn truncate_after(&self, last: Option<u64>) -> Result<(), Error> {
        let from = last.map_or(0, |index| index + 1);
        self.shared.submit(|memory, _| {
            let from = from.max(memory.range().start);
            memory
                .truncate(from)
                .then_some(Operation::Truncate { from })
        })
    }

    /// Drops the entries up to `position`. Files go once that is durable.
    ///
    /// # Errors
    /// When the log has failed or is closed.
    pub fn purge(&self, position: LogPosition) -> Result<(), Error> {
        self.shared.submit(|memory, _| {
            memory
                .purge(position)
                .then_some(Operation::Purge { position })
        })
    }

    /// Reads entries from the start of `range` on: as many as there are, about `bytes_max` of them,
    /// at least one if there is one. May read files: see [`Log::is_cached`].
    ///
    /// # Errors
    /// A failed read, or `Damaged`.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        self.shared
            .sources(range, bytes_max)
            .into_iter()
            .map(Source::read)
            .collect()
    }

    /// Whether entries from `index` on are read without touching a file.
    pub fn is_cached(&self, index: u64) -> bool {
        self.shared.with_memory(|memory| memory.is_cached(index))
    }

    /// The indexes of the entries that there are.
    pub fn entries(&self) -> Range<u64> {
        self.shared.with_memory(Memory::range)
    }

    /// The last entry, or the last purged one.
    pub fn last(&self) -> Option<LogPosition> {
        self.shared.with_memory(Memory::last)
    }

    pub fn purged(&self) -> Option<LogPosition> {
        self.shared.with_memory(Memory::purged)
    }

    pub fn vote(&self) -> Option<Vote> {
        self.shared.with_memory(|memory| memory.vote)
    }

    pub fn committed(&self) -> Option<LogPosition> {
        self.shared.with_memory(|memory| memory.committed)
    }

    /// Calls `ready` once fewer than [`QUEUE_BYTES_MAX`] bytes wait for the disk, at once if so.
    /// The writer's thread calls it, so it must not block.
    pub fn when_writable(&self, ready: Ready) {
        self.shared.when_writable(ready);
    }

    /// Finishes what is queued and ends the writer. Later operations fail.
    ///
    /// # Errors
    /// Why the log failed, if it did.
    pub fn close(&self) -> Result<(), Error> {
        self.shared.close();
        let Some(writer) = self.writer.lock().take() else {
            return Ok(());
        };
        if writer.join().is_err() {
            tracing::error!("the raft log's writer died");
        }
        self.shared.take_end()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the raft log did not close");
        }
    }
}

/// A log with nothing in it.
fn create(directory: &mut Directory, options: &Options) -> Result<Replay, Error> {
    let number = 1;
    let summary = Summary::default();
    let head = Head {
        number,
        identity: options.identity,
        summary,
    };
    let (head, crc) = encode_head(&head, 0, 0, 0);
    let bytes = options.segment_bytes;
    let segment = directory.create_segment(number, bytes, bytes, &head)?;
    let mut memory = Memory::from_summary(&summary);
    memory.add_segment(number, Arc::clone(&segment));
    Ok(Replay {
        memory,
        summary,
        tail: Tail {
            number,
            offset: head.len() as u64,
            sequence: 0,
            crc,
        },
        segment,
        last_indexes: std::collections::BTreeMap::new(),
        torn_bytes: 0,
    })
}
