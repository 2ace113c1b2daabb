//! Counts beside a walk, at every revision that a rig remembers.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::model::kv::KeyValue;
use crate::storage::layout::Head;
use crate::storage::{Batch, Snapshot};

/// A store beside a map that says what it holds at each revision.
struct Rig {
    db: Arc<Db>,
    revision: i64,
    heads: BTreeMap<Bytes, Head>,
    /// Keys, and the frozen state, after each commit.
    past: Vec<(i64, Vec<Bytes>, Snapshot)>,
    _directory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&directory.path().join("state")).unwrap();
        Self {
            db,
            revision: 1,
            heads: BTreeMap::new(),
            past: Vec::new(),
            _directory: directory,
        }
    }

    /// Puts a key, or deletes it when it is there and `delete` says so, in a revision of its own.
    fn change(&mut self, batch: &mut Batch, key: &Bytes, delete: bool) {
        self.revision += 1;
        let main = self.revision;
        let old = self.heads.get(key).copied();
        match (old, delete) {
            (Some(old), true) => {
                batch.delete_pair(key, (main, 0), b"tombstone", &old);
                self.heads.remove(key);
            }
            (None, true) => self.revision -= 1,
            (old, false) => {
                let head = Head {
                    create_revision: old.map_or(main, |old| old.create_revision),
                    mod_revision: main,
                    sub: 0,
                    version: 1,
                    lease: 0,
                };
                batch.put_pair(key, head, record(key, &head), old.as_ref());
                self.heads.insert(key.clone(), head);
            }
        }
        batch.finish_command(self.revision, -1);
    }

    fn commit(&mut self, batch: Batch) {
        self.db.commit(batch).unwrap();
        let keys = self.heads.keys().cloned().collect();
        self.past.push((self.revision, keys, self.db.snapshot()));
    }

    fn fill(&mut self, keys: impl IntoIterator<Item = u32>) {
        let mut batch = self.db.batch();
        for number in keys {
            self.change(&mut batch, &key(number), false);
        }
        self.commit(batch);
    }

    fn want(&self) {
        self.db.counts().wanted.store(true, Ordering::Relaxed);
    }

    fn build(&self) {
        self.want();
        let mut build = CountBuild::begin(&self.db).unwrap();
        while build.step().unwrap() {}
        build.finish().unwrap();
    }

    fn is_known(&self, range: &KeyRange, at: i64) -> bool {
        self.db.counts().whole(range, at).is_some()
    }

    /// Every frozen state counts what it held, and the newest one what older ones held.
    fn check(&self, range: &KeyRange) {
        let newest = self.past.last().unwrap();
        for (revision, keys, frozen) in &self.past {
            let expected = keys.iter().filter(|key| range.contains(key)).count() as i64;
            let now = frozen.reader().count(range, None).unwrap();
            assert_eq!(now, expected, "{range:?} in the state of {revision}");
            let at = (*revision != newest.0).then_some(*revision);
            let later = newest.2.reader().count(range, at).unwrap();
            assert_eq!(later, expected, "{range:?} at {revision}");
        }
    }
}

fn record(key: &Bytes, head: &Head) -> Bytes {
    KeyValue {
        key: key.clone(),
        create_revision: head.create_revision,
        mod_revision: head.mod_revision,
        version: head.version,
        ..Default::default()
    }
    .encode_to_vec()
    .into()
}

fn key(number: u32) -> Bytes {
    format!("{number:06}").into()
}

fn between(start: u32, end: u32) -> KeyRange {
    KeyRange::new(&key(start), &key(end))
}

fn all() -> KeyRange {
    KeyRange::From(Bytes::new())
}

#[test]
fn a_long_walk_asks_for_the_blocks_and_they_answer() {
    let mut rig = Rig::new();
    rig.fill(0..WALK_KEYS_MAX as u32);
    rig.check(&all());
    assert!(CountBuild::begin(&rig.db).is_none(), "too few to ask");
    rig.fill(WALK_KEYS_MAX as u32..WALK_KEYS_MAX as u32 + 1);
    assert!(!rig.is_known(&all(), rig.revision));
    rig.check(&all());
    let mut build = CountBuild::begin(&rig.db).expect("it was asked for");
    while build.step().unwrap() {}
    build.finish().unwrap();
    assert!(rig.is_known(&all(), rig.revision));
    rig.check(&all());
    rig.check(&between(3, 9_000));
}

#[test]
fn what_changes_during_the_pass_is_counted() {
    let mut rig = Rig::new();
    rig.fill(0..5_000);
    rig.want();
    let mut build = CountBuild::begin(&rig.db).unwrap();
    let mut batch = rig.db.batch();
    for number in 0..3_000 {
        rig.change(&mut batch, &key(number), number % 2 == 0);
        rig.change(&mut batch, &key(10_000 + number), false);
    }
    rig.commit(batch);
    while build.step().unwrap() {}
    build.finish().unwrap();
    assert!(rig.is_known(&all(), rig.revision));
    for range in [all(), between(10, 2_000), between(4_000, 12_000)] {
        rig.check(&range);
    }
}

#[test]
fn blocks_are_cut_where_keys_come_and_vanish_where_they_go() {
    let mut rig = Rig::new();
    rig.build();
    for part in 0..6 {
        rig.fill(part * 3_000..(part + 1) * 3_000);
    }
    rig.check(&between(1, 17_000));
    let mut batch = rig.db.batch();
    for number in 0..18_000 {
        rig.change(&mut batch, &key(number), true);
    }
    rig.commit(batch);
    rig.check(&all());
    rig.fill(2_000..2_500);
    rig.check(&between(2_100, 2_200));
    let state = rig.db.counts().state.lock();
    let blocks = &state.remembered.back().unwrap().blocks;
    assert!(blocks.whole(&all()).is_some_and(|whole| whole.keys == 500));
}

#[test]
fn a_batch_counts_its_own_changes() {
    let mut rig = Rig::new();
    rig.fill(0..2_000);
    rig.build();
    let mut batch = rig.db.batch();
    rig.change(&mut batch, &key(5_000), false);
    rig.change(&mut batch, &key(7), true);
    rig.change(&mut batch, &key(8), true);
    rig.change(&mut batch, &key(8), false);
    let count = |range: &KeyRange| batch.reader().count(range, None).unwrap();
    assert_eq!(count(&all()), 2_000);
    assert_eq!(count(&between(0, 2_000)), 1_999);
    assert_eq!(count(&between(8, 9)), 1);
}

#[test]
fn a_pass_that_is_given_up_may_begin_again() {
    let mut rig = Rig::new();
    rig.fill(0..1_000);
    rig.want();
    drop(CountBuild::begin(&rig.db).unwrap());
    assert!(!rig.is_known(&all(), rig.revision));
    rig.build();
    assert!(rig.is_known(&all(), rig.revision));
}

#[test]
fn old_revisions_are_forgotten_and_walked() {
    let mut rig = Rig::new();
    rig.fill(0..100);
    rig.build();
    let first = rig.revision;
    for number in 0..REMEMBERED_COMMITS_MAX as u32 + 1 {
        let mut batch = rig.db.batch();
        rig.change(&mut batch, &key(1_000 + number), false);
        rig.db.commit(batch).unwrap();
    }
    assert!(!rig.is_known(&all(), first));
    let frozen = rig.db.snapshot();
    assert_eq!(frozen.reader().count(&all(), Some(first)).unwrap(), 100);
    assert_eq!(
        rig.db.counts().state.lock().remembered.len(),
        REMEMBERED_COMMITS_MAX
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn counts_are_those_of_a_walk(
        commits in prop::collection::vec(
            prop::collection::vec((0_u32..6_000, prop::bool::weighted(0.3)), 1..900), 1..12),
        build_at in 0_usize..12,
        ranges in prop::collection::vec((0_u32..6_500, 0_u32..6_500), 8),
    ) {
        let mut rig = Rig::new();
        rig.fill((0..6_000).step_by(2));
        for (number, commit) in commits.iter().enumerate() {
            if number == build_at {
                rig.build();
            }
            let mut batch = rig.db.batch();
            for (number, delete) in commit {
                rig.change(&mut batch, &key(*number), *delete);
            }
            rig.commit(batch);
        }
        rig.check(&all());
        for (start, end) in ranges {
            rig.check(&between(start, end));
        }
    }
}
