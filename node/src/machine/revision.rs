//! One revision in the making: puts and deletes with their sub-revisions, events and leases.

use bytes::Bytes;
use prost::Message;

use super::header;
use crate::model::kv::{
    DeleteRangeRequest, DeleteRangeResponse, KeyValue, PutRequest, PutResponse,
};
use crate::model::{Event, EventBatch, EventKind, KeyRange, Refusal};
use crate::storage::layout::Head;
use crate::storage::record::key_of;
use crate::storage::{Batch, Error, Reader};

/// Collects the changes that get the same revision. Without a change there is no revision.
///
/// etcd: server/storage/mvcc/kvstore_txn.go.
pub(super) struct Revision<'a> {
    pub(super) batch: &'a mut Batch,
    begin: i64,
    events: Vec<Event>,
}

/// Checks what etcd checks before it writes anything; none when the put may go on.
pub(super) fn check_put(
    reader: Reader<'_>,
    request: &PutRequest,
) -> Result<Option<Refusal>, Error> {
    if request.lease != 0 && reader.lease(request.lease)?.is_none() {
        return Ok(Some(Refusal::LeaseNotFound));
    }
    let ignores = request.ignore_value || request.ignore_lease;
    if ignores && reader.head(&request.key)?.is_none() {
        return Ok(Some(Refusal::KeyNotFound));
    }
    Ok(None)
}

/// Decodes a record, sharing its bytes.
pub(super) fn decode(record: Bytes) -> Result<KeyValue, Error> {
    KeyValue::decode(record)
        .map_err(|error| Error::Engine(format!("a record cannot be read: {error}")))
}

impl<'a> Revision<'a> {
    /// A revision after `begin`.
    pub(super) fn begin(batch: &'a mut Batch, begin: i64) -> Self {
        Self {
            batch,
            begin,
            events: Vec::new(),
        }
    }

    /// What a read sees as the current revision at this point.
    pub(super) fn visible(&self) -> i64 {
        if self.events.is_empty() {
            self.begin
        } else {
            self.begin + 1
        }
    }

    /// The events, if anything changed.
    pub(super) fn finish(self) -> Option<EventBatch> {
        (!self.events.is_empty()).then_some(EventBatch {
            revision: self.begin + 1,
            events: self.events,
        })
    }

    /// Writes a key. [`check_put`] has passed.
    pub(super) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Error> {
        let reader = self.batch.reader();
        let (head, old) = if request.prev_kv || request.ignore_value {
            match reader.pair(&request.key)? {
                Some(pair) => (Some(pair.head), Some(decode(pair.record)?)),
                None => (None, None),
            }
        } else {
            (reader.head(&request.key)?, None)
        };
        let old_value = || old.as_ref().map(|old| old.value.clone());
        let value = if request.ignore_value {
            old_value().unwrap_or_default()
        } else {
            request.value.clone()
        };
        let old_lease = head.map_or(0, |head| head.lease);
        let lease = if request.ignore_lease {
            old_lease
        } else {
            request.lease
        };
        self.write(&request.key, value, lease, head.as_ref());
        Ok(PutResponse {
            header: header(self.begin + 1),
            prev_kv: old.filter(|_| request.prev_kv),
        })
    }

    fn write(&mut self, key: &Bytes, value: Bytes, lease: i64, replaced: Option<&Head>) {
        let main = self.begin + 1;
        let head = Head {
            create_revision: replaced.map_or(main, |head| head.create_revision),
            mod_revision: main,
            sub: self.next_sub(),
            version: replaced.map_or(0, |head| head.version) + 1,
            lease,
        };
        let record = Bytes::from(
            KeyValue {
                key: key.clone(),
                create_revision: head.create_revision,
                mod_revision: main,
                version: head.version,
                value,
                lease,
            }
            .encode_to_vec(),
        );
        // The key within the record: what outlives the command must not hold the whole entry.
        let key = key_of(&record);
        let old_lease = replaced.map_or(0, |head| head.lease);
        if old_lease != lease {
            self.move_lease(&key, old_lease, lease);
        }
        let previous = self.previous(&key, replaced);
        self.batch.put_pair(&key, head, record.clone(), replaced);
        self.events.push(Event {
            kind: EventKind::Put,
            key,
            kv: record,
            previous,
        });
    }

    /// Deletes every key of the request's range.
    pub(super) fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        let range = KeyRange::new(&request.key, &request.range_end);
        let mut targets = Vec::new();
        let mut prev_kvs = Vec::new();
        let reader = self.batch.reader();
        reader.scan(&range, None, &mut |key, found| {
            if request.prev_kv {
                prev_kvs.push(decode(reader.load(&found)?)?);
            }
            targets.push((Bytes::copy_from_slice(key), reader.load_head(&found)?));
            Ok(true)
        })?;
        for (key, head) in &targets {
            self.delete(key, head);
        }
        Ok(DeleteRangeResponse {
            header: header(self.visible()),
            deleted: i64::try_from(targets.len()).unwrap_or(i64::MAX),
            prev_kvs,
        })
    }

    /// Deletes a live key.
    pub(super) fn delete(&mut self, key: &Bytes, replaced: &Head) {
        let at = (self.begin + 1, self.next_sub());
        let tombstone = Bytes::from(
            KeyValue {
                key: key.clone(),
                mod_revision: at.0,
                ..Default::default()
            }
            .encode_to_vec(),
        );
        if replaced.lease != 0 {
            self.move_lease(key, replaced.lease, 0);
        }
        let previous = self.previous(key, Some(replaced));
        self.batch.delete_pair(key, at, &tombstone, replaced);
        self.events.push(Event {
            kind: EventKind::Delete,
            key: key.clone(),
            kv: tombstone,
            previous,
        });
    }

    fn next_sub(&self) -> i64 {
        i64::try_from(self.events.len()).unwrap_or(i64::MAX)
    }

    fn move_lease(&mut self, key: &Bytes, from: i64, to: i64) {
        if from != 0 {
            self.batch.set_attached(from, key, false);
        }
        if to != 0 {
            self.batch.set_attached(to, key, true);
        }
    }

    /// Where the version lies that a watcher knows as the previous one: the last of an earlier
    /// revision, for versions in the midst of a revision are seen by nobody.
    fn previous(&self, key: &Bytes, replaced: Option<&Head>) -> Option<(i64, i64)> {
        let replaced = replaced?;
        if replaced.mod_revision <= self.begin {
            return Some((replaced.mod_revision, replaced.sub));
        }
        let first = self.events.iter().find(|event| event.key == key);
        first.and_then(|event| event.previous)
    }
}
