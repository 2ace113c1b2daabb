//! What clients did and saw: calls with their times and outcomes, and what watchers were told.

use parking_lot::Mutex;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::{Event, KeyValue};
use std::time::Instant;
use tonic::{Code, Status};

/// One call on keys. Every value that a test puts is unique, so that its event can be told.
#[derive(Clone, Debug)]
pub enum Call {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Range(pb::RangeRequest),
}

/// The answer to a [`Call`] of the same name.
#[derive(Clone, Debug)]
pub enum Answer {
    Put(pb::PutResponse),
    Delete(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Range(pb::RangeResponse),
}

impl Answer {
    /// The revision in the answer's header; 0 when there is none.
    pub fn revision(&self) -> i64 {
        let header = match self {
            Self::Put(answer) => &answer.header,
            Self::Delete(answer) => &answer.header,
            Self::Txn(answer) => &answer.header,
            Self::Range(answer) => &answer.header,
        };
        header.as_ref().map_or(0, |header| header.revision)
    }
}

/// How a call ended, as its caller knows it.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Acknowledged.
    Ok(Answer),
    /// Refused for good: it must have had no effect.
    Refused(String),
    /// The connection broke or time ran out: it may have happened once, now or later, or never.
    Unknown(String),
}

impl Outcome {
    /// Sorts an error into refused and unknown. Whatever might hide a success is unknown.
    pub fn of_error(status: &Status) -> Self {
        let text = format!("{:?}: {}", status.code(), status.message());
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => Self::Refused(text),
            _ => Self::Unknown(text),
        }
    }
}

/// One call from its start to its end.
#[derive(Clone, Debug)]
pub struct Record {
    pub client: usize,
    pub call: Call,
    pub outcome: Outcome,
    /// Nanoseconds since the history began.
    pub invoked_ns: u64,
    /// When the outcome was known; for an unknown one the call may still take effect later.
    pub returned_ns: u64,
}

/// What one watcher asked for and was told, over all streams on which it resumed.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    pub name: String,
    pub key: bytes::Bytes,
    pub range_end: bytes::Bytes,
    pub prev_kv: bool,
    /// One entry a stream, in order.
    pub streams: Vec<WatchedStream>,
}

/// One stream of a watcher.
#[derive(Clone, Debug, Default)]
pub struct WatchedStream {
    /// Where it was asked to start; positive.
    pub start_revision: i64,
    pub answers: Vec<WatchAnswer>,
}

/// One answer with events, or a progress report without.
#[derive(Clone, Debug, Default)]
pub struct WatchAnswer {
    pub header_revision: i64,
    pub fragment: bool,
    pub events: Vec<Event>,
}

impl WatchAnswer {
    /// Takes what the checker judges from the wire's message.
    pub fn of(answer: pb::WatchResponse) -> Self {
        Self {
            header_revision: answer.header.as_ref().map_or(0, |h| h.revision),
            fragment: answer.fragment,
            events: answer.events,
        }
    }
}

/// The hash of one member's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberHash {
    pub member: String,
    pub hash: u32,
    pub hash_revision: i64,
    pub compact_revision: i64,
}

impl MemberHash {
    /// What `member` answered.
    pub fn of(member: &str, answer: &pb::HashKvResponse) -> Self {
        Self {
            member: member.to_owned(),
            hash: answer.hash,
            hash_revision: answer.hash_revision,
            compact_revision: answer.compact_revision,
        }
    }
}

/// Collects records from many clients.
#[derive(Debug)]
pub struct History {
    start: Instant,
    // Held for one push; clients are many and calls are slow beside it.
    records: Mutex<Vec<Record>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            records: Mutex::new(Vec::new()),
        }
    }
}

impl History {
    /// Nanoseconds since the history began.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a test ends within 500 years")
    }

    /// Adds a call that ended now.
    pub fn add(&self, client: usize, call: Call, invoked_ns: u64, outcome: Outcome) {
        let returned_ns = self.now_ns();
        self.records.lock().push(Record {
            client,
            call,
            outcome,
            invoked_ns,
            returned_ns,
        });
    }

    /// A copy of all records so far.
    pub fn records(&self) -> Vec<Record> {
        self.records.lock().clone()
    }

    /// How many calls were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let records = self.records.lock();
        let ok = |record: &&Record| matches!(record.outcome, Outcome::Ok(_));
        records.iter().filter(ok).count()
    }
}

/// Whether an event removes its key.
pub fn is_delete(event: &Event) -> bool {
    event.r#type == quorate_proto::mvccpb::event::EventType::Delete as i32
}

/// The key of an event; empty when it has none.
pub fn event_kv(event: &Event) -> KeyValue {
    event.kv.clone().unwrap_or_default()
}
