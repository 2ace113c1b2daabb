//! The machine over a real store against a naive model that keeps every state it ever had:
//! answers, events, all readable revisions, compaction, and what a crash leaves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use naive::Model;
use proptest::prelude::*;
use prost::Message;
use quorate::machine::compaction::{ScrubProgress, scrub_slice};
use quorate::machine::view::View;
use quorate::machine::{Machine, Position};
use quorate::model::kv::compare::TargetUnion;
use quorate::model::kv::request_op::Request;
use quorate::model::kv::{
    Command, CompactionRequest, Compare, DeleteRangeRequest, KeyValue, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    command::Kind,
};
use quorate::model::{EventKind, KeyRange};
use quorate::storage::Db;
use quorate_proto::etcdserverpb::{LeaseCheckpoint, RangeResponse};

/// What a test does next.
#[derive(Debug, Clone)]
enum Step {
    /// Commands of one raft entry; those flagged are followed by a commit in the midst of it.
    Entry(Vec<(Kind, bool)>),
    Scrub(usize),
    Flush,
    /// From here on, what lay on disk at this point and a replay of the log.
    Crash,
}

fn key() -> impl Strategy<Value = Bytes> {
    let keys: [&'static [u8]; 7] = [b"\0", b"a", b"a\0", b"a\0\xff", b"b", b"c", b"\xff\xff"];
    proptest::sample::select(keys.map(Bytes::from_static).to_vec())
}

fn range_end() -> impl Strategy<Value = Bytes> {
    let ends: [&'static [u8]; 7] = [b"", b"", b"\0", b"a\0", b"b", b"c", b"\xff"];
    proptest::sample::select(ends.map(Bytes::from_static).to_vec())
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => proptest::sample::select(vec!["", "x", "y"]).prop_map(Bytes::from),
        1 => Just(Bytes::from(vec![b'v'; 700])),
    ]
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 1 => -1..3i64]
}

fn put() -> impl Strategy<Value = PutRequest> {
    let ignore = || proptest::bool::weighted(0.15);
    (key(), value(), lease(), any::<bool>(), ignore(), ignore()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn range() -> impl Strategy<Value = RangeRequest> {
    let bound = || prop_oneof![4 => Just(0), 1 => 1..20i64];
    let revision = prop_oneof![3 => Just(0), 1 => -2..25i64];
    let flag = || proptest::bool::weighted(0.2);
    (
        (key(), range_end(), revision, -1..4i64, 0..3i32, 0..5i32),
        (flag(), flag(), bound(), bound(), bound(), bound()),
    )
        .prop_map(|(a, b)| RangeRequest {
            key: a.0,
            range_end: a.1,
            revision: a.2,
            limit: a.3,
            sort_order: a.4,
            sort_target: a.5,
            keys_only: b.0,
            count_only: b.1,
            min_mod_revision: b.2,
            max_mod_revision: b.3,
            min_create_revision: b.4,
            max_create_revision: b.5,
            ..Default::default()
        })
}

fn compare() -> impl Strategy<Value = Compare> {
    let union = (0..6, 0..6i64, value()).prop_map(|(kind, number, value)| match kind {
        0 => Some(TargetUnion::Version(number)),
        1 => Some(TargetUnion::CreateRevision(number)),
        2 => Some(TargetUnion::ModRevision(number)),
        3 => Some(TargetUnion::Lease(number)),
        4 => Some(TargetUnion::Value(value)),
        _ => None,
    });
    (key(), range_end(), 0..4i32, 0..5i32, union).prop_map(
        |(key, range_end, result, target, target_union)| Compare {
            result,
            target,
            key,
            range_end,
            target_union,
        },
    )
}

fn txn(depth: u32) -> BoxedStrategy<TxnRequest> {
    let flat = prop_oneof![
        3 => put().prop_map(Request::RequestPut),
        2 => delete().prop_map(Request::RequestDeleteRange),
        2 => range().prop_map(Request::RequestRange),
    ];
    let operation = if depth == 0 {
        flat.boxed()
    } else {
        prop_oneof![4 => flat, 1 => txn(depth - 1).prop_map(Request::RequestTxn)].boxed()
    };
    let operation = operation.prop_map(|request| RequestOp {
        request: Some(request),
    });
    let branch = proptest::collection::vec(operation, 0..4).boxed();
    let compares = proptest::collection::vec(compare(), 0..2);
    (compares, branch.clone(), branch)
        .prop_map(|(compare, success, failure)| TxnRequest {
            compare,
            success,
            failure,
        })
        .boxed()
}

fn compaction() -> impl Strategy<Value = Kind> {
    (-1..30i64).prop_map(|revision| {
        Kind::Compaction(CompactionRequest {
            revision,
            physical: false,
        })
    })
}

fn checkpoint() -> impl Strategy<Value = Kind> {
    (-1..3i64, 1..9i64).prop_map(|(id, remaining_ttl)| {
        Kind::LeaseCheckpoint(LeaseCheckpointRequest {
            checkpoints: vec![LeaseCheckpoint { id, remaining_ttl }],
        })
    })
}

fn command() -> impl Strategy<Value = Kind> {
    let id = || -1..3i64;
    let grant =
        (id(), 2..4i64).prop_map(|(id, ttl)| Kind::LeaseGrant(LeaseGrantRequest { id, ttl }));
    let revoke = id().prop_map(|id| Kind::LeaseRevoke(LeaseRevokeRequest { id }));
    prop_oneof![
        6 => put().prop_map(Kind::Put),
        3 => delete().prop_map(Kind::DeleteRange),
        5 => txn(2).prop_map(Kind::Txn),
        1 => compaction(),
        2 => grant,
        1 => revoke,
        1 => checkpoint(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let commands = proptest::collection::vec((command(), proptest::bool::weighted(0.2)), 1..4);
    prop_oneof![
        12 => commands.prop_map(Step::Entry),
        2 => (1..5usize).prop_map(Step::Scrub),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
    ]
}

/// One member: its store, its machine and its log.
struct Member {
    directory: tempfile::TempDir,
    generation: usize,
    db: Arc<Db>,
    machine: Machine,
    log: Vec<Vec<Kind>>,
}

impl Member {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&directory.path().join("0")).unwrap();
        let machine = Machine::load(&db).unwrap();
        Self {
            directory,
            generation: 0,
            db,
            machine,
            log: Vec::new(),
        }
    }

    fn view(&self) -> View {
        View::of(&self.db)
    }

    fn apply(&mut self, commands: Vec<(Kind, bool)>, model: &mut Model) {
        let mut batch = self.db.batch();
        let mut entry = Vec::new();
        for (kind, commit) in commands {
            entry.push(kind.clone());
            let command = Command {
                kind: Some(kind.clone()),
            };
            let applied = self.machine.apply(&mut batch, &command).unwrap();
            let (reply, events) = model.apply(&kind);
            assert_eq!(applied.outcome, reply, "{kind:?}");
            let told: Vec<_> = applied
                .events
                .iter()
                .flat_map(|batch| &batch.events)
                .map(|event| (event.kind, KeyValue::decode(event.kv.clone()).unwrap()))
                .collect();
            assert_eq!(told, events, "{kind:?}");
            if commit {
                batch.commit_pending().unwrap();
            }
        }
        self.log.push(entry);
        batch.finish_entry(Position {
            term: 1,
            index: self.log.len() as u64,
        });
        self.db.commit(batch).unwrap();
        assert_eq!(self.machine.revision(), model.revision);
        assert_eq!(self.machine.compacted(), model.compacted);
    }

    /// Makes only a part of the last entry durable, then crashes.
    fn crash_within_an_entry(&mut self, commands: Vec<(Kind, bool)>, model: &mut Model) {
        let half = commands.len() / 2;
        let mut batch = self.db.batch();
        let mut ahead = self.machine.clone();
        for (kind, _) in &commands[..half] {
            let command = Command {
                kind: Some(kind.clone()),
            };
            ahead.apply(&mut batch, &command).unwrap();
        }
        batch.commit_pending().unwrap();
        self.db.flush().unwrap();
        drop(batch);
        let (replies, _): (Vec<_>, Vec<_>) =
            commands.iter().map(|(kind, _)| model.apply(kind)).unzip();
        assert_eq!(replies.len(), commands.len());
        self.log.push(commands.into_iter().map(|it| it.0).collect());
        self.crash();
    }

    /// Goes on with a copy of the files as they are, and replays what they lack.
    fn crash(&mut self) {
        self.generation += 1;
        let path = self.directory.path().join(self.generation.to_string());
        self.db = crash_image(self.db.path(), &path);
        self.machine = Machine::load(&self.db).unwrap();
        let progress = self.db.progress();
        let mut skip = progress.next_entry_commands as usize;
        let from = usize::try_from(progress.applied.index).unwrap();
        for (index, entry) in self.log.iter().enumerate().skip(from) {
            let mut batch = self.db.batch();
            for kind in entry.iter().skip(skip) {
                let command = Command {
                    kind: Some(kind.clone()),
                };
                self.machine.apply(&mut batch, &command).unwrap();
            }
            skip = 0;
            batch.finish_entry(Position {
                term: 1,
                index: index as u64 + 1,
            });
            self.db.commit(batch).unwrap();
        }
    }
}

/// Opens a copy of the files in `from` as they are. The store goes on tidying up in the
/// background; a copy that got in its way is made again.
fn crash_image(from: &Path, to: &Path) -> Arc<Db> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let copied = copy(from, to).map_err(|error| error.to_string());
        match copied.and_then(|()| Db::open(to).map_err(|error| error.to_string())) {
            Ok(db) => return db,
            Err(error) => assert!(attempts < 100, "{error}"),
        }
        std::fs::remove_dir_all(to).unwrap();
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn check_ranges(view: &View, model: &Model, requests: &[RangeRequest]) {
    for request in requests {
        for revision in [request.revision, 0, model.compacted, model.revision - 1] {
            let request = RangeRequest {
                revision,
                ..request.clone()
            };
            let expected = model.range(&request);
            let answer = view.range(&request).map_err(|error| error.to_string());
            let refused = expected.clone().map_err(|refusal| refusal.to_string());
            assert_eq!(answer, refused, "{request:?}");
            let Ok(expected) = expected else { continue };
            let encoded = view.range_encoded(&request).unwrap();
            let decoded = RangeResponse::decode(encoded.kvs).unwrap();
            assert_eq!(decoded.kvs, expected.kvs, "{request:?}");
            assert_eq!(
                (encoded.more, encoded.count),
                (expected.more, expected.count)
            );
        }
    }
    // Every revision that may be read, whole.
    for revision in model.compacted.max(1)..=model.revision {
        let request = RangeRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            revision,
            ..Default::default()
        };
        let answer = view.range(&request).unwrap();
        let expected = model.range(&request).unwrap();
        assert_eq!(answer.kvs, expected.kvs, "at {revision}");
    }
}

fn check_history(view: &View, model: &Model, records_max: usize) {
    let everything = KeyRange::From(Bytes::new());
    let mut from = model.compacted.max(1) + 1;
    let mut told = Vec::new();
    while from <= model.revision {
        let (events, next) = view.history(from, &everything, records_max).unwrap();
        assert!(next > from && events.iter().all(|(at, _)| (from..next).contains(at)));
        told.extend(events);
        from = next;
    }
    let expected = model.events_after(model.compacted.max(1));
    assert_eq!(told.len(), expected.len());
    for ((at, event), (expected_at, kind, pair)) in told.iter().zip(expected) {
        assert_eq!((*at, event.kind), (expected_at, kind));
        assert_eq!(KeyValue::decode(event.kv.clone()).unwrap(), pair);
        assert_eq!(event.key, pair.key);
        let before = model.state(at - 1).get(&pair.key);
        let is_create = kind == EventKind::Put && pair.create_revision == *at;
        let previous = event.previous.map(|(main, sub)| {
            let record = view.record(main, sub).unwrap().unwrap();
            KeyValue::decode(record).unwrap()
        });
        let before = before.filter(|_| !is_create);
        assert_eq!(previous.as_ref(), before, "{event:?}");
    }
}

fn check_leases(view: &View, model: &Model) {
    let leases: Vec<_> = view
        .leases()
        .unwrap()
        .iter()
        .map(|lease| (lease.id, (lease.ttl_seconds, lease.remaining_seconds)))
        .collect();
    let expected: Vec<_> = model.leases.clone().into_iter().collect();
    assert_eq!(leases, expected);
    for (id, _) in leases {
        let state = model.state(model.revision).values();
        let keys: Vec<_> = state
            .filter(|pair| pair.lease == id)
            .map(|pair| pair.key.clone())
            .collect();
        assert_eq!(view.lease_keys(id).unwrap(), keys);
    }
}

fn run(steps: Vec<Step>, last: Vec<(Kind, bool)>, requests: &[RangeRequest], records_max: usize) {
    let mut member = Member::new();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Entry(commands) => member.apply(commands, &mut model),
            Step::Scrub(records) => {
                scrub_slice(&member.db, records).unwrap();
            }
            Step::Flush => member.db.flush().unwrap(),
            Step::Crash => {
                let before = member.view().hash().unwrap();
                member.crash();
                assert_eq!(member.view().hash().unwrap(), before);
            }
        }
    }
    member.crash_within_an_entry(last, &mut model);
    let view = member.view();
    check_ranges(&view, &model, requests);
    check_history(&view, &model, records_max);
    check_leases(&view, &model);
    assert_eq!(view.hash_kv(0).unwrap().0, model.hash());

    // The same again when all that is superseded is gone.
    while matches!(
        scrub_slice(&member.db, 3).unwrap(),
        ScrubProgress::More { .. }
    ) {}
    let view = member.view();
    check_ranges(&view, &model, requests);
    check_history(&view, &model, records_max);
    assert_eq!(view.hash_kv(0).unwrap().0, model.hash());
    assert_eq!(naive::records(&view), model.kept());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn machine_and_model_agree(
        steps in proptest::collection::vec(step(), 1..25),
        last in proptest::collection::vec((command(), Just(false)), 1..5),
        requests in proptest::collection::vec(range(), 1..6),
        records_max in 1..6usize,
    ) {
        run(steps, last, &requests, records_max);
    }
}
