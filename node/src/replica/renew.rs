//! Lease renewals and remaining times. They live on the leader and never enter the log; a
//! follower asks on behalf of its clients, many leases in one message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_proto::quorate::peer::{LeaseRenewRequest, LeaseTimesRequest};
use tokio::sync::{mpsc, oneshot};

use super::Replica;
use crate::machine::Position;
use crate::model::Refusal;
use crate::model::limits::{LEASES_PER_MESSAGE_MAX, PROPOSAL_PAUSE_MS, PROPOSALS_PENDING_MAX};

/// One renewal on its way to the leader; the answer is none when it did not get there.
type Renewal = (i64, oneshot::Sender<Option<i64>>);

/// Renewals that a follower has collected.
pub struct RenewalsQueue(mpsc::Receiver<Renewal>);

/// Where a follower's renewals go.
pub struct Renewals(mpsc::Sender<Renewal>);

impl Renewals {
    pub fn new() -> (Self, RenewalsQueue) {
        let (sender, receiver) = mpsc::channel(PROPOSALS_PENDING_MAX);
        (Self(sender), RenewalsQueue(receiver))
    }
}

impl Replica {
    /// Renews a lease on the leader; the granted TTL in seconds, 0 if unknown or expired.
    ///
    /// etcd: server/etcdserver/v3_server.go, `LeaseRenew`. A renewal is harmless when repeated,
    /// so it is tried until the leader answers or the time is over.
    pub async fn renew(&self, lease: i64) -> Result<i64, Refusal> {
        let attempts = async {
            loop {
                if let Some(ttl) = self.renew_once(lease).await? {
                    return Ok(ttl);
                }
                tokio::time::sleep(Duration::from_millis(PROPOSAL_PAUSE_MS)).await;
            }
        };
        let limit = self.request_timeout();
        tokio::time::timeout(limit, attempts)
            .await
            .unwrap_or_else(|_| Err(self.no_answer()))
    }

    async fn renew_once(&self, lease: i64) -> Result<Option<i64>, Refusal> {
        let leader = self.raft.leadership().leader;
        if leader == 0 {
            return Ok(None);
        }
        if leader == self.member_id() {
            return self.renew_here(lease).await;
        }
        let (sender, answer) = oneshot::channel();
        match self.renewals.0.try_send((lease, sender)) {
            Ok(()) => Ok(answer.await.unwrap_or(None)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refusal::TooManyRequests),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::Stopped),
        }
    }

    /// Renews on this leader; none when it does not lead (any longer).
    async fn renew_here(&self, lease: i64) -> Result<Option<i64>, Refusal> {
        if !self.leads() {
            return Ok(None);
        }
        if !self.clock.knows(lease) {
            self.apply_committed().await?;
        }
        // A clock whose office ended meanwhile says so.
        let renewed = self.clock.renew(lease, Instant::now());
        let renewed = renewed.filter(|_| self.leads());
        if renewed.is_some() {
            self.tally().leases_renewed.add(1);
        }
        Ok(renewed)
    }

    /// A lease that is not known may still be on its way through the log.
    async fn apply_committed(&self) -> Result<(), Refusal> {
        let standing = self.raft.standing();
        let committed = Position {
            term: standing.term,
            index: standing.committed,
        };
        let deadline = Instant::now() + self.request_timeout();
        self.reads.applied(committed, deadline.into()).await
    }

    fn no_answer(&self) -> Refusal {
        if self.raft.leadership().leader == 0 {
            Refusal::NoLeader
        } else {
            Refusal::Timeout
        }
    }

    /// How long each lease still lives, asked of the leader; none if unknown or expired.
    pub async fn lease_remaining(&self, leases: &[i64]) -> Result<Vec<Option<Duration>>, Refusal> {
        let attempts = async {
            loop {
                if let Some(times) = self.times_once(leases).await? {
                    return Ok(times);
                }
                tokio::time::sleep(Duration::from_millis(PROPOSAL_PAUSE_MS)).await;
            }
        };
        let limit = self.request_timeout();
        tokio::time::timeout(limit, attempts)
            .await
            .unwrap_or_else(|_| Err(self.no_answer()))
    }

    async fn times_once(&self, leases: &[i64]) -> Result<Option<Vec<Option<Duration>>>, Refusal> {
        let leader = self.raft.leadership().leader;
        if leader == self.member_id() {
            return self.times_here(leases).await;
        }
        let Some(peer) = self.raft.peer(leader) else {
            return Ok(None);
        };
        let mut times = Vec::with_capacity(leases.len());
        for part in leases.chunks(LEASES_PER_MESSAGE_MAX) {
            let ids = part.to_vec();
            let request = LeaseTimesRequest { ids };
            match self.raft.transport().lease_times(&peer, request).await {
                Ok(answer) if answer.remaining_ms.len() == part.len() => {
                    let part = answer.remaining_ms.into_iter();
                    times.extend(part.map(|ms| u64::try_from(ms).ok().map(Duration::from_millis)));
                }
                Ok(_) => return Ok(None),
                Err(error) => {
                    tracing::debug!(%error, "no lease times from the leader");
                    return Ok(None);
                }
            }
        }
        Ok(Some(times))
    }

    pub(super) async fn times_here(
        &self,
        leases: &[i64],
    ) -> Result<Option<Vec<Option<Duration>>>, Refusal> {
        if !self.leads() {
            return Ok(None);
        }
        if !leases.iter().all(|lease| self.clock.knows(*lease)) {
            self.apply_committed().await?;
        }
        let now = Instant::now();
        let times = leases.iter().map(|id| self.clock.remaining(*id, now));
        Ok(times.collect())
    }

    /// Renews many leases on behalf of another member; none when this one does not lead.
    pub(super) async fn renew_many_here(&self, ids: &[i64]) -> Result<Option<Vec<i64>>, Refusal> {
        let mut ttls = Vec::with_capacity(ids.len());
        for id in ids {
            match self.renew_here(*id).await? {
                Some(ttl) => ttls.push(ttl),
                None => return Ok(None),
            }
        }
        Ok(Some(ttls))
    }

    /// Sends collected renewals to the leader, all that queued during one message in the next.
    pub(super) async fn forward_renewals(self: Arc<Self>, mut queue: RenewalsQueue) {
        let mut part = Vec::new();
        while queue.0.recv_many(&mut part, LEASES_PER_MESSAGE_MAX).await > 0 {
            let ids: Vec<i64> = part.iter().map(|(id, _)| *id).collect();
            let leader = self.raft.leadership().leader;
            let answer = match self.raft.peer(leader) {
                Some(peer) => {
                    let request = LeaseRenewRequest { ids };
                    let call = self.raft.transport().lease_renew(&peer, request);
                    let limit = self.config.raft.election_timeout;
                    tokio::time::timeout(limit, call).await.ok()
                }
                None => None,
            };
            let ttls = match answer {
                Some(Ok(answer)) if answer.ttl_seconds.len() == part.len() => answer.ttl_seconds,
                Some(Ok(_)) | None => Vec::new(),
                Some(Err(error)) => {
                    tracing::debug!(%error, "the leader renewed nothing");
                    Vec::new()
                }
            };
            let mut ttls = ttls.into_iter();
            for (_, sender) in part.drain(..) {
                if sender.send(ttls.next()).is_err() {
                    tracing::trace!("nobody waits for a renewal any more");
                }
            }
        }
    }
}
