//! The watchers of one stream: who gets which event, and who is behind.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::hub::Hub;
use super::queue::{Item, Queue};
use super::ranges::RangeIndex;
use super::shared::SharedEvent;
use crate::model::limits::WATCHERS_PER_STREAM_MAX;
use crate::model::{Event, EventKind, KeyRange};
use crate::storage::Error;

/// What a new watcher asks for.
#[derive(Debug, Clone)]
pub struct WatchSpec {
    /// 0 lets the stream choose.
    pub watch_id: i64,
    pub range: KeyRange,
    /// 0 = from now on.
    pub start_revision: i64,
    pub no_put: bool,
    pub no_delete: bool,
    pub prev_kv: bool,
    pub progress_notify: bool,
    pub fragment: bool,
}

impl WatchSpec {
    /// Every event of `range` from `start_revision` on.
    pub fn new(range: KeyRange, start_revision: i64) -> Self {
        Self {
            watch_id: 0,
            range,
            start_revision,
            no_put: false,
            no_delete: false,
            prev_kv: false,
            progress_notify: false,
            fragment: false,
        }
    }
}

/// Why there is no new watcher; the text is etcd's `cancel_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// etcd: server/etcdserver/api/v3rpc/watch.go.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    NegativeStart,
    /// etcd: server/storage/mvcc/watcher.go.
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    /// etcd: server/storage/mvcc/watcher.go.
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
    /// Our own limit; etcd has none.
    #[error("etcdserver: too many requests")]
    TooManyWatchers,
}

/// One response, still without its member's header.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// -1 for the progress of all watchers of the stream.
    pub watch_id: i64,
    /// For the header.
    pub revision: i64,
    pub body: Body,
}

/// What a [`Delivery`] says.
#[derive(Debug, Clone)]
pub enum Body {
    /// Whole revisions, in order.
    Events {
        events: Vec<SharedEvent>,
        prev_kv: bool,
        fragment: bool,
    },
    /// All events up to the delivery's revision were delivered.
    Progress,
    /// The watcher has ended: what it needs next is below this compacted revision.
    Compacted(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Served from the queue.
    Live,
    /// Served from history.
    Lagging,
    /// Ended by a compaction; holds its ID until the client cancels it, as in etcd.
    Ended,
}

pub(super) struct Watcher {
    pub spec: WatchSpec,
    /// The first revision that it has not seen.
    pub next: i64,
    pub phase: Phase,
    /// No events since the last tick of the progress notification.
    quiet: bool,
    /// Events of the delivery that is being put together.
    gathered: Vec<SharedEvent>,
}

impl Watcher {
    fn wants(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => !self.spec.no_put,
            EventKind::Delete => !self.spec.no_delete,
        }
    }

    /// Adds an event. Returns whether it is the first of the delivery.
    pub(super) fn gather(&mut self, event: SharedEvent) -> bool {
        if !self.wants(event.event()) {
            return false;
        }
        self.gathered.push(event);
        self.gathered.len() == 1
    }
}

/// The watchers of one stream. Leaves the hub when dropped.
pub(super) struct Table {
    pub(super) hub: Arc<Hub>,
    queue: Arc<Queue>,
    number: usize,
    pub(super) ranges: RangeIndex<i64>,
    pub(super) watchers: HashMap<i64, Watcher>,
    pub(super) ready: VecDeque<Delivery>,
    /// Watchers whose delivery is being put together.
    pub(super) gathering: Vec<i64>,
    next_id: i64,
}

impl Table {
    pub(super) fn new(hub: Arc<Hub>, queue: Arc<Queue>, number: usize) -> Self {
        Self {
            hub,
            queue,
            number,
            ranges: RangeIndex::new(),
            watchers: HashMap::new(),
            ready: VecDeque::new(),
            gathering: Vec::new(),
            next_id: 0,
        }
    }

    /// Adds a watcher. Returns its ID and the revision at which it joined.
    pub(super) fn create(&mut self, mut spec: WatchSpec) -> Result<(i64, i64), CreateError> {
        if spec.start_revision < 0 {
            return Err(CreateError::NegativeStart);
        }
        if spec.range.is_empty() {
            return Err(CreateError::EmptyRange);
        }
        if self.watchers.len() >= WATCHERS_PER_STREAM_MAX {
            return Err(CreateError::TooManyWatchers);
        }
        if spec.watch_id == 0 {
            while self.watchers.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            spec.watch_id = self.next_id;
            self.next_id += 1;
        } else if self.watchers.contains_key(&spec.watch_id) {
            return Err(CreateError::DuplicateId);
        }
        let watch_id = spec.watch_id;
        let is_new = self.ranges.insert(&spec.range, watch_id);
        let published = self.hub.join(self.number, is_new.then_some(&spec.range));
        let next = match spec.start_revision {
            0 => published + 1,
            start => start,
        };
        let phase = if next > published {
            Phase::Live
        } else {
            Phase::Lagging
        };
        let watcher = Watcher {
            spec,
            next,
            phase,
            quiet: true,
            gathered: Vec::new(),
        };
        self.watchers.insert(watch_id, watcher);
        self.queue.watchers.fetch_add(1, Relaxed);
        if phase == Phase::Lagging {
            self.queue.lagging.fetch_add(1, Relaxed);
        }
        Ok((watch_id, published))
    }

    /// Removes a watcher and what was about to be delivered to it. Returns whether there was one.
    pub(super) fn cancel(&mut self, watch_id: i64) -> bool {
        let Some(watcher) = self.watchers.remove(&watch_id) else {
            return false;
        };
        if watcher.phase != Phase::Ended {
            self.leave(&watcher.spec.range, watch_id);
        }
        self.ready.retain(|delivery| delivery.watch_id != watch_id);
        self.queue.watchers.fetch_sub(1, Relaxed);
        if watcher.phase == Phase::Lagging {
            self.queue.lagging.fetch_sub(1, Relaxed);
        }
        true
    }

    /// Stops matching a watcher's range.
    pub(super) fn leave(&mut self, range: &KeyRange, watch_id: i64) {
        if self.ranges.remove(range, watch_id) {
            self.hub.leave(self.number, range);
        }
    }

    /// Hands one queued revision to the watchers that are live.
    pub(super) fn deliver(&mut self, item: &Item) -> Result<(), Error> {
        let revision = item.batch.revision();
        match &item.matched {
            Some(matched) => matched
                .iter()
                .for_each(|&index| self.deliver_event(item, index)),
            None => {
                let count = u32::try_from(item.batch.events().len()).unwrap_or(u32::MAX);
                (0..count).for_each(|index| self.deliver_event(item, index));
            }
        }
        self.flush(revision)
    }

    fn deliver_event(&mut self, item: &Item, index: u32) {
        let revision = item.batch.revision();
        let Self {
            ranges,
            watchers,
            gathering,
            ..
        } = self;
        ranges.stab(&item.batch.events()[index as usize].key, |watch_id| {
            let Some(watcher) = watchers.get_mut(&watch_id) else {
                return;
            };
            if watcher.phase == Phase::Live
                && watcher.next <= revision
                && watcher.gather(SharedEvent::new(&item.batch, index))
            {
                gathering.push(watch_id);
            }
        });
    }

    /// Makes deliveries of what was gathered.
    pub(super) fn flush(&mut self, revision: i64) -> Result<(), Error> {
        let mut past = None;
        let mut sent = 0;
        for watch_id in self.gathering.drain(..) {
            let Some(watcher) = self.watchers.get_mut(&watch_id) else {
                continue;
            };
            watcher.quiet = false;
            let events = std::mem::take(&mut watcher.gathered);
            if watcher.spec.prev_kv {
                let past = past.get_or_insert_with(|| self.hub.past());
                for event in &events {
                    event.look_up_previous(past)?;
                }
            }
            sent += events.len() as u64;
            self.ready.push_back(Delivery {
                watch_id,
                revision,
                body: Body::Events {
                    events,
                    prev_kv: watcher.spec.prev_kv,
                    fragment: watcher.spec.fragment,
                },
            });
        }
        self.queue.events_sent.fetch_add(sent, Relaxed);
        Ok(())
    }

    /// The queue has lost revisions from `revision` on: who was live reads them from history.
    pub(super) fn fall_behind(&mut self, revision: i64) {
        for watcher in self.watchers.values_mut() {
            if watcher.phase == Phase::Live {
                watcher.phase = Phase::Lagging;
                watcher.next = watcher.next.max(revision);
            }
        }
        self.count_lagging();
    }

    /// Says -1's progress if no watcher has still to see anything up to `published`.
    pub(super) fn progress_all(&mut self, published: i64) {
        let mut watchers = self.watchers.values();
        if !self.watchers.is_empty() && watchers.all(|watcher| watcher.is_synced(published)) {
            self.push_progress(-1, published);
        }
    }

    /// The tick of the progress notification.
    pub(super) fn progress_quiet(&mut self, published: i64) {
        let mut quiet = Vec::new();
        for (&watch_id, watcher) in &mut self.watchers {
            if watcher.spec.progress_notify {
                if watcher.quiet && watcher.is_synced(published) {
                    quiet.push(watch_id);
                }
                watcher.quiet = true;
            }
        }
        quiet.sort_unstable();
        quiet
            .into_iter()
            .for_each(|watch_id| self.push_progress(watch_id, published));
    }

    fn push_progress(&mut self, watch_id: i64, revision: i64) {
        let body = Body::Progress;
        self.ready.push_back(Delivery {
            watch_id,
            revision,
            body,
        });
    }

    pub(super) fn is_lagging(&self) -> bool {
        self.queue.lagging.load(Relaxed) > 0
    }

    /// Counts anew who is behind, after many have changed.
    pub(super) fn count_lagging(&self) {
        let lagging = self
            .watchers
            .values()
            .filter(|watcher| watcher.phase == Phase::Lagging);
        self.queue.lagging.store(lagging.count(), Relaxed);
    }
}

impl Watcher {
    fn is_synced(&self, published: i64) -> bool {
        self.phase == Phase::Live && published >= self.spec.start_revision
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let watchers = std::mem::take(&mut self.watchers);
        for (watch_id, watcher) in watchers {
            if watcher.phase != Phase::Ended {
                self.leave(&watcher.spec.range, watch_id);
            }
        }
        self.hub.unsubscribe(self.number);
    }
}
