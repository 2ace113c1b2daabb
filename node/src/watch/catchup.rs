//! Catching up: watchers that are behind read history in slices until they have seen all of a
//! published state. All lagging watchers of a stream share a slice.
//!
//! Joining live again needs no lock: a slice reads a state that was published after every revision
//! the stream has taken from its queue, and the stream takes nothing while a slice is read. So what
//! a watcher has not seen at the end of the slice is still to be taken, and what is taken once more
//! lies below its `next`.

use std::sync::Arc;

use super::past::Past;
use super::shared::{SharedBatch, SharedEvent};
use super::table::{Body, Delivery, Phase, Table};
use crate::machine::view::ReadError;
use crate::model::limits::{WATCH_CATCHUP_BYTES, WATCH_CATCHUP_RECORDS_MAX};
use crate::model::{Event, EventBatch, KeyRange};
use crate::storage::Error;

/// How many records the next slice looks at: few large ones, many small ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct SliceSize {
    records: usize,
    /// Every other slice is for those who are nearly there, so that one watcher far behind does not
    /// hold up the rest of its stream.
    nearest: bool,
}

impl Default for SliceSize {
    fn default() -> Self {
        Self {
            records: 16,
            nearest: false,
        }
    }
}

impl SliceSize {
    fn adapt(&mut self, bytes: usize) {
        if bytes > WATCH_CATCHUP_BYTES {
            self.records = (self.records / 2).max(1);
        } else if bytes < WATCH_CATCHUP_BYTES / 4 {
            self.records = (self.records * 4).min(WATCH_CATCHUP_RECORDS_MAX);
        }
        self.nearest = !self.nearest;
    }
}

impl Table {
    /// Reads one slice of history for the watchers that are behind.
    pub(super) fn catch_up(&mut self, past: &Past, size: &mut SliceSize) -> Result<(), Error> {
        self.end_compacted(past.compacted());
        let nexts = || self.lagging().map(|(_, next, _)| next);
        let from = if size.nearest {
            nexts().max()
        } else {
            nexts().min()
        };
        let Some(from) = from else {
            return Ok(());
        };
        let head = past.revision();
        let mut upto = head + 1;
        if from <= head {
            let range = self.range_to_read(from);
            let (events, read_upto) = match past.history(from, &range, size.records) {
                Ok(read) => read,
                Err(ReadError::Failed(error)) => return Err(error),
                // `end_compacted` has asked the same state: this cannot be.
                Err(ReadError::Refused(refusal)) => return Err(Error::Engine(refusal.to_string())),
            };
            upto = read_upto;
            size.adapt(events.iter().map(|(_, event)| event.kv.len()).sum());
            self.gather(from, events);
            self.flush(head)?;
        } else {
            size.adapt(0);
        }
        for watcher in self.watchers.values_mut() {
            if watcher.phase == Phase::Lagging && watcher.next >= from {
                watcher.next = watcher.next.max(upto);
                if watcher.next > head {
                    watcher.phase = Phase::Live;
                }
            }
        }
        self.count_lagging();
        Ok(())
    }

    /// Ends the watchers that need what is gone. The revision in the header is 0, as in etcd.
    fn end_compacted(&mut self, compacted: i64) {
        let gone = self.lagging().filter(|&(_, next, _)| next < compacted);
        let gone: Vec<(i64, KeyRange)> = gone
            .map(|(watch_id, _, range)| (watch_id, range.clone()))
            .collect();
        for (watch_id, range) in gone {
            self.leave(&range, watch_id);
            if let Some(watcher) = self.watchers.get_mut(&watch_id) {
                watcher.phase = Phase::Ended;
            }
            self.ready.push_back(Delivery {
                watch_id,
                revision: 0,
                body: Body::Compacted(compacted),
            });
        }
        self.count_lagging();
    }

    /// ID, next revision and range of those who are behind.
    fn lagging(&self) -> impl Iterator<Item = (i64, i64, &KeyRange)> {
        let watchers = self.watchers.iter();
        watchers
            .filter(|(_, watcher)| watcher.phase == Phase::Lagging)
            .map(|(&watch_id, watcher)| (watch_id, watcher.next, &watcher.spec.range))
    }

    /// The range of all who take part in a slice from `from` on, or simply every key.
    fn range_to_read(&self, from: i64) -> KeyRange {
        let mut ranges = self
            .lagging()
            .filter(|&(_, next, _)| next >= from)
            .map(|(_, _, r)| r);
        match ranges.next() {
            Some(first) if ranges.all(|range| range == first) => first.clone(),
            _ => KeyRange::From(bytes::Bytes::new()),
        }
    }

    /// Gathers events of history for those who take part in a slice from `from` on.
    fn gather(&mut self, from: i64, events: Vec<(i64, Event)>) {
        for batch in by_revision(events) {
            let Self {
                ranges,
                watchers,
                gathering,
                ..
            } = self;
            for (event, index) in batch.events().iter().zip(0u32..) {
                ranges.stab(&event.key, |watch_id| {
                    let Some(watcher) = watchers.get_mut(&watch_id) else {
                        return;
                    };
                    if watcher.phase == Phase::Lagging
                        && watcher.next >= from
                        && watcher.next <= batch.revision()
                        && watcher.gather(SharedEvent::new(&batch, index))
                    {
                        gathering.push(watch_id);
                    }
                });
            }
        }
    }
}

/// Puts the events of each revision together.
fn by_revision(events: Vec<(i64, Event)>) -> Vec<Arc<SharedBatch>> {
    let mut batches: Vec<EventBatch> = Vec::new();
    for (revision, event) in events {
        match batches.last_mut() {
            Some(batch) if batch.revision == revision => batch.events.push(event),
            _ => batches.push(EventBatch {
                revision,
                events: vec![event],
            }),
        }
    }
    let batches = batches.into_iter();
    batches
        .map(|batch| SharedBatch::new(Arc::new(batch)))
        .collect()
}
