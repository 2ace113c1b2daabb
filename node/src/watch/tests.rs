//! The hub against the full list of events: every watcher gets exactly its events, in order, once,
//! whole revisions at a time, whatever is lost on the way to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use quorate_proto::etcdserverpb::WatchResponse;
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::mvccpb::KeyValue;

use super::past::Past;
use super::past::list::List;
use super::queue::QueueLimits;
use super::*;
use crate::machine::compaction::{ScrubProgress, scrub_slice};
use crate::machine::testing::{Rig, compact};
use crate::model::kv::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, command};
use crate::model::{Event, EventBatch, EventKind, KeyRange};

const SMALL: QueueLimits = QueueLimits {
    revisions_max: 3,
    bytes_max: 1 << 20,
};

/// A store and its hub, moved by the tests as the applier moves the real ones.
struct World {
    /// All that has happened; without a real store, also where history is read.
    list: List,
    real: Option<Rig>,
    live: BTreeMap<Bytes, (KeyValue, (i64, i64))>,
    hub: Arc<Hub>,
}

impl World {
    fn new(limits: QueueLimits) -> Self {
        let list = List {
            revision: 1,
            ..List::default()
        };
        let past = Past::List(Arc::new(list.clone()));
        Self {
            list,
            real: None,
            live: BTreeMap::new(),
            hub: Hub::with_limits(past, limits),
        }
    }

    /// Over a real machine and RocksDB.
    fn real(limits: QueueLimits) -> Self {
        let real = Rig::new();
        let past = Past::View(Arc::new(real.view()));
        Self {
            real: Some(real),
            hub: Hub::with_limits(past, limits),
            ..Self::new(limits)
        }
    }

    /// Applies one txn of puts and deletes, still unpublished.
    fn apply(&mut self, changes: &[(u8, bool)]) -> Option<Arc<EventBatch>> {
        if let Some(real) = &mut self.real {
            let batch = real.apply(txn(changes)).events.map(Arc::new)?;
            self.list.revision = batch.revision;
            self.list.batches.push(batch.clone());
            return Some(batch);
        }
        let revision = self.list.revision + 1;
        let mut events = Vec::new();
        for &(key, is_put) in changes {
            let key = Bytes::copy_from_slice(&[b'a' + key]);
            let old = self.live.remove(&key);
            if old.is_none() && !is_put {
                continue;
            }
            let record = KeyValue {
                key: key.clone(),
                create_revision: match &old {
                    _ if !is_put => 0,
                    Some((old, _)) => old.create_revision,
                    None => revision,
                },
                mod_revision: revision,
                version: i64::from(is_put),
                ..KeyValue::default()
            };
            events.push(Event {
                kind: if is_put {
                    EventKind::Put
                } else {
                    EventKind::Delete
                },
                key: key.clone(),
                kv: record.encode_to_vec().into(),
                previous: old.map(|(_, place)| place),
            });
            if is_put {
                let sub = i64::try_from(events.len()).unwrap() - 1;
                self.live.insert(key, (record, (revision, sub)));
            }
        }
        if events.is_empty() {
            return None;
        }
        self.list.revision = revision;
        let batch = Arc::new(EventBatch { revision, events });
        self.list.batches.push(batch.clone());
        Some(batch)
    }

    fn past(&self) -> Past {
        match &self.real {
            Some(real) => Past::View(Arc::new(real.view())),
            None => Past::List(Arc::new(self.list.clone())),
        }
    }

    fn commit(&mut self, changes: &[(u8, bool)]) {
        let batches = self.apply(changes).into_iter().collect();
        self.hub.publish_past(self.past(), batches);
    }

    fn compact(&mut self, revision: i64) {
        if let Some(real) = &mut self.real {
            // What is superseded really goes, from under the watchers that are behind.
            if real.apply(compact(revision)).outcome.is_ok() {
                while matches!(
                    scrub_slice(&real.db, 7).unwrap(),
                    ScrubProgress::More { .. }
                ) {}
            }
        }
        self.list.compacted = self.list.compacted.max(revision);
        self.hub.publish_past(self.past(), Vec::new());
    }
}

/// A txn as the door lets it pass: each key once.
fn txn(changes: &[(u8, bool)]) -> command::Kind {
    let mut keys = BTreeMap::new();
    for &(key, is_put) in changes {
        keys.entry(key).or_insert(is_put);
    }
    let operation = |(key, is_put): (u8, bool)| {
        let key = Bytes::copy_from_slice(&[b'a' + key]);
        let request = if is_put {
            Request::RequestPut(PutRequest {
                key,
                ..PutRequest::default()
            })
        } else {
            Request::RequestDeleteRange(DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            })
        };
        RequestOp {
            request: Some(request),
        }
    };
    command::Kind::Txn(TxnRequest {
        success: keys.into_iter().map(operation).collect(),
        ..TxnRequest::default()
    })
}

/// What must be equal of an event, wherever it was read: revision, kind and record.
type Fact = (i64, EventKind, Bytes);

fn fact(revision: i64, event: &Event) -> Fact {
    (revision, event.kind, event.kv.clone())
}

/// What a client sees of one watcher, checked as it comes.
struct Seen {
    spec: WatchSpec,
    from: i64,
    events: Vec<Fact>,
    progress: i64,
    compacted: Option<i64>,
}

impl Seen {
    fn new(spec: WatchSpec, created: Created) -> Self {
        let from = match spec.start_revision {
            0 => created.revision + 1,
            start => start,
        };
        Self {
            spec,
            from,
            events: Vec::new(),
            progress: 0,
            compacted: None,
        }
    }

    fn expected<'a>(&'a self, list: &'a List) -> impl Iterator<Item = (i64, &'a Event)> {
        let batches = list
            .batches
            .iter()
            .filter(|batch| batch.revision >= self.from);
        let events = batches.flat_map(|batch| batch.events.iter().map(|e| (batch.revision, e)));
        events.filter(|(_, event)| {
            let filtered = match event.kind {
                EventKind::Put => self.spec.no_put,
                EventKind::Delete => self.spec.no_delete,
            };
            self.spec.range.contains(&event.key) && !filtered
        })
    }

    fn take(&mut self, delivery: &Delivery, list: &List) {
        assert_eq!(self.compacted, None, "a delivery after the end");
        match &delivery.body {
            Body::Events {
                events, prev_kv, ..
            } => {
                assert!(!events.is_empty());
                for event in events {
                    assert!(
                        event.revision() > self.progress,
                        "an event behind the progress"
                    );
                    assert!(event.revision() <= delivery.revision);
                    self.events.push(fact(event.revision(), event.event()));
                    self.check_encoding(event, *prev_kv, list);
                }
                // A revision is never split: what comes next is of a later one.
                let last = events.last().unwrap().revision();
                let due = self
                    .expected(list)
                    .filter(|&(revision, _)| revision <= last)
                    .count();
                assert_eq!(self.events.len(), due, "a revision was split or skipped");
            }
            Body::Progress => {
                assert!(delivery.revision >= self.spec.start_revision);
                let due = |&(revision, _): &(i64, &Event)| revision <= delivery.revision;
                assert_eq!(
                    self.events.len(),
                    self.expected(list).take_while(due).count()
                );
                self.progress = delivery.revision;
            }
            Body::Compacted(revision) => {
                assert!(*revision > self.from && *revision <= list.compacted);
                assert_eq!(delivery.revision, 0);
                self.compacted = Some(*revision);
            }
        }
    }

    fn check_encoding(&self, event: &SharedEvent, prev_kv: bool, list: &List) {
        let encoded = if prev_kv {
            event.encoded_with_previous()
        } else {
            event.encoded()
        };
        let decoded = WatchResponse::decode(encoded).unwrap().events.remove(0);
        assert_eq!(decoded.kv.unwrap().encode_to_vec(), event.event().kv);
        assert_eq!(decoded.r#type == 1, event.event().kind == EventKind::Delete);
        if !self.spec.prev_kv {
            assert_eq!(decoded.prev_kv, None);
            return;
        }
        let mut before = list
            .batches
            .iter()
            .filter(|batch| batch.revision < event.revision());
        let same_key = |e: &Event| e.key == event.event().key;
        let before = before.rfind(|batch| batch.events.iter().any(same_key));
        let before = before.and_then(|batch| batch.events.iter().rfind(|e| same_key(e)));
        let previous = before.filter(|before| before.kind == EventKind::Put);
        // A key that a txn deletes and puts again is created anew.
        let previous = previous.filter(|_| event.event().previous.is_some());
        let compacted = event.revision() - 1 < list.compacted;
        match decoded.prev_kv {
            Some(found) => assert_eq!(found.encode_to_vec(), previous.unwrap().kv),
            None => assert!(previous.is_none() || compacted, "prev_kv is missing"),
        }
    }

    fn check_complete(&self, list: &List) {
        let expected: Vec<_> = self.expected(list).map(|(r, e)| fact(r, e)).collect();
        if self.compacted.is_some() {
            assert!(expected.starts_with(&self.events));
        } else {
            assert_eq!(self.events, expected);
        }
    }
}

/// One stream with all that was seen on it.
struct Client {
    stream: WatchStream,
    seen: BTreeMap<i64, Seen>,
}

impl Client {
    fn new(world: &World) -> Self {
        Self {
            stream: world.hub.subscribe(),
            seen: BTreeMap::new(),
        }
    }

    fn create(&mut self, spec: WatchSpec) -> i64 {
        let created = self.stream.create(spec.clone()).unwrap();
        self.seen.insert(created.watch_id, Seen::new(spec, created));
        created.watch_id
    }

    async fn read(&mut self, deliveries_max: usize, list: &List) {
        for _ in 0..deliveries_max {
            let Some(delivery) = self.stream.try_next().await.unwrap() else {
                return;
            };
            if delivery.watch_id == -1 {
                self.seen
                    .values_mut()
                    .for_each(|seen| seen.take(&delivery, list));
            } else {
                let seen = self
                    .seen
                    .get_mut(&delivery.watch_id)
                    .expect("a known watcher");
                seen.take(&delivery, list);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Vec<(u8, bool)>>),
    Compact(u8),
    /// Client, range, start relative to now (none = from now), two filters, prev_kv.
    Create(usize, KeyRange, Option<i64>, [bool; 4]),
    Cancel(usize, u8),
    Read(usize, usize),
    Progress(usize),
    Notify(usize),
    Install(Vec<Vec<(u8, bool)>>),
}

fn step() -> impl Strategy<Value = Step> {
    let txn = || prop::collection::vec((0u8..4, prop::bool::weighted(0.7)), 1..4);
    let txns = || prop::collection::vec(txn(), 1..4);
    let range = (0u8..4, 0u8..5, 0..3).prop_map(|(start, end, form)| {
        let key = |byte: u8| Bytes::copy_from_slice(&[b'a' + byte]);
        match form {
            0 => KeyRange::One(key(start)),
            1 => KeyRange::From(key(start)),
            _ => KeyRange::Between {
                start: key(start.min(end)),
                end: key(start.max(end) + 1),
            },
        }
    });
    let start = prop::option::of(-8i64..4);
    prop_oneof![
        6 => txns().prop_map(Step::Commit),
        1 => (0u8..20).prop_map(Step::Compact),
        3 => (0usize..2, range, start, any::<[bool; 4]>())
            .prop_map(|(client, range, start, flags)| Step::Create(client, range, start, flags)),
        1 => (0usize..2, any::<u8>()).prop_map(|(client, id)| Step::Cancel(client, id)),
        4 => (0usize..2, 1usize..8).prop_map(|(client, count)| Step::Read(client, count)),
        2 => (0usize..2).prop_map(Step::Progress),
        1 => (0usize..2).prop_map(Step::Notify),
        1 => txns().prop_map(Step::Install),
    ]
}

async fn take_step(world: &mut World, clients: &mut [Client], step: Step) {
    match step {
        Step::Commit(txns) => {
            let batches = txns.iter().filter_map(|txn| world.apply(txn)).collect();
            world.hub.publish_past(world.past(), batches);
        }
        Step::Compact(back) => world.compact(world.list.revision - i64::from(back)),
        Step::Create(client, range, start, [no_put, rare, prev_kv, progress_notify]) => {
            let start = start.map_or(0, |start| (world.list.revision + start).max(1));
            clients[client].create(WatchSpec {
                no_put: no_put && rare,
                no_delete: rare && !no_put,
                prev_kv,
                progress_notify,
                ..WatchSpec::new(range, start)
            });
        }
        Step::Cancel(client, id) => {
            let known: Vec<i64> = clients[client].seen.keys().copied().collect();
            if let Some(&id) = known.get(usize::from(id) % known.len().max(1)) {
                assert!(clients[client].stream.cancel(id));
                assert!(!clients[client].stream.cancel(id));
                clients[client].seen.remove(&id);
            }
        }
        Step::Read(client, count) => clients[client].read(count, &world.list).await,
        Step::Progress(client) => clients[client].stream.request_progress(),
        Step::Notify(client) => clients[client].stream.notify_progress(),
        Step::Install(txns) => {
            for txn in &txns {
                world.apply(txn);
            }
            world.hub.reset_past(world.past());
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Takes the steps, then reads everything and looks whether all was told.
fn check(mut world: World, steps: Vec<Step>) -> Result<(), TestCaseError> {
    runtime().block_on(async {
        let mut clients = [Client::new(&world), Client::new(&world)];
        for step in steps {
            take_step(&mut world, &mut clients, step).await;
        }
        for client in &mut clients {
            client.read(usize::MAX, &world.list).await;
            // Then every watcher is live, and progress is told.
            let is_blocked = client.seen.values().any(|seen| {
                seen.compacted.is_some() || seen.spec.start_revision > world.list.revision
            });
            client.seen.values_mut().for_each(|seen| seen.progress = 0);
            client.stream.request_progress();
            client.read(usize::MAX, &world.list).await;
            for seen in client.seen.values() {
                seen.check_complete(&world.list);
                prop_assert_eq!(seen.progress == world.list.revision, !is_blocked);
            }
        }
        let hub = world.hub.clone();
        prop_assert_eq!(hub.counts().slow_watchers, 0);
        drop(clients);
        let counts = hub.counts();
        prop_assert_eq!(
            (counts.streams, counts.watchers, counts.pending_events),
            (0, 0, 0)
        );
        prop_assert!(hub.holds_no_ranges());
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn every_watcher_gets_exactly_its_events(steps in prop::collection::vec(step(), 1..80)) {
        check(World::new(SMALL), steps)?;
    }
}

proptest! {
    // A store takes a second to open and close: few cases, but long ones.
    #![proptest_config(ProptestConfig { max_shrink_iters: 20, ..ProptestConfig::with_cases(4) })]
    #[test]
    fn also_over_a_real_store(steps in prop::collection::vec(step(), 400..600)) {
        check(World::real(SMALL), steps)?;
    }
}

/// A writer that never pauses, streams with small queues beside it on other threads.
#[test]
fn nothing_is_lost_or_doubled_while_the_applier_runs() {
    const REVISIONS: i64 = 3_000;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut world = World::new(SMALL);
    let mut readers = Vec::new();
    for key in 0..4u8 {
        let mut stream = world.hub.subscribe();
        let all = KeyRange::From(Bytes::new());
        let one = KeyRange::One(Bytes::copy_from_slice(&[b'a' + key]));
        stream.create(WatchSpec::new(all, 2)).unwrap();
        stream.create(WatchSpec::new(one, 2)).unwrap();
        readers.push(runtime.spawn(async move {
            let mut seen = [Vec::new(), Vec::new()];
            let all: Vec<i64> = (2..=REVISIONS).collect();
            let of_key = |revision: &&i64| **revision % 4 == i64::from(key);
            let one: Vec<i64> = all.iter().filter(of_key).copied().collect();
            while seen[0].last() != all.last() || seen[1].last() != one.last() {
                let delivery = stream.next().await.unwrap();
                let Body::Events { events, .. } = delivery.body else {
                    panic!("only events were asked for");
                };
                let watcher = usize::try_from(delivery.watch_id).unwrap();
                seen[watcher].extend(events.iter().map(SharedEvent::revision));
            }
            assert_eq!(seen, [all, one]);
        }));
    }
    for revision in 2..=REVISIONS {
        world.commit(&[(u8::try_from(revision % 4).unwrap(), true)]);
    }
    runtime.block_on(async {
        for reader in readers {
            let done = tokio::time::timeout(Duration::from_secs(60), reader).await;
            done.expect("in time").unwrap();
        }
    });
}

#[tokio::test]
async fn ids_duplicates_and_empty_ranges_are_as_in_etcd() {
    let world = World::new(SMALL);
    let mut stream = world.hub.subscribe();
    let key = || KeyRange::One("k".into());
    let with_id = |watch_id| WatchSpec {
        watch_id,
        ..WatchSpec::new(key(), 0)
    };
    let id = |stream: &mut WatchStream, spec| stream.create(spec).map(|created| created.watch_id);
    assert_eq!(id(&mut stream, with_id(0)), Ok(0));
    assert_eq!(id(&mut stream, with_id(1)), Ok(1));
    assert_eq!(id(&mut stream, with_id(0)), Ok(2));
    assert_eq!(id(&mut stream, with_id(1)), Err(CreateError::DuplicateId));
    assert!(stream.cancel(1) && !stream.cancel(1) && !stream.cancel(77));
    assert_eq!(id(&mut stream, with_id(0)), Ok(3));
    assert_eq!(id(&mut stream, with_id(1)), Ok(1));
    let empty = KeyRange::Between {
        start: "b".into(),
        end: "a".into(),
    };
    let refused = stream.create(WatchSpec::new(empty, 0)).unwrap_err();
    assert_eq!(refused.to_string(), "mvcc: watcher range is empty");
    let refused = stream.create(WatchSpec::new(key(), -1)).unwrap_err();
    assert_eq!(refused, CreateError::NegativeStart);
}

#[tokio::test]
async fn a_broken_disk_ends_the_stream_and_is_told() {
    let mut world = World::new(SMALL);
    world.commit(&[(1, true)]);
    world.list.broken = true;
    world.commit(&[(1, true)]);
    let mut stream = world.hub.subscribe();
    stream
        .create(WatchSpec::new(KeyRange::From(Bytes::new()), 1))
        .unwrap();
    assert_eq!(stream.next().await.unwrap_err(), Failed);
    let told = tokio::time::timeout(Duration::from_secs(10), world.hub.failed()).await;
    assert!(told.unwrap().contains("broken on purpose"));
}

#[tokio::test]
async fn a_reader_that_stands_still_costs_no_more_than_its_queue() {
    let mut world = World::new(SMALL);
    let mut client = Client::new(&world);
    client.create(WatchSpec::new(KeyRange::From(Bytes::new()), 0));
    for _ in 0..1_000 {
        world.commit(&[(1, true)]);
    }
    assert_eq!(world.hub.counts().pending_events, SMALL.revisions_max);
    client.read(1, &world.list).await;
    assert_eq!(world.hub.counts().pending_events, 0);
    client.read(usize::MAX, &world.list).await;
    client.seen[&0].check_complete(&world.list);
    assert_eq!(world.hub.counts().events_sent, 1_000);
}
