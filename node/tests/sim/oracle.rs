//! What clients asked and were told, and the judgement over it: every acknowledged write is there
//! exactly once, no refused one is, and all answers fit one order that respects time.
//!
//! Revisions are that order. An answer carries its revision; it must not be older than any answer
//! that was given before the question was asked, and what it says must be true at its revision.
//! Together that is linearizability.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use quorate::model::EventKind;
use quorate::model::kv::KeyValue;

use super::cluster::History;

#[derive(Debug, Clone)]
pub enum Question {
    Put {
        key: Bytes,
        value: Bytes,
    },
    Delete {
        key: Bytes,
    },
    CompareAndPut {
        key: Bytes,
        value: Bytes,
        mod_revision: i64,
    },
    Read,
    ReadStale,
}

#[derive(Debug, Clone)]
pub enum Answer {
    /// Written at this revision.
    Written(i64),
    Read {
        revision: i64,
        found: Vec<(Bytes, Option<KeyValue>)>,
    },
    /// Certainly not done.
    Refused,
    /// Perhaps done.
    Unknown,
}

#[derive(Debug)]
struct Call {
    question: Question,
    answer: Answer,
    /// The newest revision that anybody had been told of when this was asked.
    floor: i64,
}

#[derive(Default)]
pub struct Oracle {
    newest: AtomicI64,
    calls: Mutex<Vec<Call>>,
}

impl Oracle {
    /// Notes a question before it is asked; returns its number.
    pub fn ask(&self, question: Question) -> usize {
        let mut calls = self.calls.lock();
        calls.push(Call {
            question,
            answer: Answer::Unknown,
            floor: self.newest.load(Ordering::SeqCst),
        });
        calls.len() - 1
    }

    /// Notes the answer, and whether it comes too late for what others know.
    pub fn answer(&self, number: usize, answer: Answer) {
        let mut calls = self.calls.lock();
        let call = &mut calls[number];
        call.answer = answer;
        match (&call.question, &call.answer) {
            (Question::ReadStale, _) | (_, Answer::Refused | Answer::Unknown) => {}
            (_, Answer::Written(revision)) => {
                assert!(*revision > call.floor, "written in the past: {call:?}");
                self.newest.fetch_max(*revision, Ordering::SeqCst);
            }
            (_, Answer::Read { revision, .. }) => {
                assert!(*revision >= call.floor, "a stale read: {call:?}");
                self.newest.fetch_max(*revision, Ordering::SeqCst);
            }
        }
    }

    pub fn summary(&self) -> String {
        let calls = self.calls.lock();
        let count =
            |wanted: fn(&Answer) -> bool| calls.iter().filter(|c| wanted(&c.answer)).count();
        format!(
            "{} written, {} read, {} refused, {} unknown",
            count(|a| matches!(a, Answer::Written(_))),
            count(|a| matches!(a, Answer::Read { .. })),
            count(|a| matches!(a, Answer::Refused)),
            count(|a| matches!(a, Answer::Unknown)),
        )
    }

    /// Judges all answers by what happened.
    pub fn check(&self, history: &History) {
        let calls = self.calls.lock();
        check_writes(&calls, history);
        check_reads(&calls, history);
        let written = |call: &&Call| matches!(call.answer, Answer::Written(_));
        let written = calls.iter().filter(written).count();
        assert!(written > 50, "too little was written: {written}");
    }
}

/// Acknowledged writes are at their revision, refused ones nowhere, none is there twice.
fn check_writes(calls: &[Call], history: &History) {
    let mut at_revision: HashMap<i64, Vec<(EventKind, KeyValue)>> = HashMap::new();
    let mut of_value: HashMap<Bytes, Vec<i64>> = HashMap::new();
    for (revision, event) in history {
        let kv = KeyValue::decode(event.kv.clone()).expect("a stored record");
        if event.kind == EventKind::Put {
            of_value
                .entry(kv.value.clone())
                .or_default()
                .push(*revision);
        }
        at_revision
            .entry(*revision)
            .or_default()
            .push((event.kind, kv));
    }
    for call in calls {
        let (key, value) = match &call.question {
            Question::Put { key, value } | Question::CompareAndPut { key, value, .. } => {
                (key, Some(value))
            }
            Question::Delete { key } => (key, None),
            Question::Read | Question::ReadStale => continue,
        };
        let times = value.map_or(0, |value| of_value.get(value).map_or(0, Vec::len));
        assert!(times <= 1, "done {times} times: {call:?}");
        match &call.answer {
            Answer::Written(revision) => {
                let there = at_revision.get(revision).is_some_and(|events| {
                    events.iter().any(|(kind, kv)| match value {
                        Some(value) => {
                            *kind == EventKind::Put && kv.key == key && kv.value == value
                        }
                        None => *kind == EventKind::Delete && kv.key == key,
                    })
                });
                assert!(there, "acknowledged, but lost: {call:?}");
            }
            Answer::Refused | Answer::Read { .. } => {
                assert_eq!(times, 0, "refused, but done: {call:?}");
            }
            Answer::Unknown => {}
        }
    }
}

/// What was read was true at its revision.
fn check_reads(calls: &[Call], history: &History) {
    let mut reads: BTreeMap<i64, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        let revision = match (&call.question, &call.answer) {
            (_, Answer::Read { revision, .. }) => *revision,
            // Judged by what was there just before.
            (Question::CompareAndPut { .. }, Answer::Written(revision)) => revision - 1,
            _ => continue,
        };
        reads.entry(revision).or_default().push(call);
    }
    let mut state: HashMap<Bytes, KeyValue> = HashMap::new();
    let mut events = history.iter().peekable();
    for (revision, calls) in reads {
        while let Some((_, event)) = events.next_if(|(at, _)| *at <= revision) {
            let kv = KeyValue::decode(event.kv.clone()).expect("a stored record");
            match event.kind {
                EventKind::Put => state.insert(kv.key.clone(), kv),
                EventKind::Delete => state.remove(&kv.key),
            };
        }
        for call in calls {
            match (&call.question, &call.answer) {
                (_, Answer::Read { found, .. }) => {
                    for (key, kv) in found {
                        assert_eq!(state.get(key), kv.as_ref(), "never true: {call:?}");
                    }
                }
                (
                    Question::CompareAndPut {
                        key, mod_revision, ..
                    },
                    _,
                ) => {
                    let was = state.get(key).map_or(0, |kv| kv.mod_revision);
                    assert_eq!(was, *mod_revision, "a compare that did not hold: {call:?}");
                }
                _ => unreachable!("only these are collected"),
            }
        }
    }
}
