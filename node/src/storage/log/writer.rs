//! The one thread that owns the log's files. It takes everything queued, writes it at once, syncs
//! once, then completes all of it in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::head::{Head, Summary};
use super::memory::{Location, Placed};
use super::queue::{Operation, Shared, Work};
use super::record::{Header, Kind, encode, record_bytes};
use super::recovery::Tail;
use super::segment::{Directory, SegmentFile};
use super::{Flush, LogPosition, Options, Vote};
use crate::storage::Error;

/// Bytes written at once; a larger group takes more writes before its one sync.
const WRITE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes zeroed ahead of the end of a fresh segment, so that a sync has only data to write and no
/// new blocks to record.
const ZERO_AHEAD_BYTES: u64 = 256 * 1024;

static ZEROS: [u8; ZERO_AHEAD_BYTES as usize] = [0; ZERO_AHEAD_BYTES as usize];

/// Runs the writer's thread. A writer that dies poisons the log, so that nobody waits for it.
pub fn run(writer: Writer) {
    let shared = Arc::clone(&writer.shared);
    if catch_unwind(AssertUnwindSafe(|| writer.work())).is_err() {
        let error = Error::Io {
            path: "raft log".into(),
            source: std::io::Error::other("the writer died"),
        };
        shared.poison(&error, Work::default());
    }
}

pub struct Writer {
    shared: Arc<Shared>,
    directory: Directory,
    options: Options,
    segment: Arc<SegmentFile>,
    number: u32,
    /// Where `buffer` goes in the segment.
    offset: u64,
    zeroed_to: u64,
    buffer: Vec<u8>,
    sequence: u64,
    crc: u32,
    /// The sequence up to which all is durable.
    durable: u64,
    /// What the records so far, those in `buffer` too, amount to.
    summary: Summary,
    placed: Vec<Placed>,
    last_indexes: BTreeMap<u32, u64>,
    /// The last sync is not yet called durable by a record behind it.
    unproven: bool,
    flushed_bytes: u64,
}

impl Writer {
    /// A writer that goes on at `tail`.
    pub fn new(
        shared: Arc<Shared>,
        directory: Directory,
        options: Options,
        segment: Arc<SegmentFile>,
        tail: Tail,
        summary: Summary,
        last_indexes: BTreeMap<u32, u64>,
    ) -> Self {
        Self {
            shared,
            directory,
            options,
            zeroed_to: if segment.recycled() {
                segment.length()
            } else {
                tail.offset
            },
            segment,
            number: tail.number,
            offset: tail.offset,
            buffer: Vec::new(),
            sequence: tail.sequence,
            crc: tail.crc,
            durable: tail.sequence,
            summary,
            placed: Vec::new(),
            last_indexes,
            unproven: false,
            flushed_bytes: 0,
        }
    }

    /// Voids whatever lies behind the tail and makes sure that all before it is durable.
    pub fn begin(&mut self) -> Result<(), Error> {
        // What an earlier run read back may have been in the page cache alone.
        self.sync()?;
        let nanoseconds = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        self.put(Kind::Open, 0, 0, 0, &nanoseconds.to_le_bytes())?;
        self.write_buffer()?;
        self.sync()
    }

    /// Works until the log is closed or fails.
    fn work(mut self) {
        while let Some(work) = self.shared.take(self.unproven) {
            let operations = work.operations.len();
            match self.commit(&work) {
                Ok(()) => {
                    let placed = std::mem::take(&mut self.placed);
                    self.shared.complete(work, &placed);
                }
                Err(error) => {
                    tracing::error!(%error, operations, "the raft log failed");
                    self.shared.poison(&error, work);
                    return;
                }
            }
            if let Err(error) = self.retire_purged() {
                tracing::error!(%error, "the raft log failed");
                self.shared.poison(&error, Work::default());
                return;
            }
        }
        let end = self.finish();
        if let Err(error) = &end {
            tracing::error!(%error, "the raft log failed at its end");
        }
        self.shared.finished(end);
    }

    /// Writes the work and makes it durable.
    fn commit(&mut self, work: &Work) -> Result<(), Error> {
        let mut must_sync = false;
        for operation in &work.operations {
            must_sync = true;
            match operation {
                Operation::Append { entries, .. } => {
                    for entry in entries {
                        let location = self.put(
                            Kind::Entry,
                            entry.kind,
                            entry.index,
                            entry.term,
                            &entry.payload,
                        )?;
                        self.note_entry(entry.index, location);
                    }
                }
                Operation::Vote { vote, .. } => self.put_vote(*vote)?,
                Operation::Truncate { from } => {
                    self.put(Kind::Truncate, 0, *from, 0, &[])?;
                    self.summary.next = self.summary.next.min(*from);
                    self.summary.first = self.summary.first.min(self.summary.next);
                    self.placed.push(Placed::Truncate { from: *from });
                }
                Operation::Purge { position } => self.put_purge(*position)?,
            }
        }
        if let Some(committed) = work.committed {
            self.put(Kind::Committed, 0, committed.index, committed.term, &[])?;
            self.summary.committed = Some(committed);
        } else if work.operations.is_empty() {
            self.put(Kind::Watermark, 0, 0, 0, &[])?;
        }
        self.write_buffer()?;
        // Any record behind the last sync proves it.
        self.unproven = must_sync && self.options.fsync;
        if must_sync { self.flush() } else { Ok(()) }
    }

    fn note_entry(&mut self, index: u64, location: Location) {
        if self.summary.first == self.summary.next {
            self.summary.first = index;
        }
        self.summary.next = index + 1;
        let last = self.last_indexes.entry(self.number).or_default();
        *last = index.max(*last);
        self.placed.push(Placed::Entry { index, location });
    }

    fn put_vote(&mut self, vote: Vote) -> Result<(), Error> {
        let committed = u8::from(vote.committed);
        self.put(Kind::Vote, committed, vote.leader, vote.term, &[])?;
        self.summary.vote = Some(vote);
        Ok(())
    }

    fn put_purge(&mut self, position: LogPosition) -> Result<(), Error> {
        let LogPosition { index, term } = position;
        self.put(Kind::Purge, 0, index, term, &[])?;
        self.summary.purged = Some(position);
        self.summary.first = self.summary.first.max(index + 1);
        self.summary.next = self.summary.next.max(index + 1);
        self.placed.push(Placed::Purge { index });
        Ok(())
    }

    /// Adds a record to the buffer, in a new segment if this one is full.
    fn put(
        &mut self,
        kind: Kind,
        detail: u8,
        index: u64,
        term: u64,
        payload: &[u8],
    ) -> Result<Location, Error> {
        let bytes = record_bytes(payload.len());
        if self.end() + bytes as u64 > self.segment.length() {
            self.roll(bytes)?;
        } else if self.buffer.len() >= WRITE_BYTES_MAX {
            self.write_buffer()?;
        }
        let header = Header {
            previous_crc: self.crc,
            length: u32::try_from(payload.len()).expect("payloads are limited"),
            kind,
            detail,
            sequence: self.sequence,
            durable: self.durable,
            index,
            term,
        };
        let offset = self.end();
        self.crc = encode(&mut self.buffer, &header, payload);
        self.sequence += 1;
        Ok(Location {
            segment: self.number,
            offset: u32::try_from(offset).expect("segments are below 4 GiB"),
            length: u32::try_from(bytes).expect("records are below 4 GiB"),
        })
    }

    /// Ends this segment, durably, and begins the next, which has room for `bytes`.
    fn roll(&mut self, bytes: usize) -> Result<(), Error> {
        self.write_buffer()?;
        self.flush()?;
        let head = Head {
            number: self.number + 1,
            identity: self.options.identity,
            summary: self.summary,
        };
        let (head, crc) = encode_head(&head, self.sequence, self.crc, self.durable);
        let segment_bytes = self.options.segment_bytes;
        let length = segment_bytes.max((head.len() + bytes) as u64);
        self.segment =
            self.directory
                .create_segment(self.number + 1, length, segment_bytes, &head)?;
        self.number += 1;
        self.crc = crc;
        self.offset = head.len() as u64;
        self.zeroed_to = if self.segment.recycled() {
            length
        } else {
            self.offset
        };
        self.shared.add_segment(self.number, &self.segment);
        Ok(())
    }

    /// Where the next record goes.
    fn end(&self) -> u64 {
        self.offset + self.buffer.len() as u64
    }

    fn write_buffer(&mut self) -> Result<(), Error> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.segment.write_at(&self.buffer, self.offset)?;
        self.offset = self.end();
        self.flushed_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(2 * WRITE_BYTES_MAX);
        if self.offset > self.zeroed_to {
            let end = (self.offset + ZERO_AHEAD_BYTES).min(self.segment.length());
            let bytes = usize::try_from(end - self.offset).expect("at most the chunk");
            self.segment.write_at(&ZEROS[..bytes], self.offset)?;
            self.zeroed_to = end;
        }
        Ok(())
    }

    /// Syncs and tells the observer.
    fn flush(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        self.sync()?;
        if let Some(observe) = &self.options.on_flush {
            observe(Flush {
                bytes: std::mem::take(&mut self.flushed_bytes),
                sync: start.elapsed(),
            });
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        if self.options.fsync {
            #[cfg(test)]
            self.options.faults.before_sync(self.segment.path())?;
            self.segment.sync()?;
            self.durable = self.sequence;
        }
        Ok(())
    }

    /// Frees the segments that hold nothing but purged entries, the oldest first.
    fn retire_purged(&mut self) -> Result<(), Error> {
        let Some(purged) = self.summary.purged else {
            return Ok(());
        };
        while let Some(oldest) = self.shared.oldest_segment()
            && oldest != self.number
            && self
                .last_indexes
                .get(&oldest)
                .is_none_or(|last| *last <= purged.index)
        {
            if let Some(segment) = self.shared.remove_segment(oldest) {
                self.directory
                    .retire_segment(segment, self.options.segment_bytes)?;
            }
            self.last_indexes.remove(&oldest);
        }
        Ok(())
    }

    /// Leaves a log whose last records are known to be durable.
    fn finish(&mut self) -> Result<(), Error> {
        self.put(Kind::Watermark, 0, 0, 0, &[])?;
        self.write_buffer()?;
        self.sync()
    }
}

/// A segment's first record and its checksum.
pub fn encode_head(head: &Head, sequence: u64, previous_crc: u32, durable: u64) -> (Vec<u8>, u32) {
    let payload = head.encode();
    let header = Header {
        previous_crc,
        length: u32::try_from(payload.len()).expect("a head is small"),
        kind: Kind::Segment,
        detail: 0,
        sequence,
        durable,
        index: 0,
        term: 0,
    };
    let mut bytes = Vec::new();
    let crc = encode(&mut bytes, &header, &payload);
    (bytes, crc)
}
