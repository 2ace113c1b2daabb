//! Events as all their watchers share them: encoded once, by whoever needs them first.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::past::Past;
use crate::model::{Event, EventBatch, EventKind};
use crate::storage::Error;

/// `WatchResponse.events`, a length-delimited field.
const TAG_EVENTS: u8 = 11 << 3 | 2;
/// `mvccpb.Event`: `type`, `kv` and `prev_kv`.
const TAG_TYPE: u8 = 1 << 3;
const TAG_KV: u8 = 2 << 3 | 2;
const TAG_PREVIOUS: u8 = 3 << 3 | 2;
const TYPE_DELETE: u8 = 1;

/// One revision's events with their encodings.
#[derive(Debug)]
pub(super) struct SharedBatch {
    batch: Arc<EventBatch>,
    encodings: Box<[Encodings]>,
    pub(super) size_bytes: usize,
}

#[derive(Debug, Default)]
struct Encodings {
    plain: OnceLock<Bytes>,
    with_previous: OnceLock<Bytes>,
}

impl SharedBatch {
    pub(super) fn new(batch: Arc<EventBatch>) -> Arc<Self> {
        let size = |event: &Event| event.kv.len() + event.key.len() + size_of::<Event>();
        Arc::new(Self {
            encodings: batch.events.iter().map(|_| Encodings::default()).collect(),
            size_bytes: batch.events.iter().map(size).sum(),
            batch,
        })
    }

    pub(super) fn revision(&self) -> i64 {
        self.batch.revision
    }

    pub(super) fn events(&self) -> &[Event] {
        &self.batch.events
    }
}

/// One event of a shared revision.
#[derive(Debug, Clone)]
pub struct SharedEvent {
    batch: Arc<SharedBatch>,
    index: u32,
}

impl SharedEvent {
    pub(super) fn new(batch: &Arc<SharedBatch>, index: u32) -> Self {
        Self {
            batch: batch.clone(),
            index,
        }
    }

    pub fn revision(&self) -> i64 {
        self.batch.revision()
    }

    pub fn event(&self) -> &Event {
        &self.batch.events()[self.index as usize]
    }

    /// The event as field 11 of a `WatchResponse`, with its tag and length.
    pub fn encoded(&self) -> Bytes {
        let encodings = &self.batch.encodings[self.index as usize];
        let plain = || encode(self.event(), None);
        encodings.plain.get_or_init(plain).clone()
    }

    /// As [`SharedEvent::encoded`], with `prev_kv` if [`SharedEvent::look_up_previous`] found it.
    pub fn encoded_with_previous(&self) -> Bytes {
        let encodings = &self.batch.encodings[self.index as usize];
        match encodings.with_previous.get() {
            Some(bytes) => bytes.clone(),
            None => self.encoded(),
        }
    }

    /// Reads the replaced record, unless that was done before for another watcher. It is left out
    /// when the state before the event is compacted, as etcd does (v3rpc/watch.go).
    pub(super) fn look_up_previous(&self, past: &Past) -> Result<(), Error> {
        let encodings = &self.batch.encodings[self.index as usize];
        if encodings.with_previous.get().is_some() || self.revision() - 1 < past.compacted() {
            return Ok(());
        }
        let Some((main, sub)) = self.before_revision() else {
            return Ok(());
        };
        if let Some(record) = past.record(main, sub)? {
            let with_previous = || encode(self.event(), Some(&record));
            encodings.with_previous.get_or_init(with_previous);
        }
        Ok(())
    }

    /// Where the record lies that the key had before this revision: a txn may change a key twice,
    /// and `prev_kv` is the state before the txn.
    fn before_revision(&self) -> Option<(i64, i64)> {
        let is_older = |previous: &(i64, i64)| previous.0 < self.revision();
        let previous = self.event().previous?;
        if is_older(&previous) {
            return Some(previous);
        }
        let mut events = self.batch.events().iter();
        let first = events.find(|event| event.key == self.event().key)?;
        first.previous.filter(is_older)
    }
}

fn encode(event: &Event, previous: Option<&Bytes>) -> Bytes {
    let field_len = |bytes: &Bytes| 1 + encoded_len_varint(bytes.len() as u64) + bytes.len();
    let is_delete = event.kind == EventKind::Delete;
    let body_len =
        if is_delete { 2 } else { 0 } + field_len(&event.kv) + previous.map_or(0, field_len);
    let head_len = 1 + encoded_len_varint(body_len as u64);
    let mut buffer = BytesMut::with_capacity(head_len + body_len);
    buffer.put_u8(TAG_EVENTS);
    encode_varint(body_len as u64, &mut buffer);
    if is_delete {
        buffer.put_slice(&[TAG_TYPE, TYPE_DELETE]);
    }
    let mut put_field = |tag: u8, bytes: &Bytes| {
        buffer.put_u8(tag);
        encode_varint(bytes.len() as u64, &mut buffer);
        buffer.put_slice(bytes);
    };
    put_field(TAG_KV, &event.kv);
    if let Some(previous) = previous {
        put_field(TAG_PREVIOUS, previous);
    }
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use quorate_proto::etcdserverpb::WatchResponse;
    use quorate_proto::mvccpb::{self, KeyValue};

    use super::*;

    #[test]
    fn encodes_as_prost_does() {
        let kv = |value: &'static str| KeyValue {
            key: "k".into(),
            mod_revision: 7,
            value: value.into(),
            ..Default::default()
        };
        for (kind, number) in [(EventKind::Put, 0), (EventKind::Delete, 1)] {
            for previous in [None, Some(kv("old"))] {
                let event = Event {
                    kind,
                    key: "k".into(),
                    kv: kv("new").encode_to_vec().into(),
                    previous: None,
                };
                let record = previous.as_ref().map(|kv| Bytes::from(kv.encode_to_vec()));
                let expected = WatchResponse {
                    events: vec![mvccpb::Event {
                        r#type: number,
                        kv: Some(kv("new")),
                        prev_kv: previous,
                    }],
                    ..Default::default()
                };
                assert_eq!(encode(&event, record.as_ref()), expected.encode_to_vec());
            }
        }
    }
}
