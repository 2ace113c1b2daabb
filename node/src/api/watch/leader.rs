//! Ends streams that require a leader when there has been none for too long.
//!
//! etcd: server/etcdserver/api/v3rpc/interceptor.go.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub(in crate::api) struct LeaderWatch {
    /// The leader's ID; 0 = none.
    leader: watch::Receiver<u64>,
    leaderless_since: Option<Instant>,
    patience: Duration,
}

impl LeaderWatch {
    pub(in crate::api) fn new(leader: watch::Receiver<u64>, patience: Duration) -> Self {
        Self {
            leader,
            leaderless_since: None,
            patience,
        }
    }

    pub(in crate::api) fn is_leaderless(&self) -> bool {
        *self.leader.borrow() == 0
    }

    /// Returns once there has been no leader for as long as patience lasts. May be dropped and
    /// called again: the time runs on.
    pub(in crate::api) async fn given_up(&mut self) {
        loop {
            let leader = *self.leader.borrow_and_update();
            let changed = if leader == 0 {
                let since = *self.leaderless_since.get_or_insert_with(Instant::now);
                tokio::select! {
                    changed = self.leader.changed() => changed,
                    () = tokio::time::sleep_until(since + self.patience) => return,
                }
            } else {
                self.leaderless_since = None;
                self.leader.changed().await
            };
            if changed.is_err() {
                // The node stops: the stream ends with it.
                std::future::pending::<()>().await;
            }
        }
    }
}
