//! The Election service.
//!
//! etcd: server/etcdserver/api/v3election/election.go, client/v3/concurrency/election.go.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use prost::Message;
use quorate_proto::v3electionpb::election_server::Election;
use quorate_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use tonic::{Request, Response, Status};

use super::contend::{self, Abandon, Contest};
use super::metadata::requires_leader;
use super::status::status;
use super::watch::LeaderWatch;
use crate::model::kv::{KeyValue, TxnRequest};
use crate::model::{EventKind, KeyRange, Refusal};
use crate::replica::Replica;
use crate::watch::{Body, Delivery, WatchSpec, WatchStream};

const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";
const MISSING_LEADER_KEY: &str = "\"leader\" field must be provided";

/// Serves elections; all of their state is keys.
#[derive(Clone)]
pub struct ElectionService {
    contest: Contest,
    election_timeout: Duration,
}

impl ElectionService {
    /// `election_timeout` is raft's: an observer that requires a raft leader ends after three
    /// without one.
    pub fn new(replica: Arc<Replica>, election_timeout: Duration) -> Self {
        Self {
            contest: Contest::new(replica),
            election_timeout,
        }
    }

    /// Stands for election and waits for its turn. Returns the candidate's key and the revision
    /// for the header, which is that of its entry, as in etcd.
    async fn stand(&self, request: CampaignRequest) -> Result<(LeaderKey, i64), Status> {
        let CampaignRequest { name, lease, value } = request;
        let lease = self.contest.lease(lease).await?;
        let prefix = contend::prefix(&name);
        let key = contend::key(&prefix, lease);
        let entered = self
            .contest
            .txn(TxnRequest {
                compare: vec![contend::created_at(key.clone(), 0)],
                success: vec![contend::put(key.clone(), value.clone(), lease)],
                failure: vec![contend::get(contend::get_key(key.clone()))],
            })
            .await?;
        let standing = entered.found(0);
        let created = standing.map_or(entered.revision(), |own| own.create_revision);
        let candidate = LeaderKey {
            name,
            key: key.clone(),
            rev: created,
            lease,
        };
        let abandon = Abandon::new(&self.contest, key.clone(), created);
        if standing.is_some_and(|own| own.value != value) {
            self.proclaim_value(&candidate, lease, value).await?;
        }
        if let Err(error) = self.contest.wait_for_older(&prefix, created).await {
            // Only a caller that has gone away loses its place; this one may campaign again.
            abandon.disarm();
            return Err(error);
        }
        // etcd does not look whether the candidate's own lease has ended while it waited, and
        // would tell it that it leads.
        let own = self.contest.range(contend::get_key(key)).await?;
        let standing = own.kvs.first();
        if standing.is_none_or(|own| own.create_revision != created) {
            return Err(Status::unknown(NOT_LEADER));
        }
        abandon.disarm();
        Ok((candidate, entered.revision()))
    }

    /// Puts a new value to the leader's key, if it is still the same one.
    async fn proclaim_value(
        &self,
        leader: &LeaderKey,
        lease: i64,
        value: Bytes,
    ) -> Result<i64, Status> {
        let key = &leader.key;
        let outcome = self
            .contest
            .txn(TxnRequest {
                compare: vec![contend::created_at(key.clone(), leader.rev)],
                success: vec![contend::put(key.clone(), value, lease)],
                failure: Vec::new(),
            })
            .await?;
        if !outcome.succeeded() {
            return Err(Status::unknown(NOT_LEADER));
        }
        Ok(outcome.revision())
    }
}

fn leader_key(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    let leader = leader.ok_or_else(|| Status::unknown(MISSING_LEADER_KEY))?;
    if leader.key.is_empty() {
        return Err(contend::unknown(&Refusal::EmptyKey));
    }
    Ok(leader)
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (leader, revision) = self.stand(request.into_inner()).await?;
        Ok(Response::new(CampaignResponse {
            header: Some(self.contest.headers.at(revision)),
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader_key(leader)?;
        let lease = self.contest.lease(leader.lease).await?;
        let revision = self.proclaim_value(&leader, lease, value).await?;
        Ok(Response::new(ProclaimResponse {
            header: Some(self.contest.headers.at(revision)),
        }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let prefix = contend::prefix(&request.into_inner().name);
        let (first, revision) = self.contest.first(&prefix).await?;
        let leader = first.ok_or_else(|| Status::unknown(NO_LEADER))?;
        Ok(Response::new(LeaderResponse {
            header: Some(self.contest.headers.at(revision)),
            kv: Some(leader),
        }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let raft_leader = requires_leader(request.metadata()).then(|| {
            let receiver = self.contest.replica.subscribe_leader();
            LeaderWatch::new(receiver, self.election_timeout * 3)
        });
        let observer = Observer {
            contest: self.contest.clone(),
            prefix: contend::prefix(&request.into_inner().name),
            seen: VecDeque::new(),
            watching: None,
        };
        let observers = futures::stream::unfold(Some((observer, raft_leader)), |state| async {
            let (mut observer, mut raft_leader) = state?;
            let leaderless = async {
                match &mut raft_leader {
                    Some(leader) => leader.given_up().await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                next = observer.next() => next,
                () = leaderless => Err(status(Refusal::NoLeader)),
            };
            Some(match next {
                Ok(response) => (Ok(response), Some((observer, raft_leader))),
                Err(status) => (Err(status), None),
            })
        });
        Ok(Response::new(Box::pin(observers)))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let leader = leader_key(request.into_inner().leader)?;
        let outcome = self
            .contest
            .txn(contend::resign(leader.key, leader.rev))
            .await?;
        Ok(Response::new(ResignResponse {
            header: Some(self.contest.headers.at(outcome.revision())),
        }))
    }
}

/// Follows who leads: not every proclamation of the past, but always the newest.
struct Observer {
    contest: Contest,
    prefix: Bytes,
    seen: VecDeque<LeaderResponse>,
    /// Follows the key of the present leader.
    watching: Option<WatchStream>,
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        loop {
            if let Some(response) = self.seen.pop_front() {
                return Ok(response);
            }
            match &mut self.watching {
                None => self.find_leader().await?,
                Some(stream) => {
                    let delivery = next_delivery(stream).await?;
                    if !self.follow(delivery)? {
                        self.watching = None;
                    }
                }
            }
        }
    }

    /// Waits for a leader and starts to follow its key.
    async fn find_leader(&mut self) -> Result<(), Status> {
        let (first, read_at) = self.contest.first(&self.prefix).await?;
        let (leader, revision) = match first {
            Some(leader) => (leader, read_at),
            None => match self.first_put(read_at).await? {
                Some(leader) => {
                    let revision = leader.mod_revision;
                    (leader, revision)
                }
                None => return Ok(()),
            },
        };
        let range = KeyRange::One(leader.key.clone());
        self.watching = Some(self.watch(range, revision + 1)?);
        self.say(leader, revision);
        Ok(())
    }

    /// The first candidate from revision `from` on; none if a compaction hides it.
    async fn first_put(&self, from: i64) -> Result<Option<KeyValue>, Status> {
        let range = KeyRange::new(&self.prefix, &contend::prefix_end(&self.prefix));
        let mut stream = self.watch(range, from)?;
        loop {
            match next_delivery(&mut stream).await?.body {
                Body::Events { events, .. } => {
                    let put = events
                        .iter()
                        .find(|event| event.event().kind == EventKind::Put);
                    if let Some(put) = put {
                        return Ok(Some(record(&put.event().kv)?));
                    }
                }
                Body::Progress => {}
                Body::Compacted(_) => return Ok(None),
            }
        }
    }

    fn watch(&self, range: KeyRange, from: i64) -> Result<WatchStream, Status> {
        let mut stream = self.contest.replica.hub().subscribe();
        let created = stream.create(WatchSpec::new(range, from));
        created.map_err(|error| contend::unknown(&error))?;
        Ok(stream)
    }

    /// Notes what the leader proclaimed. Returns whether it still leads.
    fn follow(&mut self, delivery: Delivery) -> Result<bool, Status> {
        let Body::Events { events, .. } = delivery.body else {
            return Ok(matches!(delivery.body, Body::Progress));
        };
        for event in &events {
            if event.event().kind == EventKind::Delete {
                return Ok(false);
            }
            self.say(record(&event.event().kv)?, delivery.revision);
        }
        Ok(true)
    }

    fn say(&mut self, leader: KeyValue, revision: i64) {
        self.seen.push_back(LeaderResponse {
            header: Some(self.contest.headers.at(revision)),
            kv: Some(leader),
        });
    }
}

async fn next_delivery(stream: &mut WatchStream) -> Result<Delivery, Status> {
    stream
        .next()
        .await
        .map_err(|error| contend::unknown(&error))
}

fn record(bytes: &Bytes) -> Result<KeyValue, Status> {
    KeyValue::decode(bytes.clone()).map_err(|error| contend::unknown(&error))
}
