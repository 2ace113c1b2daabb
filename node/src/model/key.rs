//! Ranges of keys, from etcd's pair of `key` and `range_end`.

use bytes::Bytes;

/// The keys that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    /// Exactly this key.
    One(Bytes),
    /// `[start, end)`; empty when `start >= end`.
    Between { start: Bytes, end: Bytes },
    /// Every key `>=` this one (`range_end` is a single zero byte).
    From(Bytes),
}

impl KeyRange {
    /// Reads etcd's convention: no `range_end` is one key, a single zero byte is open-ended.
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::One(key.clone()),
            [0] => Self::From(key.clone()),
            _ => Self::Between {
                start: key.clone(),
                end: range_end.clone(),
            },
        }
    }

    /// The first key that may be in the range.
    pub fn start(&self) -> &Bytes {
        match self {
            Self::One(key) | Self::From(key) => key,
            Self::Between { start, .. } => start,
        }
    }

    /// Whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Between { start, end } if start >= end)
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one.as_ref() == key,
            Self::Between { start, end } => start.as_ref() <= key && key < end.as_ref(),
            Self::From(start) => start.as_ref() <= key,
        }
    }

    /// Whether `key` lies behind every key of the range.
    pub fn is_past(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => key > one.as_ref(),
            Self::Between { end, .. } => key >= end.as_ref(),
            Self::From(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static str, end: &'static [u8]) -> KeyRange {
        KeyRange::new(
            &Bytes::from_static(key.as_bytes()),
            &Bytes::from_static(end),
        )
    }

    #[test]
    fn forms_of_range_end() {
        assert_eq!(range("a", b""), KeyRange::One("a".into()));
        assert_eq!(range("a", b"\0"), KeyRange::From("a".into()));
        assert!(range("b", b"a").is_empty() && range("b", b"b").is_empty());
        assert!(!range("a", b"\0").is_empty() && !range("a", b"").is_empty());
    }

    #[test]
    fn contains_and_is_past_agree_at_the_edges() {
        let between = range("b", b"d");
        assert!(!between.contains(b"a") && !between.is_past(b"a"));
        assert!(between.contains(b"b") && between.contains(b"c\xff"));
        assert!(!between.contains(b"d") && between.is_past(b"d"));
        assert!(range("b", b"").is_past(b"b\0") && !range("b", b"").is_past(b"b"));
        assert!(range("b", b"\0").contains(b"zzz") && !range("b", b"\0").is_past(b"zzz"));
    }
}
