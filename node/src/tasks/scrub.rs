//! Deletes what compactions superseded, in slices with pauses, beside readers and writers.
//!
//! etcd: server/storage/mvcc/kvstore_compaction.go.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::machine::compaction::{ScrubProgress, scrub_slice};
use crate::raft::applier::blocking;
use crate::replica::Replica;

pub async fn run(replica: Arc<Replica>) {
    let mut applied = replica.follow_applied();
    let mut finished = None;
    let (mut started, mut total) = (Instant::now(), 0);
    loop {
        let db = replica.db();
        let compacted = replica.view().compacted;
        if finished == Some(compacted) {
            if applied.changed().await.is_err() {
                return;
            }
            started = Instant::now();
            continue;
        }
        let slice_started = Instant::now();
        let records_max = replica.config().compaction_slice_records;
        match blocking(move || scrub_slice(&db, records_max)).await {
            Ok(ScrubProgress::More { deleted }) => {
                total += deleted;
                slice_done(&replica, slice_started, deleted);
                tokio::time::sleep(replica.config().compaction_pause).await;
            }
            Ok(ScrubProgress::Finished { deleted, compacted }) => {
                total += deleted;
                slice_done(&replica, slice_started, deleted);
                finished = Some(compacted);
                if compacted > 0 && total > 0 {
                    let took = started.elapsed();
                    let tally = replica.tally();
                    tally.compactions.observe(took);
                    let now = SystemTime::now().duration_since(UNIX_EPOCH);
                    tally.compacted_at.set(now.map_or(0, |now| now.as_secs()));
                    tracing::info!(compacted, ?took, total, "finished scheduled compaction");
                }
                total = 0;
            }
            Err(error) => {
                replica.fail("compaction", &error);
                return;
            }
        }
    }
}

/// Counts one slice of a compaction. One that deletes nothing looks for work, and is no slice.
fn slice_done(replica: &Replica, started: Instant, deleted: usize) {
    if deleted > 0 {
        let tally = replica.tally();
        tally.compaction_slices.observe(started.elapsed());
        tally.compacted_records.add(deleted as u64);
    }
}
