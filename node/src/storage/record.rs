//! Reads an encoded `mvccpb.KeyValue` in place: no copy, no allocation.

use bytes::Bytes;
use prost::encoding::{WireType, decode_key, decode_varint};

/// The fields of a record, borrowed from its encoded form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

impl<'a> Record<'a> {
    /// Reads `encoded`; none when it is not a `mvccpb.KeyValue`.
    pub fn parse(encoded: &'a [u8]) -> Option<Self> {
        let mut record = Self::default();
        let mut rest = encoded;
        while !rest.is_empty() {
            match decode_key(&mut rest).ok()? {
                (1, WireType::LengthDelimited) => record.key = take(&mut rest)?,
                (5, WireType::LengthDelimited) => record.value = take(&mut rest)?,
                (field, WireType::Varint) => {
                    let number = decode_varint(&mut rest).ok()?.cast_signed();
                    match field {
                        2 => record.create_revision = number,
                        3 => record.mod_revision = number,
                        4 => record.version = number,
                        6 => record.lease = number,
                        _ => return None,
                    }
                }
                _ => return None,
            }
        }
        Some(record)
    }

    /// Whether this marks a deletion: a pair that lives has version 1 or more.
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

/// The key of an encoded record, sharing the record's bytes; empty when it cannot be read.
pub fn key_of(record: &Bytes) -> Bytes {
    match Record::parse(record) {
        Some(parsed) if !parsed.key.is_empty() => record.slice_ref(parsed.key),
        _ => Bytes::new(),
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::model::kv::KeyValue;

    #[test]
    fn reads_what_prost_writes() {
        for (version, lease, value) in [(0, 0, ""), (1, 0, "v"), (300, -3, "longer")] {
            let pair = KeyValue {
                key: "key".into(),
                create_revision: 5,
                mod_revision: i64::MAX,
                version,
                value: value.into(),
                lease,
            };
            let encoded = pair.encode_to_vec();
            let record = Record::parse(&encoded).unwrap();
            assert_eq!(record.key, b"key");
            assert_eq!(record.value, value.as_bytes());
            assert_eq!((record.create_revision, record.mod_revision), (5, i64::MAX));
            assert_eq!((record.version, record.lease), (version, lease));
            assert_eq!(record.is_tombstone(), version == 0);
        }
    }

    #[test]
    fn refuses_what_is_cut_or_foreign() {
        let encoded = KeyValue {
            key: "key".into(),
            version: 1,
            value: "value".into(),
            ..Default::default()
        }
        .encode_to_vec();
        // Cut inside the key, and inside the value.
        assert_eq!(Record::parse(&encoded[..3]), None);
        assert_eq!(Record::parse(&encoded[..encoded.len() - 1]), None);
        assert_eq!(Record::parse(&[0x3a, 1, 1]), None);
    }
}
