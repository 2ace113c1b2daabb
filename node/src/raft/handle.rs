//! The one handle on raft for the floors above: plain values in and out, nothing of openraft.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant as _, Raft, RaftMetrics, ReadPolicy, ServerState};
use tokio_util::sync::CancellationToken;

use super::applier::{Applier, Published, blocking, position};
use super::retention::Retention;
use super::state::StateDirectory;
use super::transport::{PeerAddress, Transport};
use super::types::{Batch, Done, TypeConfig};
use crate::machine::Position;
use crate::storage::Error;
use crate::storage::log::Log;

/// How a write to the log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteEnd {
    Applied,
    /// It never entered the log.
    NotProposed,
    /// It entered the log of a leader that lost its office: it may still be applied.
    Unknown,
}

/// Why there is no read index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReadIndex {
    NotLeader,
    /// The other members do not confirm that this one leads.
    NoQuorum,
    Stopped,
}

/// Raft has stopped, in peace or by an error that was told elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("raft has stopped")]
pub struct Stopped;

/// Who leads, as far as raft knows: a leader that lost touch still counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// 0 when there is none.
    pub leader: u64,
    pub term: u64,
}

/// Numbers of one moment.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    pub term: u64,
    pub committed: u64,
    pub applied: u64,
    pub is_leader: bool,
    pub is_learner: bool,
    pub last_log_index: u64,
    pub snapshot_index: u64,
    pub purged_index: u64,
    pub voters: BTreeSet<u64>,
}

/// What a leader knows of another member.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeerProgress {
    pub matched: u64,
    /// How long ago it last answered.
    pub acked_ago: Option<Duration>,
}

/// How long a flush may leave no trace before it is asked for again.
const FLUSH_RETRY: Duration = Duration::from_secs(10);

type WriteResult = ClientWriteResult<TypeConfig>;

/// See the module.
pub struct RaftHandle {
    pub(super) raft: Raft<TypeConfig, Applier>,
    log: Arc<Log>,
    pub(super) directory: StateDirectory,
    pub(super) published: Arc<Published>,
    pub(super) member_id: u64,
    /// One snapshot at a time is received.
    pub(super) receiving: tokio::sync::Mutex<()>,
    transport: Arc<dyn Transport>,
    /// Cancelled when this member goes down: the streams of peers end.
    closing: CancellationToken,
    pub(super) metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    /// A leader that a majority has not answered for so long does not count as one.
    lease: Duration,
    epoch: Instant,
    /// When the leader was last heard, in milliseconds since `epoch`; 0 for never.
    heard_ms: AtomicU64,
}

impl RaftHandle {
    pub(super) fn new(
        raft: Raft<TypeConfig, Applier>,
        log: Arc<Log>,
        directory: StateDirectory,
        published: Arc<Published>,
        transport: Arc<dyn Transport>,
        lease: Duration,
    ) -> Self {
        Self {
            member_id: *raft.node_id(),
            metrics: raft.metrics(),
            raft,
            log,
            directory,
            published,
            receiving: tokio::sync::Mutex::new(()),
            transport,
            closing: CancellationToken::new(),
            lease,
            epoch: Instant::now(),
            heard_ms: AtomicU64::new(0),
        }
    }

    pub fn member_id(&self) -> u64 {
        self.member_id
    }

    pub fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Cancelled when this member goes down.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Hands one entry to raft. `done` is called once, from whoever learns the end; it must not
    /// block. When this is dropped before it returns, nothing was proposed and `done` is not
    /// called.
    pub async fn write(
        &self,
        batch: Bytes,
        done: impl FnOnce(WriteEnd) + Send + 'static,
    ) -> Result<(), Stopped> {
        let done = Done(Box::new(move |result: WriteResult| {
            done(match result {
                Ok(_) => WriteEnd::Applied,
                Err(ClientWriteError::ForwardToLeader(_)) => WriteEnd::NotProposed,
                Err(ClientWriteError::LogEntryDiscarded(_)) => WriteEnd::Unknown,
                Err(
                    ClientWriteError::ChangeMembershipError(_)
                    | ClientWriteError::PreconditionFailed(_),
                ) => WriteEnd::NotProposed,
            });
        }));
        let sent = self.raft.client_write_ff(Batch(batch), Some(done)).await;
        sent.map_err(|_| Stopped)
    }

    /// The position that a read must have seen: everything that was committed when this was
    /// called, confirmed by a majority that answered after it.
    pub async fn read_index(&self) -> Result<Position, NoReadIndex> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(position(Some(*linearizer.read_log_id().log_id()))),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(NoReadIndex::NotLeader)
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(NoReadIndex::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(NoReadIndex::Stopped),
        }
    }

    /// Follows who leads.
    pub fn watch_leadership(&self) -> LeadershipWatch {
        LeadershipWatch {
            metrics: self.raft.server_metrics(),
        }
    }

    pub fn leadership(&self) -> Leadership {
        let metrics = self.metrics.borrow_watched();
        Leadership {
            leader: metrics.current_leader.unwrap_or(0),
            term: metrics.current_term,
        }
    }

    /// The leader that can do its work as far as this member sees; 0 for none. A leader that
    /// hears no majority is none, nor is one that was not heard within an election timeout.
    pub fn working_leader(&self) -> u64 {
        let metrics = self.metrics.borrow_watched();
        let Some(leader) = metrics.current_leader else {
            return 0;
        };
        let works = if leader == self.member_id {
            let voters = metrics.membership_config.membership().voter_ids();
            let alone = voters.eq([self.member_id]);
            let acked = metrics.last_quorum_acked;
            alone || acked.is_some_and(|acked| acked.elapsed() < self.lease)
        } else {
            self.heard_ago().is_some_and(|ago| ago < self.lease)
        };
        if works { leader } else { 0 }
    }

    /// How long ago the leader's last message came; none before the first.
    pub fn heard_ago(&self) -> Option<Duration> {
        let heard = self.heard_ms.load(Ordering::Relaxed);
        let at = Duration::from_millis(heard);
        (heard > 0).then(|| self.epoch.elapsed().saturating_sub(at))
    }

    pub(super) fn heard(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now.max(1), Ordering::Relaxed);
    }

    /// How long ago a majority last confirmed this leader; none on other members.
    pub fn quorum_acked_ago(&self) -> Option<Duration> {
        let metrics = self.metrics.borrow_watched();
        metrics.last_quorum_acked.map(|acked| acked.elapsed())
    }

    /// Why raft has ended by itself, if it has.
    pub fn failure(&self) -> Option<String> {
        let metrics = self.metrics.borrow_watched();
        metrics
            .running_state
            .as_ref()
            .err()
            .map(ToString::to_string)
    }

    /// Whether this member was added as a learner and is one still.
    pub fn is_learner(&self) -> bool {
        let metrics = self.metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let node = membership.get_node(&self.member_id);
        node.is_some_and(|node| node.is_learner)
    }

    /// Whether raft's membership names `member` at present.
    pub fn is_member(&self, member: u64) -> bool {
        let metrics = self.metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership.get_node(&member).is_some()
    }

    /// Cancelled when this member has learned that it was removed from the cluster for good.
    pub fn removed(&self) -> &CancellationToken {
        &self.published.removed
    }

    pub fn standing(&self) -> Standing {
        let is_learner = self.is_learner();
        let metrics = self.metrics.borrow_watched();
        let index = |id: Option<super::types::LogId>| id.map_or(0, |id| id.index());
        let membership = metrics.membership_config.membership();
        Standing {
            term: metrics.current_term,
            committed: index(metrics.local_committed),
            applied: index(metrics.last_applied),
            is_leader: metrics.state == ServerState::Leader,
            is_learner,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            snapshot_index: index(metrics.snapshot),
            purged_index: index(metrics.purged),
            voters: membership.voter_ids().collect(),
        }
    }

    /// How far another member is, as this leader knows; none when this is no leader or the
    /// member is unknown.
    pub fn progress(&self, member: u64) -> Option<PeerProgress> {
        let metrics = self.metrics.borrow_watched();
        let matched = metrics.replication.as_ref()?.get(&member)?;
        let acked = metrics
            .heartbeat
            .as_ref()
            .and_then(|acks| acks.get(&member));
        Some(PeerProgress {
            matched: matched.map_or(0, |id| id.index()),
            acked_ago: acked.copied().flatten().map(|at| at.elapsed()),
        })
    }

    /// The other members, and where they listen.
    pub fn peers(&self) -> Vec<PeerAddress> {
        let metrics = self.metrics.borrow_watched();
        let nodes = metrics.membership_config.membership().nodes();
        let others = nodes.filter(|(id, _)| **id != self.member_id);
        let address = |(id, node): (&u64, &super::types::Node)| PeerAddress {
            id: *id,
            urls: node.addr.clone(),
        };
        others.map(address).collect()
    }

    /// Where another member listens for its peers.
    pub fn peer(&self, member: u64) -> Option<PeerAddress> {
        let metrics = self.metrics.borrow_watched();
        let node = metrics.membership_config.membership().get_node(&member)?;
        Some(PeerAddress {
            id: member,
            urls: node.addr.clone(),
        })
    }

    /// Asks raft to hand leadership to `member`; watch [`RaftHandle::leadership`] for the outcome.
    pub async fn transfer_leader(&self, member: u64) -> Result<(), Stopped> {
        let sent = self.raft.trigger().transfer_leader(member).await;
        sent.map_err(|_| Stopped)
    }

    /// Makes the state durable and lets the log before it go, but for what is kept for members
    /// that catch up. Returns when a flush has ended: openraft drops a request that comes while
    /// one is at work, so that who asks must look afterwards whether another one is due.
    pub async fn flush_state(&self) -> Result<(), Stopped> {
        let mut metrics = self.metrics.clone();
        let before = metrics.borrow_watched().snapshot;
        let asked = self.raft.trigger().snapshot().await;
        asked.map_err(|_| Stopped)?;
        let flushed = async {
            while metrics.borrow_watched().snapshot == before {
                metrics.changed().await.map_err(|_| Stopped)?;
            }
            Ok(())
        };
        // A flush of a state that was replaced meanwhile ends without a trace.
        let limit = tokio::time::timeout(FLUSH_RETRY, flushed);
        limit.await.unwrap_or(Ok(()))
    }

    /// Lets the log go up to `index`, as far as the state is durable.
    pub async fn purge(&self, index: u64) -> Result<(), Stopped> {
        self.raft
            .trigger()
            .purge_log(index)
            .await
            .map_err(|_| Stopped)
    }

    pub fn retention(&self) -> &Retention {
        &self.published.retention
    }

    /// Removes the folders of replaced states that nobody reads any longer.
    pub async fn remove_retired_states(&self) -> Result<(), Error> {
        let directory = self.directory.clone();
        blocking(move || directory.remove_retired()).await
    }

    /// Stops raft and closes its log; nothing is proposed or applied afterwards.
    pub async fn shutdown(&self) -> Result<(), String> {
        self.closing.cancel();
        let stopped = self.raft.shutdown().await;
        let log = Arc::clone(&self.log);
        let closed = blocking(move || log.close()).await;
        stopped.map_err(|error| error.to_string())?;
        closed.map_err(|error| error.to_string())
    }
}

/// See [`RaftHandle::watch_leadership`].
pub struct LeadershipWatch {
    metrics: WatchReceiverOf<TypeConfig, openraft::metrics::RaftServerMetrics<TypeConfig>>,
}

impl LeadershipWatch {
    pub fn current(&self) -> Leadership {
        let metrics = self.metrics.borrow_watched();
        Leadership {
            leader: metrics.current_leader.unwrap_or(0),
            term: metrics.vote.leader_id().term,
        }
    }

    pub async fn changed(&mut self) -> Result<(), Stopped> {
        self.metrics.changed().await.map_err(|_| Stopped)
    }
}
