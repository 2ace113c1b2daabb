//! Where committed revisions meet the streams that watch their keys.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::past::Past;
use super::queue::{Item, Queue, QueueLimits};
use super::ranges::RangeIndex;
use super::shared::SharedBatch;
use super::stream::WatchStream;
use crate::machine::view::View;
use crate::model::limits::WATCH_CATCHUPS_MAX;
use crate::model::{EventBatch, KeyRange};

/// Hands committed events to watchers.
pub struct Hub {
    state: Mutex<State>,
    /// The newest published state. It moves on before its revisions are queued, so who has lost a
    /// revision finds it here.
    past: ArcSwap<Past>,
    limits: QueueLimits,
    pub(super) catchups: Semaphore,
    failure: watch::Sender<Option<String>>,
}

struct State {
    published: i64,
    /// Which streams watch a key. A stream holds each of its ranges once, however many of its
    /// watchers share it.
    ranges: RangeIndex<usize>,
    streams: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// The streams that the revision at hand concerns; kept to reuse its memory.
    touched: Vec<usize>,
    retired_events_sent: u64,
}

struct Slot {
    queue: Arc<Queue>,
    /// The last revision that concerned this stream, and which of its events.
    revision: i64,
    matched: Vec<u32>,
}

/// The numbers of the watch metrics.
///
/// etcd: server/storage/mvcc/metrics.go (`etcd_debugging_mvcc_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// `watch_stream_total`
    pub streams: usize,
    /// `watcher_total`
    pub watchers: usize,
    /// `slow_watcher_total`: those that read history.
    pub slow_watchers: usize,
    /// `events_total`
    pub events_sent: u64,
    /// `pending_events_total`
    pub pending_events: usize,
}

impl Hub {
    /// A hub that has published everything up to the view.
    pub fn new(view: &Arc<View>) -> Arc<Self> {
        Self::with_limits(Past::View(view.clone()), QueueLimits::default())
    }

    pub(super) fn with_limits(past: Past, limits: QueueLimits) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                published: past.revision(),
                ranges: RangeIndex::new(),
                streams: Vec::new(),
                free: Vec::new(),
                touched: Vec::new(),
                retired_events_sent: 0,
            }),
            past: ArcSwap::from_pointee(past),
            limits,
            catchups: Semaphore::new(WATCH_CATCHUPS_MAX),
            failure: watch::channel(None).0,
        })
    }

    /// Tells watchers of newly committed revisions, in order. `view` is the published view that
    /// holds them. Called by the applier alone, after the view is stored; never blocks on streams.
    ///
    /// To be called after every apply, with no batches if nothing changed: history is read from the
    /// view, and a compaction is seen in it.
    pub fn publish(&self, view: &Arc<View>, batches: Vec<Arc<EventBatch>>) {
        self.publish_past(Past::View(view.clone()), batches);
    }

    pub(super) fn publish_past(&self, past: Past, batches: Vec<Arc<EventBatch>>) {
        let revision = past.revision();
        let mut wakers = Vec::new();
        {
            let mut state = self.state.lock();
            self.past.store(Arc::new(past));
            for batch in batches {
                state.queue_revision(batch, &mut wakers);
            }
            state.published = revision;
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Reads history from `again` instead of `old`, unless another view has been published: both
    /// are of the same state.
    pub fn renew(&self, old: &Arc<View>, again: &Arc<View>) {
        let _state = self.state.lock();
        if self.past.load().is_view(old) {
            self.past.store(Arc::new(Past::View(Arc::clone(again))));
        }
    }

    /// The store was replaced by a snapshot: every watcher catches up from history again.
    pub fn reset(&self, view: &Arc<View>) {
        self.reset_past(Past::View(view.clone()));
    }

    pub(super) fn reset_past(&self, past: Past) {
        let revision = past.revision();
        let wakers: Vec<Waker> = {
            let mut state = self.state.lock();
            self.past.store(Arc::new(past));
            let lost_from = state.published + 1;
            state.published = revision;
            let slots = state.streams.iter().flatten();
            slots
                .filter_map(|slot| slot.queue.lose_from(lost_from))
                .collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A new stream of watchers, for a client's stream or a user in this process.
    pub fn subscribe(self: &Arc<Self>) -> WatchStream {
        let queue = Queue::new(self.limits);
        let slot = Slot {
            queue: queue.clone(),
            revision: 0,
            matched: Vec::new(),
        };
        let mut state = self.state.lock();
        let number = match state.free.pop() {
            Some(number) => {
                state.streams[number] = Some(slot);
                number
            }
            None => {
                state.streams.push(Some(slot));
                state.streams.len() - 1
            }
        };
        drop(state);
        WatchStream::new(self.clone(), queue, number)
    }

    /// The last published revision: everything up to it is queued for its watchers.
    pub fn published(&self) -> i64 {
        self.state.lock().published
    }

    pub fn counts(&self) -> WatchCounts {
        let state = self.state.lock();
        let mut counts = WatchCounts {
            events_sent: state.retired_events_sent,
            ..WatchCounts::default()
        };
        for slot in state.streams.iter().flatten() {
            counts.streams += 1;
            counts.watchers += slot.queue.watchers.load(Relaxed);
            counts.slow_watchers += slot.queue.lagging.load(Relaxed);
            counts.events_sent += slot.queue.events_sent.load(Relaxed);
            counts.pending_events += slot.queue.pending_events();
        }
        counts
    }

    /// Returns why, once history could not be read: the disk failed, and the node must stop.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        // The sender lives in `self`, so waiting ends with a value or never.
        let cause = failure.wait_for(Option::is_some).await;
        cause
            .ok()
            .and_then(|cause| cause.clone())
            .unwrap_or_default()
    }

    pub(super) fn fail(&self, cause: &str) {
        tracing::error!(cause, "watch history cannot be read");
        self.failure.send_replace(Some(cause.to_owned()));
    }

    #[cfg(test)]
    pub(super) fn holds_no_ranges(&self) -> bool {
        self.state.lock().ranges.is_empty()
    }

    pub(super) fn past(&self) -> Arc<Past> {
        self.past.load_full()
    }

    /// From the returned revision on, not including it, `stream` gets what `range` holds. No range:
    /// the stream has it already.
    pub(super) fn join(&self, stream: usize, range: Option<&KeyRange>) -> i64 {
        let mut state = self.state.lock();
        if let Some(range) = range {
            state.ranges.insert(range, stream);
        }
        state.published
    }

    pub(super) fn leave(&self, stream: usize, range: &KeyRange) {
        self.state.lock().ranges.remove(range, stream);
    }

    /// The published revision, together with all that is queued up to it.
    pub(super) fn published_with<T>(&self, take: impl FnOnce() -> T) -> (i64, T) {
        let state = self.state.lock();
        (state.published, take())
    }

    /// Frees the place of a stream that has left all its ranges.
    pub(super) fn unsubscribe(&self, stream: usize) {
        let mut state = self.state.lock();
        if let Some(slot) = state.streams[stream].take() {
            state.retired_events_sent += slot.queue.events_sent.load(Relaxed);
            state.free.push(stream);
        }
    }
}

impl State {
    /// Queues one revision for the streams that watch any of its keys.
    fn queue_revision(&mut self, batch: Arc<EventBatch>, wakers: &mut Vec<Waker>) {
        let (revision, single) = (batch.revision, batch.events.len() == 1);
        let Self {
            ranges,
            streams,
            touched,
            ..
        } = self;
        for (event, index) in batch.events.iter().zip(0u32..) {
            ranges.stab(&event.key, |number| {
                let Some(slot) = &mut streams[number] else {
                    return;
                };
                if slot.revision != revision {
                    slot.revision = revision;
                    touched.push(number);
                }
                if !single && slot.matched.last() != Some(&index) {
                    slot.matched.push(index);
                }
            });
        }
        if touched.is_empty() {
            return;
        }
        let batch = SharedBatch::new(batch);
        for number in touched.drain(..) {
            let Some(slot) = &mut streams[number] else {
                continue;
            };
            let matched = (!single).then(|| std::mem::take(&mut slot.matched).into());
            let batch = batch.clone();
            wakers.extend(slot.queue.push(Item { batch, matched }));
        }
    }
}
