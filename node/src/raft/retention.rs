//! When the state is flushed and how much of the log is kept: replay after a crash stays short,
//! and a member that was away for a while catches up from the log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::limits::{LOG_KEPT_BYTES_MAX, REPLAY_BYTES_MAX};

/// Counts what was applied since the last flush.
pub struct Retention {
    /// Entries after which the state is flushed; `--snapshot-count`.
    entries_max: u64,
    bytes: AtomicU64,
    applied_index: AtomicU64,
    /// The index at the last flush.
    flushed_index: AtomicU64,
    running: AtomicBool,
    due: Notify,
    marks: Mutex<Marks>,
}

/// Where in the log each piece of a certain size began, newest last.
#[derive(Default)]
struct Marks {
    pieces: VecDeque<(u64, u64)>,
    current_bytes: u64,
}

/// The grain in which kept bytes are counted.
const PIECE_BYTES: u64 = LOG_KEPT_BYTES_MAX / 64;

impl Retention {
    pub fn new(entries_max: u64) -> Self {
        Self {
            entries_max,
            bytes: AtomicU64::new(0),
            applied_index: AtomicU64::new(0),
            flushed_index: AtomicU64::new(0),
            running: AtomicBool::new(false),
            due: Notify::new(),
            marks: Mutex::default(),
        }
    }

    /// The log is replayed: from now on the state moves by new entries.
    pub fn run(&self) {
        self.running.store(true, Ordering::Release);
    }

    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Entries up to `index` were applied, `bytes` in size. One caller: the applier.
    pub fn applied(&self, index: u64, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.applied_index.store(index, Ordering::Relaxed);
        let mut marks = self.marks.lock();
        marks.current_bytes += bytes;
        if marks.current_bytes >= PIECE_BYTES {
            let piece = marks.current_bytes;
            marks.pieces.push_back((index, piece));
            marks.current_bytes = 0;
            while marks.pieces.len() > 128 {
                marks.pieces.pop_front();
            }
        }
        drop(marks);
        if self.is_due() {
            self.due.notify_one();
        }
    }

    /// Whether so much was applied since the last flush began that another one is due.
    pub fn is_due(&self) -> bool {
        let applied = self.applied_index.load(Ordering::Relaxed);
        let entries = applied.saturating_sub(self.flushed_index.load(Ordering::Relaxed));
        entries >= self.entries_max || self.bytes.load(Ordering::Relaxed) >= REPLAY_BYTES_MAX
    }

    /// Waits until a flush may be due; ask [`Retention::is_due`] then.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// Everything up to `index` is flushed or about to be: count anew.
    pub fn restart(&self, index: u64) {
        self.bytes.store(0, Ordering::Relaxed);
        self.flushed_index.store(index, Ordering::Relaxed);
    }

    /// The index up to which the log may go, so that what stays is not larger than
    /// [`LOG_KEPT_BYTES_MAX`]; none while it is smaller.
    pub fn purge_for_bytes(&self) -> Option<u64> {
        let marks = self.marks.lock();
        let mut kept = marks.current_bytes;
        for (index, bytes) in marks.pieces.iter().rev() {
            kept += bytes;
            if kept > LOG_KEPT_BYTES_MAX {
                return Some(*index);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_log_is_bounded_in_bytes() {
        let retention = Retention::new(u64::MAX);
        for index in 0..63 {
            retention.applied(index, PIECE_BYTES as usize);
        }
        assert_eq!(retention.purge_for_bytes(), None);
        for index in 63..100 {
            retention.applied(index, PIECE_BYTES as usize);
        }
        assert_eq!(retention.purge_for_bytes(), Some(99 - 64));
    }

    #[tokio::test]
    async fn a_flush_is_due_after_so_many_entries() {
        let retention = Retention::new(2);
        retention.applied(1, 1);
        assert!(futures::poll!(Box::pin(retention.due())).is_pending());
        retention.applied(2, 1);
        assert!(futures::poll!(Box::pin(retention.due())).is_ready());
    }
}
