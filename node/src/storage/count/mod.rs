//! Counts that do not walk the range: the number of keys in each block of the key space is kept in
//! memory, for the newest state and for those that came just before it.
//!
//! The blocks are made when a count first had to walk far, by one pass over a frozen state while
//! writes go on; what these change meanwhile is kept in a journal and added at the end. So a node
//! starts without them, whatever its size, and one that is never asked to count pays nothing.

mod blocks;
mod build;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::read::Reader;
use super::{Db, Error};
use crate::model::KeyRange;

use blocks::Blocks;
pub use build::CountBuild;

/// A count that walked more keys asks for the blocks to be made.
const WALK_KEYS_MAX: i64 = 10_000;
/// Changes that may wait while the blocks are made; with more, it is given up until it is asked
/// for again.
const JOURNAL_CHANGES_MAX: usize = 500_000;
/// Commits that changed the number of keys and may still be asked about.
const REMEMBERED_COMMITS_MAX: usize = 4_096;

/// A key that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Bytes,
    pub(super) created: bool,
}

/// The blocks after a commit, which changed the revisions from `first` to `end`.
#[derive(Debug)]
struct Remembered {
    first: i64,
    end: i64,
    blocks: Blocks,
}

#[derive(Debug, Default)]
enum Stage {
    /// Nobody has asked.
    #[default]
    Idle,
    /// A pass is under way over the state of a moment; what changed since waits here.
    Building {
        journal: Vec<Change>,
    },
    Ready,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    /// The newest revision that a commit changed.
    newest: i64,
    /// By `end`; empty unless the stage is ready.
    remembered: VecDeque<Remembered>,
}

/// The counts of one store.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Held by the applier for the length of a commit, by others for a lookup.
    state: Mutex<State>,
    wanted: AtomicBool,
}

impl Counts {
    /// Writes a commit that changes the revisions from `first` to `end`, and takes in which keys
    /// came and went. With `changes` there are revisions.
    pub(super) fn commit(
        &self,
        db: &Db,
        (first, end): (i64, i64),
        changes: Vec<Change>,
        write: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Whoever freezes a state under the lock has either all of a commit or nothing.
        let mut state = self.state.lock();
        write()?;
        state.newest = state.newest.max(end);
        if changes.is_empty() {
            return Ok(());
        }
        if let Stage::Building { journal } = &mut state.stage {
            // Copied: a key is a part of a record, which it would keep.
            journal.extend(changes.into_iter().map(|change| Change {
                key: Bytes::copy_from_slice(&change.key),
                ..change
            }));
            if journal.len() > JOURNAL_CHANGES_MAX {
                state.stage = Stage::Idle;
            }
            return Ok(());
        }
        let Some(newest) = state.remembered.back() else {
            return Ok(());
        };
        let mut blocks = newest.blocks.clone();
        blocks.apply(&changes, &mut |range| keys(db.reader(), range))?;
        if state.remembered.len() == REMEMBERED_COMMITS_MAX {
            state.remembered.pop_front();
        }
        state
            .remembered
            .push_back(Remembered { first, end, blocks });
        Ok(())
    }

    /// The whole blocks in `range` at a revision, if they are known for it.
    fn whole(&self, range: &KeyRange, at: i64) -> Option<Option<blocks::Whole>> {
        let state = self.state.lock();
        let behind = state.remembered.partition_point(|past| past.end <= at);
        let blocks = &state.remembered.get(behind.checked_sub(1)?)?.blocks;
        match state.remembered.get(behind) {
            // A commit changed several revisions, this one among them.
            Some(next) if next.first <= at => None,
            _ => Some(blocks.whole(range)),
        }
    }
}

/// Every key of `range` in the newest committed state.
fn keys(reader: Reader<'_>, range: &KeyRange) -> Result<Vec<Bytes>, Error> {
    let mut keys = Vec::new();
    reader.scan(range, None, &mut |key, _| {
        keys.push(Bytes::copy_from_slice(key));
        Ok(true)
    })?;
    Ok(keys)
}

impl<'a> Reader<'a> {
    /// The keys of `range`, now or at the older revision `at`. Takes as long for many keys as for
    /// few, once the blocks are made.
    pub fn count(&self, range: &KeyRange, at: Option<i64>) -> Result<i64, Error> {
        if range.is_empty() {
            return Ok(0);
        }
        if matches!(range, KeyRange::One(_)) {
            return self.walk(range, at);
        }
        let counts = self.db().counts();
        let committed = self.without_overlay();
        let Some(whole) = counts.whole(range, at.unwrap_or(self.revision())) else {
            let count = self.walk(range, at)?;
            if count > WALK_KEYS_MAX {
                counts.wanted.store(true, Ordering::Relaxed);
            }
            return Ok(count);
        };
        let pending = if at.is_none() { self.pending(range) } else { 0 };
        let Some(whole) = whole else {
            return Ok(committed.walk(range, at)? + pending);
        };
        let before = KeyRange::Between {
            start: range.start().clone(),
            end: whole.from,
        };
        let after = match (whole.to, range) {
            (Some(start), KeyRange::Between { end, .. }) => {
                let end = end.clone();
                committed.walk(&KeyRange::Between { start, end }, at)?
            }
            _ => 0,
        };
        let keys = i64::try_from(whole.keys).unwrap_or(i64::MAX);
        Ok(committed.walk(&before, at)? + keys + after + pending)
    }

    /// By how much a batch's pending changes alter the number of keys.
    fn pending(&self, range: &KeyRange) -> i64 {
        let changes = self.overlay().into_iter().flat_map(|o| &o.changes);
        changes
            .filter(|change| range.contains(&change.key))
            .map(|change| if change.created { 1 } else { -1 })
            .sum()
    }

    /// Counts key by key.
    fn walk(&self, range: &KeyRange, at: Option<i64>) -> Result<i64, Error> {
        let mut count = 0;
        if range.is_empty() {
            return Ok(0);
        }
        if at.is_some() || self.overlay().is_some() || matches!(range, KeyRange::One(_)) {
            self.scan(range, at, &mut |_, _| {
                count += 1;
                Ok(true)
            })?;
            return Ok(count);
        }
        // Without a look at what is there.
        let mut disk = self.iterate_live(range);
        while disk.valid() {
            count += 1;
            disk.next();
        }
        disk.status()?;
        Ok(count)
    }
}
