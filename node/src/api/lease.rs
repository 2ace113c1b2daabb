//! The Lease service.
//!
//! etcd: server/etcdserver/api/v3rpc/lease.go, server/etcdserver/v3_server.go.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{Stream, stream};
use quorate_proto::etcdserverpb::lease_server::Lease;
use quorate_proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tonic::{Request, Response, Status, Streaming};

use super::header::Headers;
use super::kv::{blocking, unexpected};
use super::metadata::requires_leader;
use super::parse;
use super::status::{failure, status};
use crate::model::Refusal;
use crate::model::kv::{
    Command, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, Reply,
    command,
};
use crate::replica::Replica;

/// How many election timeouts without a leader end a stream that requires one.
const LEADERLESS_ELECTIONS_MAX: u32 = 3;

/// Leases as clients see them.
#[derive(Clone)]
pub struct LeaseService {
    replica: Arc<Replica>,
    headers: Headers,
    least_ttl_seconds: i64,
    election_timeout: Duration,
}

/// The answers of one keep-alive stream.
pub type KeepAlives = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

impl LeaseService {
    /// `heartbeat_ms` and `election_ms` decide the least TTL.
    pub fn new(replica: Arc<Replica>, heartbeat_ms: u64, election_ms: u64) -> Self {
        Self {
            headers: Headers::new(Arc::clone(&replica)),
            replica,
            least_ttl_seconds: parse::lease::least_ttl_seconds(heartbeat_ms, election_ms),
            election_timeout: Duration::from_millis(election_ms),
        }
    }

    /// Renews one lease; TTL 0 when it is unknown or expired.
    pub async fn keep_alive(&self, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
        // The header comes first, so that its revision is not above the one at which the lease
        // was alive.
        let header = self.headers.now();
        let ttl = self.replica.renew(id).await.map_err(status)?;
        Ok(LeaseKeepAliveResponse {
            header: Some(header),
            id,
            ttl,
        })
    }

    /// Ends once this member has had no leader for a while.
    async fn leaderless(replica: Arc<Replica>, patience: Duration) {
        let mut leader = replica.subscribe_leader();
        loop {
            if leader.wait_for(|leader| *leader == 0).await.is_err() {
                return;
            }
            let back = leader.wait_for(|leader| *leader != 0);
            if tokio::time::timeout(patience, back).await.is_err() {
                return;
            }
        }
    }
}

/// One keep-alive stream.
struct Session {
    service: LeaseService,
    requests: Streaming<LeaseKeepAliveRequest>,
    /// Ends when the stream must, for want of a leader.
    leaderless: BoxFuture<'static, ()>,
}

impl Session {
    async fn next(mut self) -> Result<Option<(LeaseKeepAliveResponse, Self)>, Status> {
        let request = tokio::select! {
            request = self.requests.message() => request?,
            () = &mut self.leaderless => return Err(status(Refusal::NoLeader)),
        };
        match request {
            Some(request) => {
                let answer = self.service.keep_alive(request.id).await?;
                Ok(Some((answer, self)))
            }
            None => Ok(None),
        }
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let request =
            parse::lease::grant(request.into_inner(), self.least_ttl_seconds).map_err(status)?;
        let command = Command {
            kind: Some(command::Kind::LeaseGrant(request)),
        };
        match self.replica.propose(command).await.map_err(status)? {
            Reply::LeaseGrant(mut reply) => {
                reply.header = self.headers.fill(reply.header);
                Ok(Response::new(reply))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let command = Command {
            kind: Some(command::Kind::LeaseRevoke(request.into_inner())),
        };
        match self.replica.propose(command).await.map_err(status)? {
            Reply::LeaseRevoke(mut reply) => {
                reply.header = self.headers.fill(reply.header);
                Ok(Response::new(reply))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        let leaderless: BoxFuture<'static, ()> = if requires_leader(request.metadata()) {
            let patience = self.election_timeout * LEADERLESS_ELECTIONS_MAX;
            Box::pin(Self::leaderless(Arc::clone(&self.replica), patience))
        } else {
            Box::pin(std::future::pending())
        };
        let session = Session {
            service: self.clone(),
            requests: request.into_inner(),
            leaderless,
        };
        let answers = stream::try_unfold(session, Session::next);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let id = request.id;
        // The deadline lives on the leader; what it was granted for must be as new as that.
        self.replica.barrier().await.map_err(status)?;
        let remaining = self.replica.lease_remaining(&[id]).await.map_err(status)?;
        let view = self.replica.view();
        let (lease, keys) = blocking(move || {
            let lease = view.lease(id)?;
            let keys = match lease {
                Some(_) if request.keys => view.lease_keys(id)?,
                Some(_) | None => Vec::new(),
            };
            Ok::<_, crate::storage::Error>((lease, keys))
        })
        .await?
        .map_err(|error| failure(&error))?;
        let known = lease.zip(remaining.first().copied().flatten());
        Ok(Response::new(match known {
            Some((lease, remaining)) => LeaseTimeToLiveResponse {
                header: Some(self.headers.now()),
                id,
                ttl: i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX),
                granted_ttl: lease.ttl_seconds,
                keys,
            },
            None => LeaseTimeToLiveResponse {
                header: Some(self.headers.now()),
                id,
                ttl: -1,
                ..Default::default()
            },
        }))
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let view = self.replica.view();
        let leases = blocking(move || view.leases())
            .await?
            .map_err(|error| failure(&error))?;
        let mut ids: Vec<i64> = leases.iter().map(|lease| lease.id).collect();
        // Soonest to expire first. Without a leader nobody knows; then the order says nothing,
        // as on a follower of etcd.
        if let Ok(remaining) = self.replica.lease_remaining(&ids).await {
            let mut by_deadline: Vec<(Option<Duration>, i64)> =
                remaining.into_iter().zip(ids).collect();
            by_deadline.sort_unstable();
            ids = by_deadline.into_iter().map(|(_, id)| id).collect();
        }
        Ok(Response::new(LeaseLeasesResponse {
            header: Some(self.headers.now()),
            leases: ids.into_iter().map(|id| LeaseStatus { id }).collect(),
        }))
    }
}
