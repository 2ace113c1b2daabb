//! The rules of watch: ordered, unique, atomic, resumable, complete, true about what was before.

use crate::check::{Rule, Verdict};
use crate::history::{WatchAnswer, Watched, WatchedStream, event_kv, is_delete};
use crate::replay::{Replay, in_range};
use quorate_proto::mvccpb::Event;

/// Judges one watcher against the full event log.
///
/// `through` is the revision up to which it must have been told everything.
pub fn watcher(watched: &Watched, events: &[Event], through: i64) -> Verdict {
    let (replay, _) = Replay::build(events);
    let mut verdict = Verdict::default();
    let Some(first) = watched.streams.first() else {
        return verdict;
    };
    for (number, stream) in watched.streams.iter().enumerate() {
        let name = format!("{}, stream {number}", watched.name);
        order(stream, &name, &mut verdict);
        progress(stream, &name, &mut verdict);
    }
    if watched.prev_kv {
        previous(watched, &replay, &mut verdict);
    }
    complete(
        watched,
        first.start_revision,
        &replay,
        through,
        &mut verdict,
    );
    verdict
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// Revisions do not go back, none stands in two answers, no key twice in one revision.
fn order(stream: &WatchedStream, name: &str, verdict: &mut Verdict) {
    let mut last = 0;
    let mut in_pieces = false;
    let mut keys = std::collections::BTreeSet::new();
    for answer in &stream.answers {
        for (number, event) in answer.events.iter().enumerate() {
            let at = revision(event);
            if at < last {
                verdict.add(Rule::WatchOrdered, format!("{name}: {at} after {last}"));
            }
            if at > last {
                keys.clear();
            }
            if number == 0 && at == last && !in_pieces {
                verdict.add(Rule::WatchAtomic, format!("{name}: {at} in two answers"));
            }
            if !keys.insert(event_kv(event).key) {
                verdict.add(Rule::WatchUnique, format!("{name}: {event:?} twice"));
            }
            last = last.max(at);
        }
        in_pieces = answer.fragment;
    }
}

/// A progress report promises that nothing up to its revision comes after it.
fn progress(stream: &WatchedStream, name: &str, verdict: &mut Verdict) {
    let mut promised = 0;
    let mut last_event = 0;
    for answer in &stream.answers {
        if let Some(event) = answer
            .events
            .iter()
            .find(|event| revision(event) <= promised)
        {
            let text = format!("{name}: {event:?} after progress at {promised}");
            verdict.add(Rule::WatchProgress, text);
        }
        let newest = answer.events.last().map_or(0, revision);
        last_event = last_event.max(newest);
        if is_progress(answer) {
            if answer.header_revision < last_event {
                let at = answer.header_revision;
                let text = format!("{name}: progress at {at} after events at {last_event}");
                verdict.add(Rule::WatchProgress, text);
            }
            promised = promised.max(answer.header_revision);
        }
    }
}

fn is_progress(answer: &WatchAnswer) -> bool {
    answer.events.is_empty() && !answer.fragment
}

/// `prev_kv` is the state just before, and absent for a key that is new.
fn previous(watched: &Watched, replay: &Replay, verdict: &mut Verdict) {
    let answers = watched.streams.iter().flat_map(|stream| &stream.answers);
    for event in answers.flat_map(|answer| &answer.events) {
        let kv = event_kv(event);
        let before = replay.get(&kv.key, kv.mod_revision - 1);
        if event.prev_kv.as_ref() != before {
            let text = format!("{}: {event:?}, but before was {before:?}", watched.name);
            verdict.add(Rule::WatchPrevKv, text);
        }
    }
}

/// Over all its streams a watcher is told exactly the events of its range, each once.
fn complete(watched: &Watched, start: i64, replay: &Replay, through: i64, verdict: &mut Verdict) {
    let mut told = Vec::new();
    for stream in &watched.streams {
        let events = stream.answers.iter().flat_map(|answer| &answer.events);
        let mut events = events.peekable();
        if let Some(early) = events
            .peek()
            .filter(|e| revision(e) < stream.start_revision)
        {
            let text = format!("{}: {early:?} before the start", watched.name);
            verdict.add(Rule::WatchComplete, text);
        }
        told.extend(events);
    }
    let mut told = told.into_iter().peekable();
    for (&at, events) in replay.revisions.range(start..) {
        for event in events {
            let kv = event_kv(event);
            if !in_range(&kv.key, &watched.key, &watched.range_end) {
                continue;
            }
            match told.next_if(|told| same_change(told, event)) {
                Some(_) => {}
                // What came after the end of the test need not have arrived.
                None if at > through && told.peek().is_none() => return,
                None => {
                    let got = told.peek();
                    let text = format!("{}: {event:?} expected, {got:?} told", watched.name);
                    verdict.add(Rule::WatchComplete, text);
                    return;
                }
            }
        }
    }
    if let Some(extra) = told.next() {
        let text = format!("{}: {extra:?} is not in the log", watched.name);
        verdict.add(Rule::WatchComplete, text);
    }
}

fn same_change(one: &Event, other: &Event) -> bool {
    is_delete(one) == is_delete(other) && one.kv == other.kv
}
