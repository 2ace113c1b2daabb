//! How leadership moves on purpose, and how a member goes down in peace.

use std::time::Duration;

use super::Replica;
use crate::model::Refusal;
use crate::raft::applier::blocking;

impl Replica {
    /// Hands leadership to another voter and waits until it leads.
    ///
    /// etcd: server/etcdserver/server.go, `MoveLeader`.
    ///
    /// # Errors
    /// [`Refusal::NotLeader`] on another member, [`Refusal::BadLeaderTransferee`] for one that is
    /// no voter, [`Refusal::TimeoutLeaderTransfer`] when it does not take over.
    pub async fn move_leader(&self, target: u64) -> Result<(), Refusal> {
        if self.raft.leadership().leader != self.member_id() {
            return Err(Refusal::NotLeader);
        }
        if !self.raft.standing().voters.contains(&target) {
            return Err(Refusal::BadLeaderTransferee);
        }
        if target == self.member_id() {
            return Ok(());
        }
        let to = format!("{target:016x}");
        tracing::info!(to, "leadership transfer starting");
        let mut leadership = self.leadership.subscribe();
        let moved = async {
            // A transfer to a member that is not there would stop writes until another one wins.
            while !self.is_healthy(target) {
                tokio::time::sleep(self.config.raft.heartbeat_interval).await;
            }
            let sent = self.raft.transfer_leader(target).await;
            sent.map_err(|_| Refusal::Stopped)?;
            let moved = leadership.wait_for(|now| now.leader == target).await;
            moved.map(|_| ()).map_err(|_| Refusal::Stopped)
        };
        tokio::time::timeout(self.request_timeout(), moved)
            .await
            .unwrap_or(Err(Refusal::TimeoutLeaderTransfer))
    }

    pub(super) fn is_healthy(&self, member: u64) -> bool {
        let progress = self.raft.progress(member);
        let acked = progress.and_then(|progress| progress.acked_ago);
        acked.is_some_and(|ago| ago < self.config.raft.election_timeout)
    }

    /// The voter that is best fit to lead after this member.
    fn successor(&self) -> Option<u64> {
        let voters = self.raft.standing().voters;
        let others = voters.into_iter().filter(|id| *id != self.member_id());
        others
            .filter(|id| self.is_healthy(*id))
            .max_by_key(|id| self.raft.progress(*id).map(|progress| progress.matched))
    }

    /// Goes down in peace: hands leadership over, ends the tasks and raft, makes the state
    /// durable and lets go of the data directory. Callers that still wait are told.
    ///
    /// # Errors
    /// What went wrong on the way; the member is down all the same.
    pub async fn stop(&self) -> Result<(), String> {
        if self.leads()
            && let Some(successor) = self.successor()
        {
            let limit = 2 * self.config.raft.election_timeout;
            match tokio::time::timeout(limit, self.move_leader(successor)).await {
                Ok(Ok(())) => {}
                Ok(Err(refusal)) => tracing::warn!(%refusal, "leadership was not handed over"),
                Err(_) => tracing::warn!("leadership was not handed over in time"),
            }
        }
        self.halt().await?;
        let db = self.db();
        let flushed = blocking(move || db.flush()).await;
        flushed.map_err(|error| error.to_string())
    }

    /// Goes down at once: nothing is handed over and the state is not flushed, so that the next
    /// start replays the log, as after a crash.
    ///
    /// # Errors
    /// What went wrong on the way; the member is down all the same.
    pub async fn halt(&self) -> Result<(), String> {
        self.raft.closing().cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let ended = tokio::time::timeout(TASKS_END_TIMEOUT, async {
            while tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!("a task did not end in time");
        }
        let stopped = self.raft.shutdown().await;
        self.proposer.close();
        drop(self.data_directory.lock().take());
        stopped
    }
}

/// Tasks end at their next await; only disk work can hold one up.
const TASKS_END_TIMEOUT: Duration = Duration::from_secs(5);
