//! Reading the log back at start: every record is checked, the torn end of the last write is cut,
//! anything else that is wrong is damage.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::head::{HEAD_BYTES, Head, Identity, Summary};
use super::memory::{Location, Memory, Placed};
use super::record::{ALIGN_BYTES, HEADER_BYTES, Header, Kind, checked_crc, peek, record_bytes};
use super::segment::{Directory, SegmentFile};
use super::{LogPosition, Vote};
use crate::storage::Error;

/// Bytes read from a segment at once.
const WINDOW_BYTES: usize = 256 * 1024;
/// Stands for a segment that is gone.
const MISSING: u32 = 0;

/// Where the next record goes.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    pub number: u32,
    pub offset: u64,
    pub sequence: u64,
    pub crc: u32,
}

/// The log as it lies on disk.
pub struct Replay {
    pub memory: Memory,
    pub summary: Summary,
    pub segment: Arc<SegmentFile>,
    pub tail: Tail,
    /// The largest index in each segment that has entries.
    pub last_indexes: BTreeMap<u32, u64>,
    /// Bytes between the tail and the end of the torn write, 0 after a clean end.
    pub torn_bytes: u64,
}

struct OpenSegment {
    number: u32,
    file: Arc<SegmentFile>,
    header: Header,
    crc: u32,
    head: Head,
}

/// Reads all segments in `numbers`, which is not empty.
pub fn replay(directory: &Directory, numbers: &[u32], identity: Identity) -> Result<Replay, Error> {
    let mut segments = Vec::new();
    for number in numbers {
        segments.push(open_segment(directory, *number, identity)?);
    }
    for pair in segments.windows(2) {
        if pair[1].number != pair[0].number + 1 {
            let what = format!("segment {:08x} is missing", pair[0].number + 1);
            return Err(damaged(&pair[1].file, 0, what));
        }
    }
    let first = segments.first().expect("at least one segment");
    let mut replayer = Replayer::new(first);
    let mut tail = None;
    for (at, segment) in segments.iter().enumerate() {
        replayer
            .memory
            .add_segment(segment.number, Arc::clone(&segment.file));
        let follower = segments.get(at + 1);
        tail = Some(replayer.read_segment(segment, follower)?);
    }
    let last = segments.last().expect("at least one segment");
    let (tail, torn_bytes) = tail.expect("at least one segment");
    if replayer
        .memory
        .first_location()
        .is_some_and(|location| location.segment == MISSING)
    {
        let what = "the segments before this one are missing".into();
        return Err(damaged(&first.file, 0, what));
    }
    let range = replayer.memory.range();
    replayer.summary.first = range.start;
    replayer.summary.next = range.end;
    Ok(Replay {
        summary: replayer.summary,
        memory: replayer.memory,
        segment: Arc::clone(&last.file),
        tail,
        last_indexes: replayer.last_indexes,
        torn_bytes,
    })
}

fn open_segment(
    directory: &Directory,
    number: u32,
    identity: Identity,
) -> Result<OpenSegment, Error> {
    let file = directory.open_segment(number)?;
    let mut bytes = vec![0; record_bytes(HEAD_BYTES)];
    let read = file.read_at(&mut bytes, 0)?;
    let header = (read == bytes.len())
        .then(|| peek(first_bytes(&bytes)))
        .flatten();
    let crc = header.and_then(|_| checked_crc(&bytes));
    let (Some(header), Some(crc)) = (header, crc) else {
        return Err(damaged(&file, 0, "the segment's head is broken".into()));
    };
    if header.kind != Kind::Segment || header.length as usize != HEAD_BYTES {
        return Err(damaged(&file, 0, "the segment has no head".into()));
    }
    let head = Head::decode(&bytes[HEADER_BYTES..HEADER_BYTES + HEAD_BYTES])
        .map_err(|what| damaged(&file, 0, what))?;
    if head.number != number {
        let what = format!("the head is that of segment {:08x}", head.number);
        return Err(damaged(&file, 0, what));
    }
    if head.identity != identity {
        return Err(Error::Foreign {
            path: file.path().display().to_string(),
            what: format!(
                "member {:x} of cluster {:x}, not member {:x} of cluster {:x}",
                head.identity.member_id,
                head.identity.cluster_id,
                identity.member_id,
                identity.cluster_id
            ),
        });
    }
    Ok(OpenSegment {
        number,
        file,
        header,
        crc,
        head,
    })
}

struct Replayer {
    memory: Memory,
    summary: Summary,
    last_indexes: BTreeMap<u32, u64>,
    sequence: u64,
    crc: u32,
}

impl Replayer {
    fn new(first: &OpenSegment) -> Self {
        let summary = first.head.summary;
        let mut memory = Memory::from_summary(&summary);
        // Entries of segments that are gone: purge or truncate records must account for them.
        for index in summary.first..summary.next {
            memory.note(index, 0);
            memory.place(&Placed::Entry {
                index,
                location: Location {
                    segment: MISSING,
                    offset: 0,
                    length: 0,
                },
            });
        }
        Self {
            memory,
            summary,
            last_indexes: BTreeMap::new(),
            sequence: first.header.sequence,
            crc: first.header.previous_crc,
        }
    }

    /// Reads one segment up to its follower, or up to the end of the log: the tail and the bytes
    /// of a torn write behind it.
    fn read_segment(
        &mut self,
        segment: &OpenSegment,
        follower: Option<&OpenSegment>,
    ) -> Result<(Tail, u64), Error> {
        if segment.header.sequence != self.sequence || segment.header.previous_crc != self.crc {
            let what = "the segment does not follow the one before it".into();
            return Err(damaged(&segment.file, 0, what));
        }
        self.crc = segment.crc;
        let mut window = Window::new(&segment.file);
        let mut offset = record_bytes(HEAD_BYTES) as u64;
        while follower.is_none_or(|f| self.sequence < f.header.sequence) {
            let Some((header, crc)) = self.next_record(&mut window, offset)? else {
                // A segment is synced before the next one begins.
                if follower.is_some() {
                    return Err(damaged(&segment.file, offset, "a broken record".into()));
                }
                break;
            };
            let location = Location {
                segment: segment.number,
                offset: u32::try_from(offset).expect("segments are below 4 GiB"),
                length: u32::try_from(header.record_bytes()).expect("records are below 4 GiB"),
            };
            if !self.apply(&header, location) {
                let what = format!("entry {} does not follow the one before it", header.index);
                return Err(damaged(&segment.file, offset, what));
            }
            self.sequence += 1;
            self.crc = crc;
            offset += header.record_bytes() as u64;
        }
        let torn_bytes = match follower {
            Some(_) => 0,
            None => self.check_tail(&mut window, offset)?,
        };
        let tail = Tail {
            number: segment.number,
            offset,
            sequence: self.sequence,
            crc: self.crc,
        };
        Ok((tail, torn_bytes))
    }

    /// The record at `offset` if it is whole and the next of the chain.
    fn next_record(
        &self,
        window: &mut Window,
        offset: u64,
    ) -> Result<Option<(Header, u32)>, Error> {
        let Some((header, crc)) = window.record(offset)? else {
            return Ok(None);
        };
        let follows = header.sequence == self.sequence
            && header.previous_crc == self.crc
            && header.kind != Kind::Segment;
        Ok(follows.then_some((header, crc)))
    }

    /// Looks behind the end of the log for a record that calls the broken one durable. Returns
    /// how far the torn write reaches.
    fn check_tail(&self, window: &mut Window, end: u64) -> Result<u64, Error> {
        let mut offset = end;
        let mut torn_to = end;
        while let Some(header) = window.header(offset)? {
            if let Some(header) = header
                && header.sequence >= self.sequence
                && window.record(offset)?.is_some()
            {
                if header.durable > self.sequence {
                    let what = format!(
                        "a broken record, which the whole one at offset {offset} calls durable"
                    );
                    return Err(damaged(window.file, end, what));
                }
                torn_to = offset + header.record_bytes() as u64;
            }
            offset += ALIGN_BYTES as u64;
        }
        Ok(torn_to - end)
    }

    /// Does what a record says. Whether it can be.
    fn apply(&mut self, header: &Header, location: Location) -> bool {
        let position = LogPosition {
            term: header.term,
            index: header.index,
        };
        match header.kind {
            Kind::Entry => {
                if !self.memory.accepts(header.index) {
                    return false;
                }
                self.memory.note(header.index, header.term);
                let index = header.index;
                self.memory.place(&Placed::Entry { index, location });
                let last = self.last_indexes.entry(location.segment).or_default();
                *last = index.max(*last);
            }
            Kind::Vote => {
                self.summary.vote = Some(Vote {
                    term: header.term,
                    leader: header.index,
                    committed: header.detail != 0,
                });
                self.memory.vote = self.summary.vote;
            }
            Kind::Committed => {
                self.summary.committed = Some(position);
                self.memory.committed = self.summary.committed;
            }
            Kind::Truncate => {
                self.memory.truncate(header.index);
                self.memory.place(&Placed::Truncate { from: header.index });
            }
            Kind::Purge => {
                self.memory.purge(position);
                self.summary.purged = self.memory.purged();
                let index = header.index;
                self.memory.place(&Placed::Purge { index });
            }
            Kind::Segment | Kind::Open | Kind::Watermark => {}
        }
        true
    }
}

/// A segment read in order through a bounded buffer.
struct Window<'a> {
    file: &'a SegmentFile,
    buffer: Vec<u8>,
    start: u64,
}

impl<'a> Window<'a> {
    fn new(file: &'a SegmentFile) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// The whole record at `offset` with its checksum; none if it is broken.
    fn record(&mut self, offset: u64) -> Result<Option<(Header, u32)>, Error> {
        let Some(Some(header)) = self.header(offset)? else {
            return Ok(None);
        };
        let bytes = self.bytes(offset, header.record_bytes())?;
        let crc = bytes.and_then(checked_crc);
        Ok(crc.map(|crc| (header, crc)))
    }

    /// What could be a header at `offset`; none at the end of the file.
    fn header(&mut self, offset: u64) -> Result<Option<Option<Header>>, Error> {
        let bytes = self.bytes(offset, HEADER_BYTES)?;
        Ok(bytes.map(|bytes| peek(first_bytes(bytes))))
    }

    /// `length` bytes from `offset` on; none if the file ends before.
    fn bytes(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, Error> {
        if offset + length as u64 > self.file.length() {
            return Ok(None);
        }
        let end = self.start + self.buffer.len() as u64;
        if offset < self.start || offset + length as u64 > end {
            self.buffer.resize(length.max(WINDOW_BYTES), 0);
            let read = self.file.read_at(&mut self.buffer, offset)?;
            self.buffer.truncate(read);
            self.start = offset;
        }
        let at = usize::try_from(offset - self.start).expect("inside the buffer");
        Ok(self.buffer.get(at..at + length))
    }
}

fn first_bytes(bytes: &[u8]) -> &[u8; HEADER_BYTES] {
    bytes
        .first_chunk()
        .expect("callers hold at least a header's bytes")
}

/// There is no segment where there must be one.
pub fn lost(directory: &Directory) -> Error {
    Error::Damaged {
        path: directory.path().display().to_string(),
        offset: 0,
        what: "the segments of the raft log are gone".into(),
    }
}

fn damaged(file: &SegmentFile, offset: u64, what: String) -> Error {
    Error::Damaged {
        path: file.path().display().to_string(),
        offset,
        what,
    }
}
