//! What a segment's first record says: whose log it is, and all that older segments said which
//! still counts, so that they can go.

use super::record::{u32_at, u64_at};
use super::{LogPosition, Vote};

const MAGIC: &[u8; 8] = b"quorate\x01";
const FORMAT_VERSION: u32 = 1;
/// Bytes of the payload.
pub const HEAD_BYTES: usize = 128;

/// The member and cluster that a log belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity {
    pub member_id: u64,
    pub cluster_id: u64,
}

/// The outcome of every record so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub vote: Option<Vote>,
    pub committed: Option<LogPosition>,
    pub purged: Option<LogPosition>,
    /// The entries that there are: `[first, next)`.
    pub first: u64,
    pub next: u64,
}

/// The payload of a segment record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub number: u32,
    pub identity: Identity,
    pub summary: Summary,
}

impl Head {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        let summary = &self.summary;
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        let vote = summary.vote.unwrap_or_default();
        let committed = summary.committed.unwrap_or_default();
        let purged = summary.purged.unwrap_or_default();
        let flags = u64::from(summary.vote.is_some())
            | u64::from(vote.committed) << 1
            | u64::from(summary.committed.is_some()) << 2
            | u64::from(summary.purged.is_some()) << 3;
        for word in [
            self.identity.member_id,
            self.identity.cluster_id,
            flags,
            vote.term,
            vote.leader,
            committed.term,
            committed.index,
            purged.term,
            purged.index,
            summary.first,
            summary.next,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.resize(HEAD_BYTES, 0);
        bytes
    }

    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() != HEAD_BYTES || bytes[..8] != *MAGIC {
            return Err("not a segment of a log".into());
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(format!("unknown log format version {version}"));
        }
        let word = |number: usize| u64_at(bytes, 16 + 8 * number);
        let flags = word(2);
        let position = |bit: u64, at: usize| {
            (flags & bit != 0).then(|| LogPosition {
                term: word(at),
                index: word(at + 1),
            })
        };
        Ok(Self {
            number: u32_at(bytes, 12),
            identity: Identity {
                member_id: word(0),
                cluster_id: word(1),
            },
            summary: Summary {
                vote: (flags & 1 != 0).then(|| Vote {
                    term: word(3),
                    leader: word(4),
                    committed: flags & 2 != 0,
                }),
                committed: position(4, 5),
                purged: position(8, 7),
                first: word(9),
                next: word(10),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back() {
        let position = |term, index| Some(LogPosition { term, index });
        let full = Head {
            number: 9,
            identity: Identity {
                member_id: u64::MAX,
                cluster_id: 2,
            },
            summary: Summary {
                vote: Some(Vote {
                    term: 3,
                    leader: 4,
                    committed: true,
                }),
                committed: position(5, 6),
                purged: position(7, 8),
                first: 9,
                next: 10,
            },
        };
        let empty = Head {
            summary: Summary::default(),
            ..full
        };
        for head in [full, empty] {
            assert_eq!(Head::decode(&head.encode()), Ok(head));
        }
        let mut newer = full.encode();
        newer[8] = 2;
        assert!(Head::decode(&newer).unwrap_err().contains("version 2"));
    }
}
