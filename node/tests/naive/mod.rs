//! The naive model: every state that the store ever had, in a map each.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use quorate::machine::view::View;
use quorate::model::kv::compare::TargetUnion;
use quorate::model::kv::request_op::Request;
use quorate::model::kv::response_op::Response;
use quorate::model::kv::{
    CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse, KeyValue,
    LeaseGrantResponse, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    Reply, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, command::Kind,
};
use quorate::model::{EventKind, Refusal};

pub type State = BTreeMap<Bytes, KeyValue>;
pub type Told = Vec<(EventKind, KeyValue)>;

pub struct Model {
    pub revision: i64,
    pub compacted: i64,
    /// The state at each revision from 1 on.
    states: Vec<State>,
    events: Vec<Told>,
    /// TTL and what remains of it.
    pub leases: BTreeMap<i64, (i64, i64)>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            states: vec![State::new()],
            events: vec![Told::new()],
            leases: BTreeMap::new(),
        }
    }
}

/// A revision in the making.
struct Draft {
    begin: i64,
    state: State,
    told: Told,
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..Default::default()
    })
}

fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        b"" => key == start,
        b"\0" => key >= start,
        _ => key >= start && key < end,
    }
}

fn select<'s>(state: &'s State, start: &'s [u8], end: &'s [u8]) -> Vec<&'s KeyValue> {
    state
        .values()
        .filter(|pair| in_range(&pair.key, start, end))
        .collect()
}

impl Draft {
    fn visible(&self) -> i64 {
        self.begin + i64::from(!self.told.is_empty())
    }

    fn put(&mut self, request: &PutRequest) -> PutResponse {
        let old = self.state.get(&request.key).cloned();
        let main = self.begin + 1;
        let unchanged = old.clone().unwrap_or_default();
        let pair = KeyValue {
            key: request.key.clone(),
            create_revision: old.as_ref().map_or(main, |old| old.create_revision),
            mod_revision: main,
            version: unchanged.version + 1,
            value: if request.ignore_value {
                unchanged.value
            } else {
                request.value.clone()
            },
            lease: if request.ignore_lease {
                unchanged.lease
            } else {
                request.lease
            },
        };
        self.state.insert(request.key.clone(), pair.clone());
        self.told.push((EventKind::Put, pair));
        PutResponse {
            header: header(main),
            prev_kv: old.filter(|_| request.prev_kv),
        }
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let gone: Vec<_> = select(&self.state, &request.key, &request.range_end)
            .into_iter()
            .cloned()
            .collect();
        for pair in &gone {
            self.delete_key(&pair.key);
        }
        DeleteRangeResponse {
            header: header(self.visible()),
            deleted: gone.len() as i64,
            prev_kvs: if request.prev_kv { gone } else { Vec::new() },
        }
    }

    fn delete_key(&mut self, key: &Bytes) {
        self.state.remove(key);
        let tombstone = KeyValue {
            key: key.clone(),
            mod_revision: self.begin + 1,
            ..Default::default()
        };
        self.told.push((EventKind::Delete, tombstone));
    }
}

fn matches(compare: &Compare, state: &State) -> bool {
    let pairs = select(state, &compare.key, &compare.range_end);
    if pairs.is_empty() {
        return compare.target != 3 && matches_one(compare, &KeyValue::default());
    }
    pairs.into_iter().all(|pair| matches_one(compare, pair))
}

fn matches_one(compare: &Compare, pair: &KeyValue) -> bool {
    let number = |kind: i32| match (&compare.target_union, kind) {
        (Some(TargetUnion::Version(number)), 0)
        | (Some(TargetUnion::CreateRevision(number)), 1)
        | (Some(TargetUnion::ModRevision(number)), 2)
        | (Some(TargetUnion::Lease(number)), 4) => *number,
        _ => 0,
    };
    let order = match compare.target {
        0 => pair.version.cmp(&number(0)),
        1 => pair.create_revision.cmp(&number(1)),
        2 => pair.mod_revision.cmp(&number(2)),
        3 => match &compare.target_union {
            Some(TargetUnion::Value(value)) => pair.value.cmp(value),
            _ => pair.value.cmp(&Bytes::new()),
        },
        _ => pair.lease.cmp(&number(4)),
    };
    match compare.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        _ => order.is_ne(),
    }
}

fn answer(state: &State, request: &RangeRequest, current: i64) -> RangeResponse {
    let mut kvs: Vec<_> = select(state, &request.key, &request.range_end)
        .into_iter()
        .cloned()
        .collect();
    let count = kvs.len() as i64;
    if request.count_only {
        kvs.clear();
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    let unsorted = request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
    if limit > 0 && unsorted && filters == [0; 4] {
        kvs.truncate(limit + 1);
    }
    kvs.retain(|pair| {
        (filters[0] == 0 || pair.mod_revision >= filters[0])
            && (filters[1] == 0 || pair.mod_revision <= filters[1])
            && (filters[2] == 0 || pair.create_revision >= filters[2])
            && (filters[3] == 0 || pair.create_revision <= filters[3])
    });
    match request.sort_target {
        1 => kvs.sort_by_key(|pair| pair.version),
        2 => kvs.sort_by_key(|pair| pair.create_revision),
        3 => kvs.sort_by_key(|pair| pair.mod_revision),
        4 => kvs.sort_by_key(|pair| pair.value.clone()),
        _ => {}
    }
    if request.sort_order == 2 {
        // A stable descending sort keeps the order of equals.
        kvs.reverse();
        let rank = |pair: &KeyValue| match request.sort_target {
            1 => (pair.version, Bytes::new()),
            2 => (pair.create_revision, Bytes::new()),
            3 => (pair.mod_revision, Bytes::new()),
            4 => (0, pair.value.clone()),
            _ => (0, pair.key.clone()),
        };
        let mut start = 0;
        while start < kvs.len() {
            let equal = kvs[start..]
                .iter()
                .take_while(|pair| rank(pair) == rank(&kvs[start]))
                .count();
            kvs[start..start + equal].reverse();
            start += equal;
        }
    }
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        for pair in &mut kvs {
            pair.value = Bytes::new();
            if request.sort_target != 4 {
                pair.lease = 0;
            }
        }
    }
    RangeResponse {
        header: header(current),
        kvs,
        more,
        count,
    }
}

impl Model {
    pub fn state(&self, revision: i64) -> &State {
        &self.states[usize::try_from(revision).unwrap() - 1]
    }

    pub fn events_after(&self, revision: i64) -> Vec<(i64, EventKind, KeyValue)> {
        let numbered = (1..).zip(&self.events);
        numbered
            .filter(|(at, _)| *at > revision)
            .flat_map(|(at, told)| told.iter().map(move |(kind, kv)| (at, *kind, kv.clone())))
            .collect()
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        if request.revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(Refusal::Compacted);
        }
        let at = if request.revision > 0 {
            request.revision
        } else {
            self.revision
        };
        Ok(answer(self.state(at), request, self.revision))
    }

    fn draft(&self) -> Draft {
        Draft {
            begin: self.revision,
            state: self.state(self.revision).clone(),
            told: Told::new(),
        }
    }

    fn finish(&mut self, draft: Draft) -> Told {
        if draft.told.is_empty() {
            return Told::new();
        }
        self.revision += 1;
        self.states.push(draft.state);
        self.events.push(draft.told.clone());
        draft.told
    }

    pub fn apply(&mut self, kind: &Kind) -> (Result<Reply, Refusal>, Told) {
        let mut draft = self.draft();
        let reply = match kind {
            Kind::Put(request) => match self.check_put(request) {
                Some(refusal) => return (Err(refusal), Told::new()),
                None => Reply::Put(draft.put(request)),
            },
            Kind::DeleteRange(request) => Reply::DeleteRange(draft.delete(request)),
            Kind::Txn(request) => {
                if let Some(refusal) = self.check(request) {
                    return (Err(refusal), Told::new());
                }
                let mut response = self.execute(request, &mut draft);
                response.header = header(draft.visible());
                Reply::Txn(response)
            }
            Kind::LeaseRevoke(request) => {
                if self.leases.remove(&request.id).is_none() {
                    return (Err(Refusal::LeaseNotFound), Told::new());
                }
                let state = draft.state.clone();
                for pair in state.values().filter(|pair| pair.lease == request.id) {
                    draft.delete_key(&pair.key);
                }
                Reply::LeaseRevoke(LeaseRevokeResponse {
                    header: header(draft.visible()),
                })
            }
            other => return (self.apply_quiet(other), Told::new()),
        };
        let told = self.finish(draft);
        (Ok(reply), told)
    }

    /// Commands that make no revision.
    fn apply_quiet(&mut self, kind: &Kind) -> Result<Reply, Refusal> {
        match kind {
            Kind::Compaction(request) => {
                if request.revision <= self.compacted {
                    return Err(Refusal::Compacted);
                }
                if request.revision > self.revision {
                    return Err(Refusal::FutureRevision);
                }
                self.compacted = request.revision;
                Ok(Reply::Compaction(CompactionResponse {
                    header: header(self.revision),
                }))
            }
            Kind::LeaseGrant(request) => {
                if request.id == 0 {
                    return Err(Refusal::LeaseNotFound);
                }
                if self.leases.contains_key(&request.id) {
                    return Err(Refusal::LeaseExists);
                }
                self.leases.insert(request.id, (request.ttl, 0));
                Ok(Reply::LeaseGrant(LeaseGrantResponse {
                    header: header(self.revision),
                    id: request.id,
                    ttl: request.ttl,
                    error: String::new(),
                }))
            }
            Kind::LeaseCheckpoint(request) => {
                for checkpoint in &request.checkpoints {
                    if let Some(lease) = self.leases.get_mut(&checkpoint.id) {
                        lease.1 = checkpoint.remaining_ttl;
                    }
                }
                Ok(Reply::Done)
            }
            other => panic!("{other:?}"),
        }
    }

    fn check_put(&self, request: &PutRequest) -> Option<Refusal> {
        if request.lease != 0 && !self.leases.contains_key(&request.lease) {
            return Some(Refusal::LeaseNotFound);
        }
        let missing = !self.state(self.revision).contains_key(&request.key);
        (missing && (request.ignore_value || request.ignore_lease)).then_some(Refusal::KeyNotFound)
    }

    fn succeeds(&self, request: &TxnRequest) -> bool {
        let state = self.state(self.revision);
        request.compare.iter().all(|it| matches(it, state))
    }

    fn check(&self, request: &TxnRequest) -> Option<Refusal> {
        let operations = if self.succeeds(request) {
            &request.success
        } else {
            &request.failure
        };
        operations
            .iter()
            .find_map(|operation| match operation.request.as_ref().unwrap() {
                Request::RequestPut(put) => self.check_put(put),
                Request::RequestRange(range) if range.revision > self.revision => {
                    Some(Refusal::FutureRevision)
                }
                Request::RequestRange(range)
                    if range.revision != 0 && range.revision < self.compacted =>
                {
                    Some(Refusal::Compacted)
                }
                Request::RequestTxn(nested) => self.check(nested),
                _ => None,
            })
    }

    fn execute(&self, request: &TxnRequest, draft: &mut Draft) -> TxnResponse {
        let succeeded = self.succeeds(request);
        let operations = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let mut responses = Vec::new();
        for operation in operations {
            let response = match operation.request.as_ref().unwrap() {
                Request::RequestPut(put) => Response::ResponsePut(draft.put(put)),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(draft.delete(delete))
                }
                Request::RequestRange(range) => {
                    let state = if range.revision > 0 {
                        self.state(range.revision)
                    } else {
                        &draft.state
                    };
                    Response::ResponseRange(answer(state, range, draft.visible()))
                }
                Request::RequestTxn(nested) => Response::ResponseTxn(self.execute(nested, draft)),
            };
            responses.push(ResponseOp {
                response: Some(response),
            });
        }
        TxnResponse {
            header: Some(ResponseHeader::default()),
            succeeded,
            responses,
        }
    }

    /// (main, sub) of all records that a finished compaction leaves.
    pub fn kept(&self) -> BTreeSet<(i64, i64)> {
        let mut newest = BTreeMap::new();
        let mut kept = BTreeSet::new();
        for (main, told) in (1..).zip(&self.events) {
            for (sub, (kind, pair)) in (0..).zip(told) {
                let tombstone = *kind == EventKind::Delete;
                if main > self.compacted || (main == self.compacted && tombstone) {
                    kept.insert((main, sub));
                }
                if main <= self.compacted {
                    newest.insert(pair.key.clone(), ((main, sub), tombstone));
                }
            }
        }
        kept.extend(newest.values().filter(|it| !it.1).map(|it| it.0));
        kept
    }

    /// etcd's HashKV of the newest revision.
    pub fn hash(&self) -> u32 {
        let live_now: BTreeMap<_, _> = self.newest_live(self.revision);
        let live = if live_now.is_empty() {
            self.newest_live(self.compacted)
        } else {
            live_now
        };
        let live: BTreeSet<_> = live.into_values().collect();
        let mut sum = crc32c::crc32c(b"key");
        for (main, told) in (1i64..).zip(&self.events) {
            for (sub, (kind, pair)) in (0i64..).zip(told) {
                if main <= self.compacted && !live.contains(&(main, sub)) {
                    continue;
                }
                let mut text = main.to_be_bytes().to_vec();
                text.push(b'_');
                text.extend(sub.to_be_bytes());
                let mut pair = pair.clone();
                if *kind == EventKind::Delete {
                    text.push(b't');
                    pair.mod_revision = 0;
                }
                text.extend(pair.encode_to_vec());
                sum = crc32c::crc32c_append(sum, &text);
            }
        }
        sum
    }

    fn newest_live(&self, at: i64) -> BTreeMap<Bytes, (i64, i64)> {
        let mut newest = BTreeMap::new();
        for (main, told) in (1..=at).zip(&self.events) {
            for (sub, (kind, pair)) in (0..).zip(told) {
                match kind {
                    EventKind::Put => newest.insert(pair.key.clone(), (main, sub)),
                    EventKind::Delete => newest.remove(&pair.key),
                };
            }
        }
        newest
    }
}

/// (main, sub) of all records that lie in the store.
pub fn records(view: &View) -> BTreeSet<(i64, i64)> {
    let mut records = BTreeSet::new();
    let snapshot = view.db().snapshot();
    snapshot
        .reader()
        .records((0, 0), |main, sub, _, _| {
            records.insert((main, sub));
            Ok(true)
        })
        .unwrap();
    records
}
