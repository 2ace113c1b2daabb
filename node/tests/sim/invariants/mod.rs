//! What must always hold, one file each, and the tasks that look while the run goes on.

pub mod applied_equal;
pub mod lease_once;
pub mod log_matching;
mod one_leader;
mod revision_monotonic;
mod watch_complete;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
pub use watch_complete::Watchers;

/// How often the members are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks at every member again and again.
pub struct Observer {
    task: JoinHandle<()>,
}

impl Observer {
    pub fn start(cluster: &Arc<Cluster>, end: CancellationToken) -> Self {
        let cluster = Arc::clone(cluster);
        let task = tokio::spawn(async move {
            let mut leaders = one_leader::Leaders::default();
            let mut revisions = revision_monotonic::Revisions::default();
            let mut hashes = applied_equal::Hashes::default();
            let mut pause = tokio::time::interval(LOOK_EVERY);
            while !end.is_cancelled() {
                for member in &cluster.members {
                    if let Some((life, replica)) = cluster.replica(*member) {
                        leaders.look(&replica);
                        let view = replica.view();
                        revisions.look(*member, life, &view);
                        hashes.look(*member, &view);
                    }
                }
                pause.tick().await;
            }
            leaders.finish();
            hashes.finish();
        });
        Self { task }
    }

    /// Waits for the last look.
    pub async fn finish(self) {
        if let Err(error) = self.task.await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
