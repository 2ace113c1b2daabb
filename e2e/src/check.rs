//! The judge: a history of calls against the full event log in revision order.
//!
//! Every answer carries a revision, and a watch from revision 1 gives the order of all writes, so
//! nothing has to be searched: each call has its place, and it is only checked that the place fits
//! its effect, its answer and real time. Millions of calls take seconds.

use crate::history::{Answer, Call, MemberHash, Outcome, Record};
use crate::replay::{Effect, Replay};
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::{Event, KeyValue};
use std::collections::{BTreeMap, BTreeSet};

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Revisions grow one by one, and versions with them.
    LogOrder,
    /// What was acknowledged is there, exactly as it was asked for.
    Acknowledged,
    /// Nothing happens twice.
    Once,
    /// What was refused did not happen.
    Refused,
    /// Nothing happens that nobody asked for.
    Phantom,
    /// Who comes later in real time does not come earlier in revisions.
    RealTime,
    /// A read gives the state at its revision.
    Read,
    WatchOrdered,
    WatchUnique,
    WatchAtomic,
    WatchComplete,
    WatchProgress,
    WatchPrevKv,
    /// All members have the same hash.
    Hash,
}

/// A broken promise and where it broke.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub text: String,
}

/// Collects violations of one rule after another.
#[derive(Debug, Default)]
pub struct Verdict {
    pub violations: Vec<Violation>,
}

impl Verdict {
    pub(crate) fn add(&mut self, rule: Rule, text: String) {
        self.violations.push(Violation { rule, text });
    }

    /// Fails with the first few violations, if there are any.
    ///
    /// # Errors
    /// When a promise was broken.
    pub fn into_result(self) -> anyhow::Result<()> {
        let shown: Vec<String> = self
            .violations
            .iter()
            .take(10)
            .map(|v| format!("{:?}: {}", v.rule, v.text))
            .collect();
        let count = self.violations.len();
        anyhow::ensure!(count == 0, "{count} violations:\n{}", shown.join("\n"));
        Ok(())
    }
}

/// Judges all calls. `events` is everything that a watch from revision 1 on all keys gave.
pub fn calls(records: &[Record], events: &[Event]) -> Verdict {
    let (replay, faults) = Replay::build(events);
    let mut verdict = Verdict::default();
    for fault in faults {
        verdict.add(Rule::LogOrder, fault);
    }
    let mut judge = Judge::new(&replay, verdict);
    for record in records {
        judge.acknowledged(record);
    }
    for record in records {
        judge.not_acknowledged(record);
    }
    judge.unclaimed(records);
    judge.real_time();
    judge.verdict
}

/// Judges the hashes of all members.
pub fn hashes(hashes: &[MemberHash]) -> Verdict {
    let mut verdict = Verdict::default();
    let figures = |h: &MemberHash| (h.hash, h.hash_revision, h.compact_revision);
    if hashes
        .windows(2)
        .any(|pair| figures(&pair[0]) != figures(&pair[1]))
    {
        verdict.add(Rule::Hash, format!("{hashes:?}"));
    }
    verdict
}

/// The place of one call in the order of revisions, and its times.
struct Place {
    revision: i64,
    /// It made this revision, so it comes after everything that was at an earlier one.
    writes: bool,
    /// A serializable read may be old.
    may_be_stale: bool,
    invoked_ns: u64,
    returned_ns: u64,
    text: String,
}

struct Judge<'a> {
    replay: &'a Replay,
    verdict: Verdict,
    /// Which revisions a call accounts for.
    claimed: BTreeSet<i64>,
    /// Where a value was written.
    values: BTreeMap<Bytes, Vec<i64>>,
    places: Vec<Place>,
}

impl<'a> Judge<'a> {
    fn new(replay: &'a Replay, verdict: Verdict) -> Self {
        let mut values: BTreeMap<Bytes, Vec<i64>> = BTreeMap::new();
        for &revision in replay.revisions.keys() {
            for (_, value) in replay.effects_at(revision) {
                if let Some(value) = value {
                    values.entry(value).or_default().push(revision);
                }
            }
        }
        let mut judge = Self {
            replay,
            verdict,
            claimed: BTreeSet::new(),
            values,
            places: Vec::new(),
        };
        let twice: Vec<String> = judge
            .values
            .iter()
            .filter(|(_, revisions)| revisions.len() > 1)
            .map(|(value, revisions)| format!("{value:?} was written at {revisions:?}"))
            .collect();
        for text in twice {
            judge.verdict.add(Rule::Once, text);
        }
        judge
    }

    fn effects(&self, call: &Call, before: i64) -> Vec<Effect> {
        match call {
            Call::Put(put) => vec![(put.key.clone(), Some(put.value.clone()))],
            Call::Delete(delete) => self.replay.delete_effects(delete, before),
            Call::Txn(txn) => self.replay.txn_effects(txn, before),
            Call::Range(_) => Vec::new(),
        }
    }

    fn acknowledged(&mut self, record: &Record) {
        let Outcome::Ok(answer) = &record.outcome else {
            return;
        };
        let revision = answer.revision();
        let there = self.replay.effects_at(revision);
        let writes = wrote(answer);
        let before = if writes { revision - 1 } else { revision };
        let made = self.effects(&record.call, before);
        if writes && (made.is_empty() || made != there) || !writes && !made.is_empty() {
            let text = format!("{record:?}: at its revision there is {there:?}");
            self.verdict.add(Rule::Acknowledged, text);
            return;
        }
        if writes && !self.claimed.insert(revision) {
            let text = format!("{record:?}: another call made this revision");
            self.verdict.add(Rule::Once, text);
        }
        if revision > self.replay.last() {
            let last = self.replay.last();
            let text = format!("{record:?}: but the log ends at {last}");
            self.verdict.add(Rule::Acknowledged, text);
        }
        self.answer(record, answer, before);
        let stale = matches!(&record.call, Call::Range(range) if range.serializable);
        self.place(record, revision, writes, stale);
    }

    fn place(&mut self, record: &Record, revision: i64, writes: bool, may_be_stale: bool) {
        let known = matches!(record.outcome, Outcome::Ok(_));
        self.places.push(Place {
            revision,
            writes,
            may_be_stale,
            invoked_ns: record.invoked_ns,
            returned_ns: if known { record.returned_ns } else { u64::MAX },
            text: format!("client {} {:?}", record.client, record.call),
        });
    }

    /// Whether the answer says what the model says of the state it worked on.
    fn answer(&mut self, record: &Record, answer: &Answer, before: i64) {
        let replay = self.replay;
        let right = match (&record.call, answer) {
            (Call::Put(put), Answer::Put(answer)) => {
                let previous = replay.get(&put.key, before).filter(|_| put.prev_kv);
                answer.prev_kv.as_ref() == previous
            }
            (Call::Delete(delete), Answer::Delete(answer)) => {
                let found = replay.range(&delete.key, &delete.range_end, before);
                let count = usize::try_from(answer.deleted) == Ok(found.len());
                count && (!delete.prev_kv || same(&answer.prev_kvs, &found))
            }
            (Call::Txn(txn), Answer::Txn(answer)) => {
                answer.succeeded == replay.compares_hold(&txn.compare, before)
            }
            (Call::Range(range), Answer::Range(answer)) => range_is_right(replay, range, answer),
            _ => false,
        };
        if !right {
            self.verdict.add(Rule::Read, format!("{record:?}"));
        }
    }

    fn not_acknowledged(&mut self, record: &Record) {
        let values = values_of(&record.call);
        let found = values.iter().filter_map(|value| self.values.get(*value));
        let found: BTreeSet<i64> = found.flatten().copied().collect();
        match &record.outcome {
            Outcome::Ok(_) => {}
            Outcome::Refused(_) => {
                if !found.is_empty() {
                    let text = format!("{record:?} happened at {found:?}");
                    self.verdict.add(Rule::Refused, text);
                }
            }
            Outcome::Unknown(_) => self.unknown(record, &found),
        }
    }

    fn unknown(&mut self, record: &Record, found: &BTreeSet<i64>) {
        for &revision in found {
            let whole = self.effects(&record.call, revision - 1);
            if whole != self.replay.effects_at(revision) {
                let text = format!("{record:?} happened in part at {revision}");
                self.verdict.add(Rule::Acknowledged, text);
            }
            if !self.claimed.insert(revision) {
                self.verdict
                    .add(Rule::Once, format!("{record:?} at {revision}"));
            }
            self.place(record, revision, true, false);
        }
        if found.len() > 1 {
            self.verdict
                .add(Rule::Once, format!("{record:?} at {found:?}"));
        }
    }

    /// A revision that nobody claims must be one of the unknown deletions.
    fn unclaimed(&mut self, records: &[Record]) {
        let unknown = |record: &&Record| matches!(record.outcome, Outcome::Unknown(_));
        let mut candidates: Vec<&Record> = records.iter().filter(unknown).collect();
        let revisions: Vec<i64> = self.replay.revisions.keys().copied().collect();
        for revision in revisions {
            if self.claimed.contains(&revision) {
                continue;
            }
            let there = self.replay.effects_at(revision);
            let fits = |record: &&Record| self.effects(&record.call, revision - 1) == there;
            match candidates.iter().position(fits) {
                Some(at) => {
                    let record = candidates.remove(at);
                    self.place(record, revision, true, false);
                }
                None => {
                    let text = format!("nobody did {there:?} at {revision}");
                    self.verdict.add(Rule::Phantom, text);
                }
            }
        }
    }

    /// Who was invoked after another had returned has no smaller revision; a write a greater one.
    fn real_time(&mut self) {
        let mut by_return: Vec<&Place> = self.places.iter().collect();
        by_return.sort_by_key(|place| place.returned_ns);
        let mut by_invocation: Vec<&Place> = self.places.iter().collect();
        by_invocation.sort_by_key(|place| place.invoked_ns);
        let mut newest: Option<&Place> = None;
        let mut returned = by_return.into_iter().peekable();
        let mut faults = Vec::new();
        for place in by_invocation {
            while let Some(earlier) = returned.next_if(|p| p.returned_ns < place.invoked_ns) {
                if newest.is_none_or(|newest| newest.revision < earlier.revision) {
                    newest = Some(earlier);
                }
            }
            let Some(newest) = newest else {
                continue;
            };
            let old = place.revision < newest.revision
                || (place.writes && place.revision == newest.revision);
            if old && !place.may_be_stale {
                faults.push(format!(
                    "{} at {} began after the end of {} at {}",
                    place.text, place.revision, newest.text, newest.revision
                ));
            }
        }
        for fault in faults {
            self.verdict.add(Rule::RealTime, fault);
        }
    }
}

/// Whether an answer says that its call changed something.
fn wrote(answer: &Answer) -> bool {
    match answer {
        Answer::Put(_) => true,
        Answer::Delete(answer) => answer.deleted > 0,
        Answer::Range(_) => false,
        Answer::Txn(answer) => answer.responses.iter().any(|op| match &op.response {
            Some(pb::response_op::Response::ResponsePut(_)) => true,
            Some(pb::response_op::Response::ResponseDeleteRange(inner)) => inner.deleted > 0,
            _ => false,
        }),
    }
}

/// The values that a call would put, in whichever branch.
fn values_of(call: &Call) -> Vec<&Bytes> {
    match call {
        Call::Put(put) => vec![&put.value],
        Call::Txn(txn) => {
            let ops = txn.success.iter().chain(&txn.failure);
            ops.filter_map(|op| match &op.request {
                Some(pb::request_op::Request::RequestPut(put)) => Some(&put.value),
                _ => None,
            })
            .collect()
        }
        Call::Delete(_) | Call::Range(_) => Vec::new(),
    }
}

fn same(answered: &[KeyValue], modelled: &[&KeyValue]) -> bool {
    answered.iter().eq(modelled.iter().copied())
}

fn range_is_right(replay: &Replay, range: &pb::RangeRequest, answer: &pb::RangeResponse) -> bool {
    let header = answer.header.as_ref().map_or(0, |header| header.revision);
    let revision = if range.revision > 0 {
        range.revision
    } else {
        header
    };
    let found = replay.range(&range.key, &range.range_end, revision);
    let limit = match usize::try_from(range.limit) {
        Ok(limit) if limit > 0 => limit,
        _ => usize::MAX,
    };
    let shown = &found[..found.len().min(limit)];
    revision <= header
        && usize::try_from(answer.count) == Ok(found.len())
        && answer.more == (found.len() > shown.len())
        && same(&answer.kvs, shown)
}
