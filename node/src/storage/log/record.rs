//! The form of a record on disk, and its checks.
//!
//! Every record is chained to the one before it (`previous_crc`, `sequence`), so that what a
//! recycled segment or a torn write left behind is never taken for a new record. Every record
//! also says up to where the log was durable when it was written: a broken record that a later
//! one calls durable is damage, any other is the torn end of the last write.

/// Bytes of a record before its payload.
pub const HEADER_BYTES: usize = 48;
/// Records start at multiples of this, so that a search for one is cheap.
pub const ALIGN_BYTES: usize = 8;
/// The largest payload of a record.
pub const PAYLOAD_BYTES_MAX: usize = 512 * 1024 * 1024;

/// What a record says. Numbers are append-only: an old log must stay readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first record of a segment.
    Segment,
    /// The log was opened: whatever an earlier run left behind this point is void.
    Open,
    Entry,
    /// `index` holds the leader, `detail` whether the vote is committed.
    Vote,
    Committed,
    /// Every entry from `index` on is void.
    Truncate,
    /// Every entry up to `index` is gone.
    Purge,
    /// Nothing but its `durable`.
    Watermark,
}

impl Kind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Segment => 1,
            Self::Open => 2,
            Self::Entry => 3,
            Self::Vote => 4,
            Self::Committed => 5,
            Self::Truncate => 6,
            Self::Purge => 7,
            Self::Watermark => 8,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Segment,
            2 => Self::Open,
            3 => Self::Entry,
            4 => Self::Vote,
            5 => Self::Committed,
            6 => Self::Truncate,
            7 => Self::Purge,
            8 => Self::Watermark,
            _ => return None,
        })
    }
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The checksum of the record before this one.
    pub previous_crc: u32,
    /// Bytes of the payload, without padding.
    pub length: u32,
    pub kind: Kind,
    /// What the payload of an entry is; the log only keeps it.
    pub detail: u8,
    /// Consecutive over the whole log. A segment record has the number of the record after it.
    pub sequence: u64,
    /// Every record with a smaller sequence was durable when this one was written.
    pub durable: u64,
    pub index: u64,
    pub term: u64,
}

impl Header {
    /// Bytes of the whole record with its padding.
    pub fn record_bytes(&self) -> usize {
        record_bytes(self.length as usize)
    }
}

/// Bytes that a record with this payload takes.
pub fn record_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN_BYTES)
}

/// Appends a record to `buffer` and returns its checksum.
pub fn encode(buffer: &mut Vec<u8>, header: &Header, payload: &[u8]) -> u32 {
    debug_assert_eq!(header.length as usize, payload.len());
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&header.previous_crc.to_le_bytes());
    buffer.extend_from_slice(&header.length.to_le_bytes());
    buffer.extend_from_slice(&[header.kind.to_byte(), header.detail, 0, 0]);
    buffer.extend_from_slice(&header.sequence.to_le_bytes());
    buffer.extend_from_slice(&header.durable.to_le_bytes());
    buffer.extend_from_slice(&header.index.to_le_bytes());
    buffer.extend_from_slice(&header.term.to_le_bytes());
    buffer.extend_from_slice(payload);
    buffer.resize(start + header.record_bytes(), 0);
    let crc = crc32c::crc32c(&buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Reads the fixed part of a record without checking its checksum. None if these bytes cannot
/// begin a record.
pub fn peek(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
    let header = Header {
        previous_crc: u32_at(bytes, 4),
        length: u32_at(bytes, 8),
        kind: Kind::from_byte(bytes[12])?,
        detail: bytes[13],
        sequence: u64_at(bytes, 16),
        durable: u64_at(bytes, 24),
        index: u64_at(bytes, 32),
        term: u64_at(bytes, 40),
    };
    let sound = bytes[14..16] == [0, 0]
        && header.length as usize <= PAYLOAD_BYTES_MAX
        && header.durable <= header.sequence;
    sound.then_some(header)
}

/// The checksum of a record, if it is the one that its bytes have.
pub fn checked_crc(record: &[u8]) -> Option<u32> {
    let crc = u32_at(record, 0);
    (crc32c::crc32c(&record[4..]) == crc).then_some(crc)
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_any_flipped_bit_shows() {
        let header = Header {
            previous_crc: 7,
            length: 5,
            kind: Kind::Entry,
            detail: 2,
            sequence: 90,
            durable: 80,
            index: 11,
            term: 3,
        };
        let mut bytes = Vec::new();
        let crc = encode(&mut bytes, &header, b"hello");
        assert_eq!(bytes.len(), 56);
        let fixed = |bytes: &[u8]| peek(bytes[..HEADER_BYTES].try_into().unwrap());
        assert_eq!(fixed(&bytes), Some(header));
        assert_eq!(checked_crc(&bytes), Some(crc));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(checked_crc(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(peek(&[0; HEADER_BYTES]), None);
    }
}
