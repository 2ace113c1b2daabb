//! The event log as a model: the state of every key at every revision.

use crate::history::{event_kv, is_delete};
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::mvccpb::{Event, KeyValue};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What a write does to one key: the new value, or nothing for a deletion.
pub type Effect = (Bytes, Option<Bytes>);

/// Whether `key` lies in a range as etcd writes it: a key, a half-open range, or from a key on.
pub fn in_range(key: &[u8], start: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

/// All events in revision order, and what they make of the keys.
#[derive(Debug, Default)]
pub struct Replay {
    /// The events of each revision in their order.
    pub revisions: BTreeMap<i64, Vec<Event>>,
    /// For each key its states, oldest first; `None` after a deletion.
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
}

impl Replay {
    /// Builds the model and reports every event that contradicts those before it.
    pub fn build(events: &[Event]) -> (Self, Vec<String>) {
        let mut replay = Self::default();
        let mut faults = Vec::new();
        let mut last = 1;
        for event in events {
            let kv = event_kv(event);
            let revision = kv.mod_revision;
            if revision < last {
                faults.push(format!("revision {revision} comes after {last}"));
            }
            if revision > last + 1 {
                faults.push(format!("no event between {last} and {revision}"));
            }
            last = last.max(revision);
            if let Some(fault) = replay.contradiction(event, &kv) {
                faults.push(fault);
            }
            replay
                .revisions
                .entry(revision)
                .or_default()
                .push(event.clone());
            let state = (!is_delete(event)).then(|| kv.clone());
            let states = replay.keys.entry(kv.key).or_default();
            states.push((revision, state));
        }
        (replay, faults)
    }

    fn contradiction(&self, event: &Event, kv: &KeyValue) -> Option<String> {
        let revision = kv.mod_revision;
        let before = self.get(&kv.key, i64::MAX);
        let same = self.keys.get(&kv.key).and_then(|states| states.last());
        if same.is_some_and(|(at, _)| *at == revision) {
            return Some(format!("{:?} twice at revision {revision}", kv.key));
        }
        match (is_delete(event), before) {
            (true, None) => Some(format!("{:?} deleted at {revision} but absent", kv.key)),
            (true, Some(_)) => None,
            (false, None) => (kv.version != 1 || kv.create_revision != revision)
                .then(|| format!("created at {revision}, but it says {kv:?}")),
            (false, Some(before)) => {
                let next = kv.version == before.version + 1
                    && kv.create_revision == before.create_revision;
                (!next).then(|| format!("{before:?} became {kv:?}"))
            }
        }
    }

    /// The last revision; 1 for an empty store.
    pub fn last(&self) -> i64 {
        self.revisions.keys().next_back().copied().unwrap_or(1)
    }

    /// A key as it was at `revision`.
    pub fn get(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let states = self.keys.get(key)?;
        let after = states.partition_point(|(at, _)| *at <= revision);
        states[..after].last()?.1.as_ref()
    }

    /// All keys of a range as they were at `revision`, in key order.
    pub fn range(&self, key: &Bytes, range_end: &[u8], revision: i64) -> Vec<&KeyValue> {
        let from = self.keys.range(key.clone()..);
        let inside = from.take_while(|(found, _)| in_range(found, key, range_end));
        inside
            .filter_map(|(found, _)| self.get(found, revision))
            .collect()
    }

    /// What the events of a revision did.
    pub fn effects_at(&self, revision: i64) -> Vec<Effect> {
        let events = self.revisions.get(&revision);
        events
            .into_iter()
            .flatten()
            .map(|event| {
                let kv = event_kv(event);
                let value = (!is_delete(event)).then_some(kv.value);
                (kv.key, value)
            })
            .collect()
    }

    /// What a deletion does to the state at `revision`.
    pub fn delete_effects(&self, request: &pb::DeleteRangeRequest, revision: i64) -> Vec<Effect> {
        let found = self.range(&request.key, &request.range_end, revision);
        found.iter().map(|kv| (kv.key.clone(), None)).collect()
    }

    /// Whether all compares of a transaction hold at `revision`.
    pub fn compares_hold(&self, compares: &[pb::Compare], revision: i64) -> bool {
        compares
            .iter()
            .all(|compare| self.compare_holds(compare, revision))
    }

    fn compare_holds(&self, compare: &pb::Compare, revision: i64) -> bool {
        let kv = self.get(&compare.key, revision);
        let absent = KeyValue::default();
        let number = |found: i64, wanted: i64| found.cmp(&wanted);
        let ordering = match (compare.target(), &compare.target_union) {
            (CompareTarget::Value, union) => {
                let Some(kv) = kv else {
                    return false;
                };
                match union {
                    Some(TargetUnion::Value(value)) => kv.value.cmp(value),
                    _ => kv.value.as_ref().cmp(&[][..]),
                }
            }
            (CompareTarget::Version, Some(TargetUnion::Version(wanted))) => {
                number(kv.unwrap_or(&absent).version, *wanted)
            }
            (CompareTarget::Create, Some(TargetUnion::CreateRevision(wanted))) => {
                number(kv.unwrap_or(&absent).create_revision, *wanted)
            }
            (CompareTarget::Mod, Some(TargetUnion::ModRevision(wanted))) => {
                number(kv.unwrap_or(&absent).mod_revision, *wanted)
            }
            _ => unreachable!("the traffic compares by value, version, create and mod alone"),
        };
        match compare.result() {
            CompareResult::Equal => ordering == Ordering::Equal,
            CompareResult::NotEqual => ordering != Ordering::Equal,
            CompareResult::Greater => ordering == Ordering::Greater,
            CompareResult::Less => ordering == Ordering::Less,
        }
    }

    /// What a transaction does to the state at `revision`. Its operations name different keys.
    pub fn txn_effects(&self, request: &pb::TxnRequest, revision: i64) -> Vec<Effect> {
        let branch = match self.compares_hold(&request.compare, revision) {
            true => &request.success,
            false => &request.failure,
        };
        let mut effects = Vec::new();
        for op in branch {
            match &op.request {
                Some(pb::request_op::Request::RequestPut(put)) => {
                    effects.push((put.key.clone(), Some(put.value.clone())));
                }
                Some(pb::request_op::Request::RequestDeleteRange(delete)) => {
                    effects.extend(self.delete_effects(delete, revision));
                }
                Some(pb::request_op::Request::RequestRange(_)) => {}
                other => unreachable!("the traffic sends no {other:?} in a transaction"),
            }
        }
        effects
    }
}
