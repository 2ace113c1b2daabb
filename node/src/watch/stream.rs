//! One stream of watchers: takes from its queue, catches up from history, and puts everything in
//! the order in which the client must see it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::catchup::SliceSize;
use super::hub::Hub;
use super::queue::{Item, Queue};
use super::table::{CreateError, Delivery, Table, WatchSpec};

/// A new watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Created {
    pub watch_id: i64,
    /// The published revision at which the watcher joined; for the header.
    pub revision: i64,
}

/// History could not be read: the stream is over and the node stops (see [`Hub::failed`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("etcdserver: server stopped")]
pub struct Failed;

/// Watchers that share one ordered stream of deliveries. Dropping it releases everything.
pub struct WatchStream {
    hub: Arc<Hub>,
    queue: Arc<Queue>,
    /// Shared with the blocking task that reads history while the stream waits for it.
    table: Arc<Mutex<Table>>,
    /// Taken from the queue, still to be handed out.
    taken: VecDeque<Taken>,
    slice: SliceSize,
}

enum Taken {
    Revision(Item),
    /// Revisions from this one on are not in the queue.
    Lost(i64),
    /// Progress at this revision, asked for by the client or due for quiet watchers.
    ProgressAll(i64),
    ProgressQuiet(i64),
}

impl WatchStream {
    pub(super) fn new(hub: Arc<Hub>, queue: Arc<Queue>, number: usize) -> Self {
        let table = Table::new(hub.clone(), queue.clone(), number);
        Self {
            hub,
            queue,
            table: Arc::new(Mutex::new(table)),
            taken: VecDeque::new(),
            slice: SliceSize::default(),
        }
    }

    /// Adds a watcher; its events follow in later deliveries.
    pub fn create(&mut self, spec: WatchSpec) -> Result<Created, CreateError> {
        let (watch_id, revision) = self.table.lock().create(spec)?;
        Ok(Created { watch_id, revision })
    }

    /// Removes a watcher: nothing more is delivered to it. Returns whether there was one.
    pub fn cancel(&mut self, watch_id: i64) -> bool {
        self.table.lock().cancel(watch_id)
    }

    /// Asks for a delivery that says that all watchers have seen everything up to the revision
    /// published now. It comes behind all that is queued, or not at all if a watcher is behind.
    pub fn request_progress(&mut self) {
        self.mark(Taken::ProgressAll);
    }

    /// Asks for the same, for each watcher that wants to be told and had no events since the last
    /// call.
    pub fn notify_progress(&mut self) {
        self.mark(Taken::ProgressQuiet);
    }

    fn mark(&mut self, mark: fn(i64) -> Taken) {
        let (published, taken) = self.hub.published_with(|| self.queue.take());
        self.keep(taken);
        self.taken.push_back(mark(published));
    }

    /// The hub's last published revision.
    pub fn published(&self) -> i64 {
        self.hub.published()
    }

    /// What can be handed out at once.
    pub fn pop(&mut self) -> Option<Delivery> {
        self.table.lock().ready.pop_front()
    }

    /// Works on what was taken from the queue before. Returns whether there was anything; then
    /// [`WatchStream::pop`] may have more.
    pub fn work(&mut self) -> Result<bool, Failed> {
        let Some(taken) = self.taken.pop_front() else {
            return Ok(false);
        };
        let mut table = self.table.lock();
        let done = match taken {
            Taken::Revision(item) => table.deliver(&item),
            Taken::Lost(revision) => {
                table.fall_behind(revision);
                Ok(())
            }
            Taken::ProgressAll(revision) => {
                table.progress_all(revision);
                Ok(())
            }
            Taken::ProgressQuiet(revision) => {
                table.progress_quiet(revision);
                Ok(())
            }
        };
        done.map(|()| true).map_err(|error| {
            self.hub.fail(&error.to_string());
            Failed
        })
    }

    /// Takes what is queued. Returns whether there was anything to [`WatchStream::work`] on.
    pub fn refill(&mut self) -> bool {
        let taken = self.queue.take();
        self.keep(taken);
        !self.taken.is_empty()
    }

    fn keep(&mut self, (items, lost_from): (VecDeque<Item>, Option<i64>)) {
        self.taken.extend(items.into_iter().map(Taken::Revision));
        self.taken.extend(lost_from.map(Taken::Lost));
    }

    /// Whether a watcher needs [`WatchStream::catch_up`].
    pub fn is_lagging(&self) -> bool {
        self.table.lock().is_lagging()
    }

    /// Reads a slice of history. To be called with all work done, and not to be dropped half way
    /// unless the stream is dropped too.
    pub async fn catch_up(&mut self) -> Result<(), Failed> {
        let turn = self.hub.catchups.acquire().await;
        // The semaphore is never closed.
        let _turn = turn.map_err(|_| Failed)?;
        let table = self.table.clone();
        let past = self.hub.past();
        let mut slice = self.slice;
        let read = tokio::task::spawn_blocking(move || {
            let read = table.lock().catch_up(&past, &mut slice);
            read.map(|()| slice)
        });
        let cause = match read.await {
            Ok(Ok(slice)) => {
                self.slice = slice;
                return Ok(());
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.hub.fail(&cause);
        Err(Failed)
    }

    /// Waits until there is something to [`WatchStream::refill`].
    pub async fn queued(&self) {
        std::future::poll_fn(|context| self.queue.poll_ready(context)).await;
    }

    /// The next delivery, if there is one without waiting for the hub.
    pub async fn try_next(&mut self) -> Result<Option<Delivery>, Failed> {
        loop {
            if let Some(delivery) = self.pop() {
                return Ok(Some(delivery));
            }
            if self.work()? {
                continue;
            }
            if self.is_lagging() {
                self.catch_up().await?;
                self.refill();
            } else if !self.refill() {
                return Ok(None);
            }
        }
    }

    /// The next delivery, for a user in this process.
    pub async fn next(&mut self) -> Result<Delivery, Failed> {
        loop {
            if let Some(delivery) = self.try_next().await? {
                return Ok(delivery);
            }
            self.queued().await;
        }
    }
}
