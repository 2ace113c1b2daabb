//! Compacts old revisions by itself: everything older than a period, or all but so many revisions.
//!
//! etcd: server/etcdserver/api/v3compactor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::Refusal;
use crate::model::kv::{Command, CompactionRequest, command};
use crate::replica::Replica;

pub use crate::replica::AutoCompaction;

/// How often the revision mode looks.
const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// A period is looked at in this many steps, or hourly when it is longer than an hour.
const PERIOD_STEPS: u32 = 10;
const HOUR: Duration = Duration::from_secs(3_600);

pub async fn run(replica: Arc<Replica>) {
    match replica.config().auto_compaction {
        AutoCompaction::Off => std::future::pending().await,
        AutoCompaction::Periodic(period) => run_periodic(&replica, period).await,
        AutoCompaction::Revision(kept) => run_revision(&replica, kept).await,
    }
}

/// The revisions that were seen, one a step, and which of them is due for compaction.
struct Periodic {
    step: Duration,
    steps_kept: usize,
    seen: VecDeque<i64>,
}

impl Periodic {
    fn new(period: Duration) -> Self {
        let interval = period.min(HOUR);
        let step = (interval / PERIOD_STEPS).max(Duration::from_millis(1));
        let steps = period.as_millis() / step.as_millis().max(1);
        Self {
            step,
            steps_kept: usize::try_from(steps).unwrap_or(usize::MAX),
            seen: VecDeque::new(),
        }
    }

    /// How long to wait between two compactions.
    fn interval(&self, period: Duration) -> Duration {
        period.min(HOUR)
    }

    /// Notes the present revision; the one of a period ago, once there is one.
    fn note(&mut self, revision: i64) -> Option<i64> {
        self.seen.push_back(revision);
        while self.seen.len() > self.steps_kept + 1 {
            self.seen.pop_front();
        }
        let full = self.seen.len() > self.steps_kept;
        full.then(|| self.seen.front().copied()).flatten()
    }
}

async fn run_periodic(replica: &Replica, period: Duration) {
    let mut periodic = Periodic::new(period);
    let interval = periodic.interval(period);
    let mut compacted_at: Option<Instant> = None;
    let mut last = 0;
    loop {
        let due = periodic.note(replica.view().revision);
        let rested = compacted_at.is_none_or(|at| at.elapsed() >= interval);
        if let Some(revision) = due
            && rested
            && revision != last
            && replica.leads()
        {
            tracing::info!(revision, ?period, "starting auto periodic compaction");
            if compact(replica, revision).await {
                last = revision;
                compacted_at = Some(Instant::now());
            }
        }
        tokio::time::sleep(periodic.step).await;
    }
}

async fn run_revision(replica: &Replica, kept: i64) {
    let mut last = 0;
    loop {
        tokio::time::sleep(REVISION_INTERVAL).await;
        let revision = replica.view().revision.saturating_sub(kept);
        if revision <= 0 || revision == last || !replica.leads() {
            continue;
        }
        tracing::info!(revision, kept, "starting auto revision compaction");
        if compact(replica, revision).await {
            last = revision;
        }
    }
}

async fn compact(replica: &Replica, revision: i64) -> bool {
    let request = CompactionRequest {
        revision,
        physical: false,
    };
    let command = Command {
        kind: Some(command::Kind::Compaction(request)),
    };
    match replica.propose_as_leader(command).await {
        Ok(_) | Err(Refusal::Compacted) => true,
        Err(refusal) => {
            tracing::warn!(revision, %refusal, "failed auto compaction");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_compacts_what_was_current_one_period_ago() {
        let mut periodic = Periodic::new(Duration::from_secs(600));
        assert_eq!(periodic.step, Duration::from_secs(60));
        for revision in 1..=10 {
            assert_eq!(periodic.note(revision), None);
        }
        assert_eq!(periodic.note(11), Some(1));
        assert_eq!(periodic.note(12), Some(2));
    }

    #[test]
    fn a_long_period_is_looked_at_hourly_in_ten_steps() {
        let period = Duration::from_secs(5 * 3_600);
        let periodic = Periodic::new(period);
        assert_eq!(periodic.step, Duration::from_secs(360));
        assert_eq!(periodic.steps_kept, 50);
        assert_eq!(periodic.interval(period), HOUR);
    }
}
