//! Waits until a physical compaction has deleted what it superseded.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use super::status::failure;
use crate::replica::Replica;

/// How often to look. Deleting pauses as long between its slices.
const POLL: Duration = Duration::from_millis(10);

/// Returns once this member has deleted everything that a compaction at `revision` superseded.
pub async fn finished(replica: &Arc<Replica>, revision: i64) -> Result<(), Status> {
    loop {
        // The view anew each time: a snapshot from the leader replaces the store.
        let view = replica.view();
        let scrubbed = view.db().scrubbed().map_err(|error| failure(&error))?;
        if scrubbed.main >= revision {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}
