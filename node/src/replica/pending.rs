//! Callers that wait for a proposal: counted, bounded in number and in time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Refusal;
use crate::model::limits::PROPOSALS_PENDING_MAX;

/// Counters for metrics and status.
#[derive(Debug, Default)]
pub struct Counters {
    pub pending: AtomicU64,
    pub failed: AtomicU64,
}

/// How long a proposal or a linearizable read may take.
///
/// etcd: server/config/config.go, `ReqTimeout`.
pub fn request_timeout(election_timeout: Duration) -> Duration {
    Duration::from_secs(5) + 2 * election_timeout
}

/// Counts a caller for as long as it waits.
pub struct Pending<'a>(&'a Counters);

impl<'a> Pending<'a> {
    /// # Errors
    /// [`Refusal::TooManyRequests`] above [`PROPOSALS_PENDING_MAX`].
    pub fn enter(counters: &'a Counters) -> Result<Self, Refusal> {
        let before = counters.pending.fetch_add(1, Ordering::Relaxed);
        let pending = Self(counters);
        if before >= PROPOSALS_PENDING_MAX as u64 {
            return Err(Refusal::TooManyRequests);
        }
        Ok(pending)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}
