//! Flushes the state when a replay would take too long, lets the log before it go, and removes
//! replaced states.

use std::sync::Arc;
use std::time::Duration;

use crate::replica::Replica;

/// How often replaced states are looked for: readers may hold on to them for a while.
const JANITOR_PERIOD: Duration = Duration::from_secs(10);

pub async fn run(replica: Arc<Replica>) {
    let raft = Arc::clone(replica.raft());
    let retention = raft.retention();
    let mut janitor = tokio::time::interval(JANITOR_PERIOD);
    janitor.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = retention.due() => {}
            _ = janitor.tick() => {
                if let Err(error) = raft.remove_retired_states().await {
                    tracing::warn!(%error, "a replaced state stays behind until the next start");
                }
                if let Some(index) = retention.purge_for_bytes()
                    && raft.purge(index).await.is_err()
                {
                    return;
                }
            }
        }
        // What was applied while a flush was at work may make the next one due, and nothing need
        // be applied afterwards that would tell.
        while retention.is_due() {
            if raft.flush_state().await.is_err() {
                return;
            }
        }
    }
}
