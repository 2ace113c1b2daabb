//! What the log keeps in memory: which entries there are, the newest of them, and where the
//! others lie on disk.
//!
//! Callers see an entry as soon as it is appended, so `first..next` and the cache run ahead of the
//! writer; `locations` follow what the writer has done, in its order.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::head::Summary;
use super::record::{HEADER_BYTES, Kind, checked_crc, peek};
use super::segment::SegmentFile;
use super::{Entry, LogPosition, Vote};
use crate::storage::Error;

/// Bytes of recent entries kept in memory.
pub const CACHE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What an entry in the cache takes besides its payload.
const CACHED_ENTRY_OVERHEAD_BYTES: usize = 96;

/// Where an entry's record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    pub segment: u32,
    pub offset: u32,
    /// Bytes of the whole record.
    pub length: u32,
}

/// What the writer has put on disk, in order.
#[derive(Debug, Clone, Copy)]
pub enum Placed {
    Entry { index: u64, location: Location },
    Truncate { from: u64 },
    Purge { index: u64 },
}

/// Where a reader gets an entry.
#[derive(Debug)]
pub enum Source {
    Cached(Entry),
    Disk {
        index: u64,
        segment: Arc<SegmentFile>,
        location: Location,
    },
}

impl Source {
    /// Gets the entry, from its file if it must.
    pub fn read(self) -> Result<Entry, Error> {
        match self {
            Self::Cached(entry) => Ok(entry),
            Self::Disk {
                index,
                segment,
                location,
            } => read_entry(&segment, location, index),
        }
    }
}

#[derive(Debug)]
struct Cached {
    /// The number of the operation that appended it.
    operation: u64,
    entry: Entry,
}

#[derive(Debug, Default)]
pub struct Memory {
    pub vote: Option<Vote>,
    pub committed: Option<LogPosition>,
    purged: Option<LogPosition>,
    /// The index of the next entry.
    next: u64,
    /// The terms of the entries, as (first index, term) of each run.
    terms: VecDeque<(u64, u64)>,
    /// Entries `[cache_first, next)`.
    cache: VecDeque<Cached>,
    cache_first: u64,
    cache_bytes: usize,
    locations: VecDeque<Location>,
    location_first: u64,
    segments: BTreeMap<u32, Arc<SegmentFile>>,
}

impl Memory {
    /// A log with what older segments said.
    pub fn from_summary(summary: &Summary) -> Self {
        Self {
            vote: summary.vote,
            committed: summary.committed,
            purged: summary.purged,
            next: summary.next,
            cache_first: summary.next,
            ..Self::default()
        }
    }

    pub fn purged(&self) -> Option<LogPosition> {
        self.purged
    }

    /// The entries that there are.
    pub fn range(&self) -> Range<u64> {
        self.terms.front().map_or(self.next, |run| run.0)..self.next
    }

    /// The last entry, or the last purged one.
    pub fn last(&self) -> Option<LogPosition> {
        match self.terms.back() {
            Some((_, term)) => Some(LogPosition {
                term: *term,
                index: self.next - 1,
            }),
            None => self.purged,
        }
    }

    /// Whether an entry may follow the ones that there are. The first entry of an empty log may
    /// have any index from `next` on.
    pub fn accepts(&self, index: u64) -> bool {
        index == self.next || (self.terms.is_empty() && index > self.next)
    }

    /// Notes that there is an entry; its place comes with [`Memory::place`].
    pub fn note(&mut self, index: u64, term: u64) {
        if self.terms.back().is_none_or(|run| run.1 != term) {
            self.terms.push_back((index, term));
        }
        self.next = index + 1;
        if self.cache.is_empty() {
            self.cache_first = self.next;
        }
    }

    /// Appends an entry that is not on disk yet.
    pub fn append(&mut self, operation: u64, entry: Entry) {
        if self.cache.is_empty() {
            self.cache_first = entry.index;
        }
        self.cache_bytes += cached_bytes(&entry);
        let (index, term) = (entry.index, entry.term);
        self.cache.push_back(Cached { operation, entry });
        self.note(index, term);
    }

    /// Drops the entries from `from` on. Whether there was one.
    pub fn truncate(&mut self, from: u64) -> bool {
        let from = from.max(self.range().start);
        if from >= self.next {
            return false;
        }
        while self.terms.back().is_some_and(|run| run.0 >= from) {
            self.terms.pop_back();
        }
        while self.cache.back().is_some_and(|c| c.entry.index >= from) {
            if let Some(cached) = self.cache.pop_back() {
                self.cache_bytes -= cached_bytes(&cached.entry);
            }
        }
        self.next = from;
        self.cache_first = self.cache_first.min(from);
        true
    }

    /// Drops the entries up to `position`. Whether that is news.
    pub fn purge(&mut self, position: LogPosition) -> bool {
        if self.purged.is_some_and(|p| p.index >= position.index) {
            return false;
        }
        self.purged = Some(position);
        let first = position.index + 1;
        self.next = self.next.max(first);
        while self.terms.get(1).is_some_and(|run| run.0 <= first) {
            self.terms.pop_front();
        }
        if first == self.next {
            self.terms.clear();
        } else if let Some(run) = self.terms.front_mut() {
            run.0 = run.0.max(first);
        }
        while self.cache.front().is_some_and(|c| c.entry.index < first) {
            self.pop_front();
        }
        self.cache_first = self.cache_first.max(first);
        true
    }

    /// Follows the writer.
    pub fn place(&mut self, placed: &Placed) {
        match *placed {
            Placed::Entry { index, location } => {
                if self.locations.is_empty() {
                    self.location_first = index;
                }
                self.locations.push_back(location);
            }
            Placed::Truncate { from } => {
                let keep = from.saturating_sub(self.location_first);
                self.locations
                    .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            }
            Placed::Purge { index } => {
                while !self.locations.is_empty() && self.location_first <= index {
                    self.locations.pop_front();
                    self.location_first += 1;
                }
            }
        }
    }

    /// Forgets cached entries above the limit that `operation` and earlier ones wrote.
    pub fn evict(&mut self, operation: u64) {
        while self.cache_bytes > CACHE_BYTES_MAX
            && self.cache.front().is_some_and(|c| c.operation <= operation)
        {
            self.pop_front();
        }
    }

    /// Where to get the entries of `range`: from its start on, contiguous, about `bytes_max` of
    /// them but at least one if there is one.
    pub fn sources(&self, range: Range<u64>, bytes_max: usize) -> Vec<Source> {
        let known = self.range();
        let mut sources = Vec::new();
        let mut bytes = 0;
        for index in range.start.max(known.start)..range.end.min(known.end) {
            let source = match index.checked_sub(self.cache_first) {
                Some(at) => {
                    let entry = &self.cache[usize_of(at)].entry;
                    bytes += entry.payload.len();
                    Source::Cached(entry.clone())
                }
                None => {
                    let location = self.locations[usize_of(index - self.location_first)];
                    bytes += location.length as usize;
                    Source::Disk {
                        index,
                        segment: Arc::clone(&self.segments[&location.segment]),
                        location,
                    }
                }
            };
            if bytes > bytes_max && !sources.is_empty() {
                break;
            }
            sources.push(source);
        }
        sources
    }

    pub fn is_cached(&self, index: u64) -> bool {
        index >= self.cache_first
    }

    pub fn add_segment(&mut self, number: u32, segment: Arc<SegmentFile>) {
        self.segments.insert(number, segment);
    }

    pub fn remove_segment(&mut self, number: u32) -> Option<Arc<SegmentFile>> {
        self.segments.remove(&number)
    }

    pub fn oldest_segment(&self) -> Option<u32> {
        self.segments.keys().next().copied()
    }

    /// The location of the first entry, once the writer's work is all placed.
    pub fn first_location(&self) -> Option<Location> {
        self.locations.front().copied()
    }

    fn pop_front(&mut self) {
        if let Some(cached) = self.cache.pop_front() {
            self.cache_bytes -= cached_bytes(&cached.entry);
            self.cache_first = cached.entry.index + 1;
        }
    }
}

fn read_entry(segment: &SegmentFile, location: Location, index: u64) -> Result<Entry, Error> {
    let mut bytes = vec![0; location.length as usize];
    let read = segment.read_at(&mut bytes, u64::from(location.offset))?;
    let header = (read == bytes.len() && checked_crc(&bytes).is_some())
        .then(|| bytes.first_chunk().and_then(peek))
        .flatten()
        .filter(|header| header.kind == Kind::Entry && header.index == index);
    let Some(header) = header else {
        return Err(Error::Damaged {
            path: segment.path().display().to_string(),
            offset: location.offset.into(),
            what: format!("the record of entry {index} is broken"),
        });
    };
    let payload = Bytes::from(bytes).slice(HEADER_BYTES..HEADER_BYTES + header.length as usize);
    Ok(Entry {
        term: header.term,
        index,
        kind: header.detail,
        payload,
    })
}

fn cached_bytes(entry: &Entry) -> usize {
    entry.payload.len() + CACHED_ENTRY_OVERHEAD_BYTES
}

fn usize_of(count: u64) -> usize {
    usize::try_from(count).expect("entries in memory are counted by usize")
}
