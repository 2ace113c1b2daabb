//! The judge itself on trial: a true history passes, and each kind of lie is flagged as its kind.

use quorate_e2e::check::{self, Rule, Verdict};
use quorate_e2e::check_watch;
use quorate_e2e::history::{
    Answer, Call, MemberHash, Outcome, Record, WatchAnswer, Watched, WatchedStream,
};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::{Event, KeyValue};

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        revision,
        ..Default::default()
    })
}

fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision: create,
        mod_revision: modified,
        version,
        lease: 0,
    }
}

fn put_event(kv: KeyValue, prev_kv: Option<KeyValue>) -> Event {
    Event {
        r#type: 0,
        kv: Some(kv),
        prev_kv,
    }
}

fn delete_event(key: &str, revision: i64, prev_kv: KeyValue) -> Event {
    Event {
        r#type: 1,
        kv: Some(kv(key, "", 0, revision, 0)),
        prev_kv: Some(prev_kv),
    }
}

/// a=1 at 2, a=2 at 3, b=3 at 4, a deleted at 5.
fn events() -> Vec<Event> {
    vec![
        put_event(kv("a", "1", 2, 2, 1), None),
        put_event(kv("a", "2", 2, 3, 2), Some(kv("a", "1", 2, 2, 1))),
        put_event(kv("b", "3", 4, 4, 1), None),
        delete_event("a", 5, kv("a", "2", 2, 3, 2)),
    ]
}

fn record(call: Call, outcome: Outcome, invoked_ns: u64, returned_ns: u64) -> Record {
    Record {
        client: 0,
        call,
        outcome,
        invoked_ns,
        returned_ns,
    }
}

fn put(key: &str, value: &str) -> Call {
    Call::Put(pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    })
}

fn put_ok(revision: i64) -> Outcome {
    Outcome::Ok(Answer::Put(pb::PutResponse {
        header: header(revision),
        prev_kv: None,
    }))
}

fn get(key: &str, serializable: bool) -> Call {
    Call::Range(pb::RangeRequest {
        key: key.to_owned().into(),
        serializable,
        ..Default::default()
    })
}

fn get_ok(revision: i64, kvs: Vec<KeyValue>) -> Outcome {
    Outcome::Ok(Answer::Range(pb::RangeResponse {
        header: header(revision),
        count: i64::try_from(kvs.len()).expect("a small number"),
        kvs,
        more: false,
    }))
}

fn delete(key: &str) -> Call {
    Call::Delete(pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    })
}

fn delete_ok(revision: i64, deleted: i64) -> Outcome {
    Outcome::Ok(Answer::Delete(pb::DeleteRangeResponse {
        header: header(revision),
        deleted,
        prev_kvs: Vec::new(),
    }))
}

fn unknown() -> Outcome {
    Outcome::Unknown("the connection broke".to_owned())
}

/// A true story of the events above.
fn records() -> Vec<Record> {
    vec![
        record(put("a", "1"), put_ok(2), 0, 10),
        record(put("a", "2"), unknown(), 20, 30),
        record(put("x", "never"), unknown(), 20, 30),
        record(put("x", "no"), Outcome::Refused("no".to_owned()), 20, 30),
        record(put("b", "3"), put_ok(4), 40, 50),
        record(
            get("a", false),
            get_ok(4, vec![kv("a", "2", 2, 3, 2)]),
            60,
            70,
        ),
        record(delete("a"), delete_ok(5, 1), 80, 90),
        record(delete("a"), delete_ok(5, 0), 100, 110),
        record(
            get("a", true),
            get_ok(2, vec![kv("a", "1", 2, 2, 1)]),
            120,
            130,
        ),
    ]
}

fn assert_flags(verdict: &Verdict, rule: Rule) {
    let rules: Vec<Rule> = verdict.violations.iter().map(|v| v.rule).collect();
    assert!(rules.contains(&rule), "{rule:?} expected, found {rules:?}");
}

#[test]
fn a_true_history_passes() {
    let verdict = check::calls(&records(), &events());
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
}

#[test]
fn a_lost_acknowledged_write_is_flagged() {
    let mut events = events();
    events.truncate(3);
    assert_flags(&check::calls(&records(), &events), Rule::Acknowledged);
    let mut records = records();
    records.push(record(put("c", "lost"), put_ok(6), 140, 150));
    assert_flags(&check::calls(&records, &self::events()), Rule::Acknowledged);
}

#[test]
fn an_acknowledged_write_at_another_revision_is_flagged() {
    let mut records = records();
    records[4].outcome = put_ok(3);
    assert_flags(&check::calls(&records, &events()), Rule::Acknowledged);
}

#[test]
fn a_write_that_happens_twice_is_flagged() {
    let mut events = events();
    events.push(put_event(kv("a", "2", 6, 6, 1), None));
    assert_flags(&check::calls(&records(), &events), Rule::Once);
    let mut records = records();
    records.push(record(delete("a"), delete_ok(5, 1), 80, 90));
    assert_flags(&check::calls(&records, &self::events()), Rule::Once);
}

#[test]
fn a_refused_write_that_happened_is_flagged() {
    let mut events = events();
    events.push(put_event(kv("x", "no", 6, 6, 1), None));
    assert_flags(&check::calls(&records(), &events), Rule::Refused);
}

#[test]
fn an_event_that_nobody_caused_is_flagged() {
    let mut events = events();
    events.push(put_event(kv("z", "ghost", 6, 6, 1), None));
    assert_flags(&check::calls(&records(), &events), Rule::Phantom);
    let mut records = records();
    records.remove(6);
    assert_flags(&check::calls(&records, &self::events()), Rule::Phantom);
}

#[test]
fn an_unknown_deletion_explains_one_deletion() {
    let mut records = records();
    records[6].outcome = unknown();
    let verdict = check::calls(&records, &events());
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
}

#[test]
fn a_stale_linearizable_read_is_flagged() {
    let mut records = records();
    let old = get_ok(2, vec![kv("a", "1", 2, 2, 1)]);
    records.push(record(get("a", false), old, 120, 130));
    assert_flags(&check::calls(&records, &events()), Rule::RealTime);
}

#[test]
fn a_write_before_its_invocation_is_flagged() {
    let mut records = records();
    // It was invoked after revision 4 had been answered, and yet took effect at 3.
    records[1].invoked_ns = 55;
    assert_flags(&check::calls(&records, &events()), Rule::RealTime);
}

#[test]
fn a_read_of_something_else_is_flagged() {
    let mut records = records();
    records[8].outcome = get_ok(2, vec![kv("a", "2", 2, 3, 2)]);
    assert_flags(&check::calls(&records, &events()), Rule::Read);
    records[8].outcome = get_ok(2, Vec::new());
    assert_flags(&check::calls(&records, &events()), Rule::Read);
}

#[test]
fn revisions_that_jump_or_go_back_are_flagged() {
    let mut gap = events();
    gap.remove(1);
    assert_flags(&check::calls(&[], &gap), Rule::LogOrder);
    let mut back = events();
    back.swap(0, 1);
    assert_flags(&check::calls(&[], &back), Rule::LogOrder);
    let mut version = events();
    version[1] = put_event(kv("a", "2", 2, 3, 7), None);
    assert_flags(&check::calls(&[], &version), Rule::LogOrder);
}

fn answer(header_revision: i64, events: Vec<Event>) -> WatchAnswer {
    WatchAnswer {
        header_revision,
        fragment: false,
        events,
    }
}

/// A watcher of everything that resumed once and got one progress report.
fn watched() -> Watched {
    let e = events();
    let first = WatchedStream {
        start_revision: 2,
        answers: vec![answer(3, e[..2].to_vec()), answer(3, Vec::new())],
    };
    let second = WatchedStream {
        start_revision: 4,
        answers: vec![answer(4, e[2..3].to_vec()), answer(5, e[3..].to_vec())],
    };
    Watched {
        name: "w".to_owned(),
        key: bytes::Bytes::from_static(&[0]),
        range_end: bytes::Bytes::from_static(&[0]),
        prev_kv: true,
        streams: vec![first, second],
    }
}

fn judge(watched: &Watched) -> Verdict {
    check_watch::watcher(watched, &events(), 5)
}

#[test]
fn a_true_watcher_passes() {
    let verdict = judge(&watched());
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    let mut behind = watched();
    behind.streams[1].answers.pop();
    let verdict = check_watch::watcher(&behind, &events(), 4);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
}

#[test]
fn a_watcher_that_misses_an_event_is_flagged() {
    for (stream, answer) in [(0, 0), (1, 0), (1, 1)] {
        let mut watched = watched();
        watched.streams[stream].answers[answer].events.remove(0);
        assert_flags(&judge(&watched), Rule::WatchComplete);
    }
}

#[test]
fn a_watcher_that_is_told_twice_is_flagged() {
    let mut again = watched();
    let event = again.streams[0].answers[0].events[1].clone();
    again.streams[1].answers[0].events.insert(0, event);
    assert_flags(&judge(&again), Rule::WatchComplete);
    let mut same = watched();
    let event = same.streams[0].answers[0].events[1].clone();
    same.streams[0].answers[0].events.push(event);
    assert_flags(&judge(&same), Rule::WatchUnique);
}

#[test]
fn a_watcher_that_goes_back_is_flagged() {
    let mut watched = watched();
    watched.streams[0].answers[0].events.swap(0, 1);
    assert_flags(&judge(&watched), Rule::WatchOrdered);
}

#[test]
fn a_split_revision_is_flagged_unless_it_is_a_fragment() {
    let one = put_event(kv("a", "1", 2, 2, 1), None);
    let two = put_event(kv("b", "2", 2, 2, 1), None);
    let mut watched = watched();
    watched.streams = vec![WatchedStream {
        start_revision: 2,
        answers: vec![answer(2, vec![one.clone()]), answer(2, vec![two.clone()])],
    }];
    let log = [one, two];
    assert_flags(&check_watch::watcher(&watched, &log, 2), Rule::WatchAtomic);
    watched.streams[0].answers[0].fragment = true;
    let verdict = check_watch::watcher(&watched, &log, 2);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
}

#[test]
fn progress_that_lies_is_flagged() {
    let mut early = watched();
    early.streams[1].answers.insert(0, answer(4, Vec::new()));
    assert_flags(&judge(&early), Rule::WatchProgress);
    let mut late = watched();
    late.streams[1].answers.push(answer(4, Vec::new()));
    assert_flags(&judge(&late), Rule::WatchProgress);
}

#[test]
fn a_wrong_prev_kv_is_flagged() {
    let mut watched = watched();
    watched.streams[0].answers[0].events[1].prev_kv = None;
    assert_flags(&judge(&watched), Rule::WatchPrevKv);
}

#[test]
fn different_hashes_are_flagged() {
    let hash = |member: &str, hash| MemberHash {
        member: member.to_owned(),
        hash,
        hash_revision: 5,
        compact_revision: 0,
    };
    assert_flags(&check::hashes(&[hash("m1", 1), hash("m2", 2)]), Rule::Hash);
    let equal = check::hashes(&[hash("m1", 1), hash("m2", 1)]);
    assert!(equal.violations.is_empty());
}
