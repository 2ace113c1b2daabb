//! Deletes what compactions superseded, in slices with pauses, beside readers and writers.
//!
//! etcd: server/storage/mvcc/kvstore_compaction.go.

use std::sync::Arc;
use std::time::Instant;

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
        let records_max = replica.config().compaction_slice_records;
        match blocking(move || scrub_slice(&db, records_max)).await {
            Ok(ScrubProgress::More { deleted }) => {
                total += deleted;
                tokio::time::sleep(replica.config().compaction_pause).await;
            }
            Ok(ScrubProgress::Finished { deleted, compacted }) => {
                total += deleted;
                finished = Some(compacted);
                if compacted > 0 && total > 0 {
                    let took = started.elapsed();
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
