//! Makes the blocks of [`Counts`](super::Counts): one pass over a frozen state, in slices.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::blocks::{BLOCK_KEYS, Blocks};
use super::{Remembered, Stage, keys};
use crate::model::KeyRange;
use crate::storage::{Db, Error, Snapshot};

/// Keys that one slice of the pass looks at.
const SLICE_KEYS: usize = 100_000;

/// A pass under way. Dropped before its end, it leaves counting as it was.
pub struct CountBuild {
    snapshot: Option<Snapshot>,
    db: Arc<Db>,
    /// The last key that was seen.
    last: Option<Bytes>,
    blocks: Vec<(Bytes, u32)>,
}

impl CountBuild {
    /// Begins when a count has asked for it; none when there is nothing to do.
    pub fn begin(db: &Arc<Db>) -> Option<Self> {
        if !db.counts().wanted.swap(false, Ordering::Relaxed) {
            return None;
        }
        let mut state = db.counts().state.lock();
        if !matches!(state.stage, Stage::Idle) {
            return None;
        }
        state.stage = Stage::Building {
            journal: Vec::new(),
        };
        // Under the lock: exactly what is committed from here on goes into the journal.
        let snapshot = db.snapshot();
        Some(Self {
            snapshot: Some(snapshot),
            db: Arc::clone(db),
            last: None,
            blocks: vec![(Bytes::new(), 0)],
        })
    }

    /// Looks at one slice; whether there is more.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn step(&mut self) -> Result<bool, Error> {
        let Some(snapshot) = &self.snapshot else {
            return Ok(false);
        };
        let (blocks, mut seen) = (&mut self.blocks, 0);
        let from = match &self.last {
            None => Bytes::new(),
            Some(last) => [last.as_ref(), b"\0"].concat().into(),
        };
        let mut last = None;
        snapshot
            .reader()
            .scan(&KeyRange::From(from), None, &mut |key, _| {
                match blocks.last_mut() {
                    Some((_, count)) if *count < BLOCK_KEYS as u32 => *count += 1,
                    _ => blocks.push((Bytes::copy_from_slice(key), 1)),
                }
                seen += 1;
                if seen == SLICE_KEYS {
                    last = Some(Bytes::copy_from_slice(key));
                }
                Ok(seen < SLICE_KEYS)
            })?;
        self.last = last;
        Ok(self.last.is_some())
    }

    /// Adds what changed meanwhile; from now on counts are known.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(mut self) -> Result<(), Error> {
        self.snapshot = None;
        let mut blocks = Blocks::of(std::mem::take(&mut self.blocks));
        let mut state = self.db.counts().state.lock();
        // Given up when too much changed: the next count that walks far asks again.
        let Stage::Building { journal } = &mut state.stage else {
            return Ok(());
        };
        let journal = std::mem::take(journal);
        let reader = self.db.reader();
        blocks.apply(&journal, &mut |range| keys(reader, range))?;
        let end = state.newest.max(self.db.progress().revision);
        state.remembered.push_back(Remembered {
            first: i64::MIN,
            end,
            blocks,
        });
        state.stage = Stage::Ready;
        Ok(())
    }
}

impl Drop for CountBuild {
    fn drop(&mut self) {
        let mut state = self.db.counts().state.lock();
        if matches!(state.stage, Stage::Building { .. }) {
            state.stage = Stage::Idle;
        }
    }
}
