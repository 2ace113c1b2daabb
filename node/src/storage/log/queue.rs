//! What callers and the writer share: the queue, the memory of the log, and how it ended.
//!
//! One lock guards all of it, so that the queue has the order in which entries became readable.
//! It is held for copies of small things only, never for a read or write of a file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::memory::{Memory, Placed, Source};
use super::record::HEADER_BYTES;
use super::segment::SegmentFile;
use super::{Completion, Entry, LogPosition, Vote};
use crate::storage::Error;

/// Bytes that wait for the writer before callers are asked to wait.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a commit index or a watermark waits for other records to go with.
const IDLE_WRITE_AFTER: Duration = Duration::from_millis(5);

/// A change that the writer is to make durable.
pub enum Operation {
    Append {
        entries: Vec<Entry>,
        done: Completion,
    },
    Vote {
        vote: Vote,
        done: Completion,
    },
    Truncate {
        from: u64,
    },
    Purge {
        position: LogPosition,
    },
}

impl Operation {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries
                .iter()
                .map(|entry| entry.payload.len() + HEADER_BYTES)
                .sum(),
            Self::Vote { .. } | Self::Truncate { .. } | Self::Purge { .. } => HEADER_BYTES,
        }
    }

    fn done(self) -> Option<Completion> {
        match self {
            Self::Append { done, .. } | Self::Vote { done, .. } => Some(done),
            Self::Truncate { .. } | Self::Purge { .. } => None,
        }
    }
}

/// What the writer does next. With nothing in it: a watermark.
#[derive(Default)]
pub struct Work {
    pub operations: Vec<Operation>,
    pub committed: Option<LogPosition>,
    bytes: usize,
}

/// What is called once the queue has room.
pub type Ready = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    memory: Memory,
    queue: Vec<Operation>,
    /// Bytes in the queue and in the writer's hands.
    queue_bytes: usize,
    /// How many operations were queued, and how many of them are done.
    queued: u64,
    done: u64,
    /// A commit index that is not written yet.
    committed: Option<LogPosition>,
    /// The writer waits without a time limit.
    asleep: bool,
    closing: bool,
    /// Why the log takes no more.
    failure: Option<String>,
    waiting: Vec<Ready>,
    end: Option<Result<(), Error>>,
}

pub struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    pub fn new(memory: Memory) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                memory,
                ..State::default()
            }),
            wake: Condvar::new(),
        })
    }

    /// Queues an operation that `change` makes after it has changed the memory. It gets the
    /// operation's number.
    ///
    /// # Errors
    /// When the log has failed or is closed; nothing was changed.
    pub fn submit(
        &self,
        change: impl FnOnce(&mut Memory, u64) -> Option<Operation>,
    ) -> Result<(), Error> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failed_before(failure));
        }
        let number = state.queued + 1;
        let Some(operation) = change(&mut state.memory, number) else {
            return Ok(());
        };
        state.queued = number;
        state.queue_bytes += operation.bytes();
        state.queue.push(operation);
        let done = state.done;
        state.memory.evict(done);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Leaves the commit index to be written with whatever comes next, or a little later.
    pub fn submit_committed(&self, committed: LogPosition) -> Result<(), Error> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(failed_before(failure));
        }
        state.memory.committed = Some(committed);
        state.committed = Some(committed);
        if state.asleep {
            drop(state);
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Calls `ready` once the queue has room for more: at once if it has.
    pub fn when_writable(&self, ready: Ready) {
        let mut state = self.state.lock();
        if state.queue_bytes >= QUEUE_BYTES_MAX && state.failure.is_none() {
            state.waiting.push(ready);
            return;
        }
        drop(state);
        ready();
    }

    pub fn with_memory<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&self.state.lock().memory)
    }

    /// Where to read entries from; none of it touches a file.
    pub fn sources(&self, range: std::ops::Range<u64>, bytes_max: usize) -> Vec<Source> {
        self.state.lock().memory.sources(range, bytes_max)
    }

    pub fn add_segment(&self, number: u32, segment: &Arc<SegmentFile>) {
        let segment = Arc::clone(segment);
        self.state.lock().memory.add_segment(number, segment);
    }

    pub fn remove_segment(&self, number: u32) -> Option<Arc<SegmentFile>> {
        self.state.lock().memory.remove_segment(number)
    }

    /// The number of the oldest segment.
    pub fn oldest_segment(&self) -> Option<u32> {
        self.state.lock().memory.oldest_segment()
    }

    /// The writer's next work; none when the log is closed. With `unproven`, a watermark is due
    /// after a pause.
    pub fn take(&self, unproven: bool) -> Option<Work> {
        let mut state = self.state.lock();
        let idle_at = Instant::now() + IDLE_WRITE_AFTER;
        while state.queue.is_empty() && !state.closing {
            if state.committed.is_some() || unproven {
                if self.wake.wait_until(&mut state, idle_at).timed_out() {
                    break;
                }
            } else {
                state.asleep = true;
                self.wake.wait(&mut state);
                state.asleep = false;
                if state.committed.is_some() {
                    break;
                }
            }
        }
        let committed = state.committed.take();
        if state.closing && state.queue.is_empty() && committed.is_none() {
            return None;
        }
        let operations = std::mem::take(&mut state.queue);
        let bytes = operations.iter().map(Operation::bytes).sum();
        Some(Work {
            operations,
            committed,
            bytes,
        })
    }

    /// The work is durable: tells everybody, in order.
    pub fn complete(&self, work: Work, placed: &[Placed]) {
        let mut state = self.state.lock();
        for placed in placed {
            state.memory.place(placed);
        }
        state.done += work.operations.len() as u64;
        state.queue_bytes -= work.bytes;
        let done = state.done;
        state.memory.evict(done);
        let ready = if state.queue_bytes < QUEUE_BYTES_MAX {
            std::mem::take(&mut state.waiting)
        } else {
            Vec::new()
        };
        drop(state);
        for completion in work.operations.into_iter().filter_map(Operation::done) {
            completion(Ok(()));
        }
        for ready in ready {
            ready();
        }
    }

    /// The log failed for good: everybody who waits hears it, and nothing is taken any more.
    pub fn poison(&self, error: &Error, work: Work) {
        let mut state = self.state.lock();
        let failure = state.failure.insert(error.to_string()).clone();
        let queue = std::mem::take(&mut state.queue);
        let waiting = std::mem::take(&mut state.waiting);
        state.end = Some(Err(failed_before(&failure)));
        drop(state);
        let operations = work.operations.into_iter().chain(queue);
        for completion in operations.filter_map(Operation::done) {
            completion(Err(failed_before(&failure)));
        }
        for ready in waiting {
            ready();
        }
    }

    /// The writer ended after [`Shared::close`].
    pub fn finished(&self, end: Result<(), Error>) {
        self.state.lock().end = Some(end);
    }

    /// Takes no more operations; the writer finishes those that are queued.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        state.failure.get_or_insert_with(|| "closed".into());
        drop(state);
        self.wake.notify_one();
    }

    /// How the log ended; an error if its writer died.
    pub fn take_end(&self) -> Result<(), Error> {
        let end = self.state.lock().end.take();
        end.unwrap_or_else(|| Err(failed_before("its writer died")))
    }
}

fn failed_before(failure: &str) -> Error {
    Error::Io {
        path: "raft log".into(),
        source: std::io::Error::other(failure.to_owned()),
    }
}
