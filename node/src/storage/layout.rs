//! Columns and every key and value encoding, each beside its decoder.
//!
//! | column | key | value |
//! |---|---|---|
//! | `live` | user key | [`LiveValue`]: the head, and the record itself when it is small |
//! | `rev` | main ‖ sub, big endian | the encoded `mvccpb.KeyValue`; a tombstone has key and mod_revision |
//! | `past` | escaped user key ‖ superseding main ‖ sub | main ‖ sub of the record that was replaced |
//! | `lease` | lease ID | granted TTL ‖ remaining TTL, seconds |
//! | `lease_keys` | lease ID ‖ user key | nothing |
//! | `member` | member ID | an encoded `etcdserverpb.Member` |
//! | `meta` | a name | [`Progress`], raft's membership, alarms, how far compaction has deleted |

use bytes::Bytes;
use prost::Message;
use prost::encoding::{decode_varint, encode_varint};
use quorate_proto::quorate::entry;

use super::Error;
use super::record::Record;
use crate::model::kv::MemberMessage;
use crate::model::member::Member;
use crate::model::{Conditions, Position};

/// A record of at most this many bytes lies in `live` as well, so that a get is one lookup. Larger
/// ones would cost every put more than they save a get: with 256-byte values a put takes 11 µs of
/// CPU instead of 17, a get as much as before.
pub const INLINE_BYTES_MAX: usize = 128;

/// The columns, in the order of [`Column::NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Live,
    Rev,
    Past,
    Lease,
    LeaseKeys,
    Member,
    Meta,
}

impl Column {
    pub const COUNT: usize = 7;
    pub const NAMES: [&str; Self::COUNT] = [
        "live",
        "rev",
        "past",
        "lease",
        "lease_keys",
        "member",
        "meta",
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Says that a value of `column` is not what was written.
pub(super) fn damaged(column: Column, key: &[u8]) -> Error {
    Error::Engine(format!(
        "column {} holds a value that cannot be read, key {:?}",
        column.name(),
        Bytes::copy_from_slice(key)
    ))
}

/// What is known of a live pair without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub create_revision: i64,
    pub mod_revision: i64,
    /// The sub-revision of the last modification.
    pub sub: i64,
    pub version: i64,
    pub lease: i64,
}

impl Head {
    /// The head of a record that lies at sub-revision `sub`.
    pub fn of(record: &Record<'_>, sub: i64) -> Self {
        Self {
            create_revision: record.create_revision,
            mod_revision: record.mod_revision,
            sub,
            version: record.version,
            lease: record.lease,
        }
    }
}

const FORM_INLINE: u8 = 1;
const FORM_HEAD: u8 = 2;

/// A value of column `live`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveValue<'a> {
    pub head: Head,
    /// The whole record, if it is small enough to lie here.
    pub record: Option<&'a [u8]>,
}

impl<'a> LiveValue<'a> {
    /// Appends the encoded form to `buffer`; `record` is the whole record of `head`.
    pub fn encode(head: &Head, record: &[u8], buffer: &mut Vec<u8>) {
        if record.len() <= INLINE_BYTES_MAX {
            buffer.push(FORM_INLINE);
            encode_varint(head.sub.cast_unsigned(), buffer);
            buffer.extend_from_slice(record);
            return;
        }
        buffer.push(FORM_HEAD);
        for number in [
            head.create_revision,
            head.mod_revision,
            head.sub,
            head.version,
            head.lease,
        ] {
            encode_varint(number.cast_unsigned(), buffer);
        }
    }

    /// Reads a value of `live`; none when it is damaged.
    pub fn decode(encoded: &'a [u8]) -> Option<Self> {
        let (form, mut rest) = encoded.split_first()?;
        let mut number = || Some(decode_varint(&mut rest).ok()?.cast_signed());
        match *form {
            FORM_INLINE => {
                let sub = number()?;
                Some(Self {
                    head: Head::of(&Record::parse(rest)?, sub),
                    record: Some(rest),
                })
            }
            FORM_HEAD => {
                let head = Head {
                    create_revision: number()?,
                    mod_revision: number()?,
                    sub: number()?,
                    version: number()?,
                    lease: number()?,
                };
                Some(Self { head, record: None })
            }
            _ => None,
        }
    }
}

/// A key of `rev`, and a value of `past`: main ‖ sub.
pub fn revision_key(main: i64, sub: i64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[8..].copy_from_slice(&sub.to_be_bytes());
    key
}

/// Reads what [`revision_key`] wrote.
pub fn decode_revision(encoded: &[u8]) -> Option<(i64, i64)> {
    let (main, sub) = encoded.split_first_chunk::<8>()?;
    let sub: [u8; 8] = sub.try_into().ok()?;
    Some((i64::from_be_bytes(*main), i64::from_be_bytes(sub)))
}

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xff;
const ESCAPED_END: u8 = 0x00;

/// Appends `key` so that the order of keys is kept whatever follows: a zero byte becomes `00 ff`,
/// the end is `00 00`.
pub fn escape(key: &[u8], buffer: &mut Vec<u8>) {
    for piece in key.split_inclusive(|byte| *byte == ESCAPE) {
        buffer.extend_from_slice(piece);
        if piece.last() == Some(&ESCAPE) {
            buffer.push(ESCAPED_ZERO);
        }
    }
    buffer.extend_from_slice(&[ESCAPE, ESCAPED_END]);
}

/// Reads what [`escape`] wrote into `key` and returns what follows it.
pub fn unescape<'a>(encoded: &'a [u8], key: &mut Vec<u8>) -> Option<&'a [u8]> {
    key.clear();
    let mut rest = encoded;
    loop {
        let zero = rest.iter().position(|byte| *byte == ESCAPE)?;
        key.extend_from_slice(&rest[..zero]);
        let mark = *rest.get(zero + 1)?;
        rest = &rest[zero + 2..];
        match mark {
            ESCAPED_ZERO => key.push(ESCAPE),
            ESCAPED_END => return Some(rest),
            _ => return None,
        }
    }
}

/// Appends the key of `past` of the version of `key` that was replaced at (main, sub).
pub fn past_key(key: &[u8], main: i64, sub: i64, buffer: &mut Vec<u8>) {
    escape(key, buffer);
    buffer.extend_from_slice(&revision_key(main, sub));
}

/// A value of column `lease`, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRow {
    pub ttl_seconds: i64,
    /// From the last checkpoint; 0 when there is none.
    pub remaining_seconds: i64,
}

impl LeaseRow {
    pub fn encode(&self) -> [u8; 16] {
        revision_key(self.ttl_seconds, self.remaining_seconds)
    }

    pub fn decode(encoded: &[u8]) -> Option<Self> {
        let (ttl_seconds, remaining_seconds) = decode_revision(encoded)?;
        Some(Self {
            ttl_seconds,
            remaining_seconds,
        })
    }
}

/// A key of `lease`, ordered as the signed ID is.
pub fn lease_key(id: i64) -> [u8; 8] {
    (id.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// Reads what [`lease_key`] wrote, and returns what follows it.
pub fn decode_lease(encoded: &[u8]) -> Option<(i64, &[u8])> {
    let (id, rest) = encoded.split_first_chunk::<8>()?;
    Some(((u64::from_be_bytes(*id) ^ (1 << 63)).cast_signed(), rest))
}

/// Appends the key of `lease_keys` for `key` attached to lease `id`.
pub fn lease_attachment(id: i64, key: &[u8], buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(&lease_key(id));
    buffer.extend_from_slice(key);
}

/// A key of `member`.
pub fn member_key(id: u64) -> [u8; 8] {
    id.to_be_bytes()
}

/// A value of `member`.
pub fn encode_member(member: &Member) -> Vec<u8> {
    MemberMessage::from(member.clone()).encode_to_vec()
}

/// Reads what [`encode_member`] wrote.
pub fn decode_member(encoded: &[u8]) -> Option<Member> {
    MemberMessage::decode(encoded).ok().map(Member::from)
}

/// The key in `meta` of [`Progress`].
pub const META_PROGRESS: &[u8] = b"progress";
/// The key in `meta` of raft's membership, opaque to the store.
pub const META_MEMBERSHIP: &[u8] = b"membership";
/// The key in `meta` that stands for a removed member: its ID must never be used again.
pub fn removed_key(id: u64) -> Vec<u8> {
    [b"removed/".as_slice(), &id.to_be_bytes()].concat()
}

/// The key in `meta` of [`Scrubbed`].
pub const META_SCRUBBED: &[u8] = b"scrubbed";

/// The key in `meta` of alarms and downgrade.
pub const META_CONDITIONS: &[u8] = b"conditions";

/// A value of `meta` for [`META_CONDITIONS`].
pub fn encode_conditions(conditions: &Conditions) -> Vec<u8> {
    entry::Conditions {
        alarms: conditions.alarms().to_vec(),
        downgrade_target: conditions.downgrade_target.clone().unwrap_or_default(),
    }
    .encode_to_vec()
}

/// Reads what [`encode_conditions`] wrote.
pub fn decode_conditions(encoded: &[u8]) -> Option<Conditions> {
    let stored = entry::Conditions::decode(encoded).ok()?;
    let target = Some(stored.downgrade_target).filter(|target| !target.is_empty());
    Some(Conditions::new(stored.alarms, target))
}

/// How far the state has come, written with every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The last raft entry of which everything is applied.
    pub applied: Position,
    /// How many commands of the entry *after* `applied` are applied already: a replay skips
    /// them. 0 unless a commit fell between two commands of one entry.
    pub next_entry_commands: u32,
    /// The current revision.
    pub revision: i64,
    /// The revision of the last compaction; -1 before the first.
    pub compacted: i64,
}

impl Default for Progress {
    /// An empty store, which etcd has at revision 1.
    fn default() -> Self {
        Self {
            applied: Position::default(),
            next_entry_commands: 0,
            revision: 1,
            compacted: -1,
        }
    }
}

impl Progress {
    pub fn encode(&self) -> [u8; 36] {
        let mut encoded = [0; 36];
        encoded[..8].copy_from_slice(&self.applied.term.to_be_bytes());
        encoded[8..16].copy_from_slice(&self.applied.index.to_be_bytes());
        encoded[16..24].copy_from_slice(&self.revision.to_be_bytes());
        encoded[24..32].copy_from_slice(&self.compacted.to_be_bytes());
        encoded[32..].copy_from_slice(&self.next_entry_commands.to_be_bytes());
        encoded
    }

    pub fn decode(encoded: &[u8]) -> Option<Self> {
        let (position, rest) = encoded.split_at_checked(16)?;
        let (numbers, commands) = rest.split_at_checked(16)?;
        let (term, index) = decode_revision(position)?;
        let (revision, compacted) = decode_revision(numbers)?;
        Some(Self {
            applied: Position {
                term: term.cast_unsigned(),
                index: index.cast_unsigned(),
            },
            next_entry_commands: u32::from_be_bytes(commands.try_into().ok()?),
            revision,
            compacted,
        })
    }
}

/// How far superseded records are deleted: everything that a compaction at `main` deletes is gone
/// for the records before (main, sub).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scrubbed {
    pub main: i64,
    pub sub: i64,
}

impl Scrubbed {
    pub fn encode(&self) -> [u8; 16] {
        revision_key(self.main, self.sub)
    }

    pub fn decode(encoded: &[u8]) -> Option<Self> {
        let (main, sub) = decode_revision(encoded)?;
        Some(Self { main, sub })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn escaping_keeps_order_and_content(
            a in proptest::collection::vec(0u8..3, 0..6),
            b in proptest::collection::vec(0u8..3, 0..6),
            tail in any::<u64>(),
        ) {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            past_key(&a, 7, tail.cast_signed() & i64::MAX, &mut left);
            past_key(&b, 9, 0, &mut right);
            if a != b {
                prop_assert_eq!(a.cmp(&b), left.cmp(&right));
            }
            let mut key = Vec::new();
            let rest = unescape(&left, &mut key).unwrap();
            prop_assert_eq!(&key, &a);
            prop_assert_eq!(decode_revision(rest).unwrap().0, 7);
        }

        #[test]
        fn lease_ids_keep_their_signed_order(a in any::<i64>(), b in any::<i64>()) {
            prop_assert_eq!(a.cmp(&b), lease_key(a).cmp(&lease_key(b)));
            prop_assert_eq!(decode_lease(&lease_key(a)).unwrap().0, a);
        }
    }

    #[test]
    fn a_live_value_reads_back_in_both_forms() {
        for length in [0, INLINE_BYTES_MAX * 2] {
            let head = Head {
                create_revision: 3,
                mod_revision: 1 << 40,
                sub: 129,
                version: 2,
                lease: -9,
            };
            let record = crate::model::kv::KeyValue {
                key: "k".into(),
                create_revision: head.create_revision,
                mod_revision: head.mod_revision,
                version: head.version,
                value: vec![b'v'; length].into(),
                lease: head.lease,
            }
            .encode_to_vec();
            let mut encoded = Vec::new();
            LiveValue::encode(&head, &record, &mut encoded);
            let live = LiveValue::decode(&encoded).unwrap();
            assert_eq!(live.head, head);
            assert_eq!(live.record.is_some(), length == 0);
            assert_eq!(LiveValue::decode(&encoded[..4]), None);
        }
    }

    #[test]
    fn progress_reads_back() {
        let progress = Progress {
            applied: Position { term: 2, index: 3 },
            next_entry_commands: 4,
            revision: 5,
            compacted: -1,
        };
        assert_eq!(Progress::decode(&progress.encode()), Some(progress));
        assert_eq!(Progress::decode(&progress.encode()[..35]), None);
    }
}
