//! What waits for one stream: revisions in order, bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::shared::SharedBatch;
use crate::model::limits::{WATCH_QUEUE_BYTES_MAX, WATCH_QUEUE_REVISIONS_MAX};

/// How much may wait for one stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    pub revisions_max: usize,
    pub bytes_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            revisions_max: WATCH_QUEUE_REVISIONS_MAX,
            bytes_max: WATCH_QUEUE_BYTES_MAX,
        }
    }
}

/// One revision for one stream, with the indices of the events that its ranges hold (none = all).
#[derive(Debug)]
pub(super) struct Item {
    pub batch: Arc<SharedBatch>,
    pub matched: Option<Box<[u32]>>,
}

impl Item {
    pub(super) fn events_len(&self) -> usize {
        match &self.matched {
            Some(matched) => matched.len(),
            None => self.batch.events().len(),
        }
    }
}

/// The hub puts in, the stream takes out. Also holds the stream's numbers for the metrics.
pub(super) struct Queue {
    state: Mutex<State>,
    limits: QueueLimits,
    pub(super) watchers: AtomicUsize,
    pub(super) lagging: AtomicUsize,
    pub(super) events_sent: AtomicU64,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// The first revision that found no room. Later ones are left out too, until the stream has
    /// taken all before it; then it reads on from here in the history.
    lost_from: Option<i64>,
    waker: Option<Waker>,
}

impl Queue {
    pub(super) fn new(limits: QueueLimits) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            limits,
            watchers: AtomicUsize::new(0),
            lagging: AtomicUsize::new(0),
            events_sent: AtomicU64::new(0),
        })
    }

    /// Puts a revision in, or notes that it was lost. The caller wakes the waker.
    pub(super) fn push(&self, item: Item) -> Option<Waker> {
        let mut state = self.state.lock();
        if state.lost_from.is_some() {
            return None;
        }
        let size = item.batch.size_bytes;
        let full = state.items.len() >= self.limits.revisions_max
            || state.bytes + size > self.limits.bytes_max;
        // An empty queue takes a revision of any size: else nothing would ever move.
        if full && !state.items.is_empty() {
            state.lost_from = Some(item.batch.revision());
        } else {
            state.bytes += size;
            state.items.push_back(item);
        }
        state.waker.take()
    }

    /// Notes that the stream must read the history from `revision` on.
    pub(super) fn lose_from(&self, revision: i64) -> Option<Waker> {
        let mut state = self.state.lock();
        state.lost_from.get_or_insert(revision);
        state.waker.take()
    }

    /// Moves out all that waits, and from where on revisions were lost behind it. From this call
    /// on revisions are taken in again.
    pub(super) fn take(&self) -> (VecDeque<Item>, Option<i64>) {
        let mut state = self.state.lock();
        state.bytes = 0;
        let lost_from = state.lost_from.take();
        (std::mem::take(&mut state.items), lost_from)
    }

    /// Ready when there is something to take.
    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if !state.items.is_empty() || state.lost_from.is_some() {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            waker => *waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Events that wait.
    pub(super) fn pending_events(&self) -> usize {
        self.state.lock().items.iter().map(Item::events_len).sum()
    }
}
