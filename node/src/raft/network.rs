//! The sending side of raft: openraft's calls as messages over the [`Transport`].
//!
//! openraft bounds neither a pipelined append nor a snapshot in time, so each call here has a
//! limit of its own.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, future, stream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use quorate_proto::quorate::peer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::codec;
use super::send_snapshot::send_snapshot;
use super::snapshot::{Snapshot, SnapshotData};
use super::transport::{Answers, Call, Lane, PeerAddress, PeerError, Transport};
use super::types::{LogId, Node, TypeConfig, Vote};
use crate::model::limits::{APPENDS_IN_FLIGHT_MAX, PEER_STALL_MS};

type C = TypeConfig;
type BoxFuture<'s, T> = future::BoxFuture<'s, T>;
type AppendResults<'s> = BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>;

/// Makes the clients that openraft asks for. None of them connects before it is used.
pub struct Network {
    transport: Arc<dyn Transport>,
}

impl Network {
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }

    fn client(&self, target: u64, node: &Node, lane: Lane) -> PeerClient {
        PeerClient {
            transport: Arc::clone(&self.transport),
            to: PeerAddress {
                id: target,
                urls: node.addr.clone(),
            },
            lane,
            kept: Mutex::new(None),
        }
    }
}

impl RaftNetworkFactory<C> for Network {
    type Network = PeerClient;

    async fn new_client(&mut self, target: u64, node: &Node) -> PeerClient {
        self.client(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> PeerClient {
        self.client(target, node, Lane::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Node) -> PeerClient {
        self.client(target, node, Lane::Snapshot)
    }
}

/// One peer on one lane.
pub struct PeerClient {
    transport: Arc<dyn Transport>,
    to: PeerAddress,
    lane: Lane,
    /// A stream without anything in flight, for the next single request: heartbeats come often.
    /// The mutex is for openraft, which wants to share what only one task uses.
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    requests: mpsc::Sender<peer::AppendRequest>,
    answers: Answers<peer::AppendResponse>,
}

/// openraft waits before it calls an unreachable peer again; it calls at once after other errors.
fn rpc_error(error: &PeerError) -> RPCError<C> {
    match error {
        PeerError::Timeout { .. } => RPCError::Network(NetworkError::new(error)),
        PeerError::Unreachable { .. } | PeerError::Refused { .. } => {
            RPCError::Unreachable(Unreachable::new(error))
        }
    }
}

fn append_to_wire(request: AppendEntriesRequest<C>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(codec::vote_to_wire(&request.vote)),
        previous: request.prev_log_id.as_ref().map(codec::log_id_to_wire),
        committed: request.leader_commit.as_ref().map(codec::log_id_to_wire),
        entries: request.entries.iter().map(codec::entry_to_wire).collect(),
    }
}

/// A request that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct Sent {
    previous: Option<LogId>,
    last: Option<LogId>,
    at: Instant,
}

impl Sent {
    fn of(request: &AppendEntriesRequest<C>) -> Self {
        let last = request.entries.last().map(|entry| entry.log_id);
        Self {
            previous: request.prev_log_id,
            last: last.or(request.prev_log_id),
            at: Instant::now(),
        }
    }

    fn outcome(self, answer: peer::AppendResponse) -> Result<StreamAppendResult<C>, PeerError> {
        use peer::append_response::Outcome;
        let malformed = || PeerError::Refused {
            member: 0,
            reason: "an append was answered with nothing".into(),
        };
        Ok(match answer.outcome.ok_or_else(malformed)? {
            Outcome::Success(_) => Ok(self.last),
            Outcome::PartialSuccess(id) => Ok(Some(codec::log_id_from_wire(&id))),
            // Nothing before the first entry conflicts.
            Outcome::Conflict(_) => {
                let previous = self.previous.ok_or_else(malformed)?;
                Err(StreamAppendError::Conflict(previous))
            }
            Outcome::HigherVote(vote) => {
                Err(StreamAppendError::HigherVote(codec::vote_from_wire(&vote)))
            }
        })
    }
}

/// What one pipelined append keeps between the sending and the answering half.
struct Pipeline {
    member: u64,
    in_flight: Arc<Mutex<VecDeque<Sent>>>,
    answers: Answers<peer::AppendResponse>,
    ended: bool,
}

impl Pipeline {
    /// The next answer, or an error when none comes for too long while one is due.
    async fn next(&mut self) -> Option<Result<peer::AppendResponse, PeerError>> {
        let stall = Duration::from_millis(PEER_STALL_MS);
        loop {
            match tokio::time::timeout(stall, self.answers.next()).await {
                Ok(answer) => return answer,
                Err(_) => {
                    let oldest = self.in_flight.lock().front().map(|sent| sent.at);
                    if oldest.is_some_and(|at| at.elapsed() >= stall) {
                        return Some(Err(PeerError::Timeout {
                            member: self.member,
                            timeout_ms: PEER_STALL_MS,
                        }));
                    }
                }
            }
        }
    }

    async fn result(&mut self) -> Option<Result<StreamAppendResult<C>, RPCError<C>>> {
        if self.ended {
            return None;
        }
        let result = match self.next().await? {
            Err(error) => Err(error),
            Ok(answer) => {
                let sent = self.in_flight.lock().pop_front();
                let unasked = || PeerError::Refused {
                    member: self.member,
                    reason: "an answer to nothing".into(),
                };
                sent.ok_or_else(unasked)
                    .and_then(|sent| sent.outcome(answer))
            }
        };
        // openraft ends a stream at the first answer that is not a success.
        self.ended = !matches!(result, Ok(Ok(_)));
        Some(result.map_err(|error| rpc_error(&error)))
    }
}

impl PeerClient {
    /// Many requests in flight; one call for as long as this member leads.
    fn pipelined<'s, S>(
        &self,
        input: S,
        option: &RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        let in_flight = Arc::new(Mutex::new(VecDeque::with_capacity(APPENDS_IN_FLIGHT_MAX)));
        let sent = Arc::clone(&in_flight);
        let requests = input.map(move |request| {
            sent.lock().push_back(Sent::of(&request));
            append_to_wire(request)
        });
        let call = self.transport.append(&self.to, self.lane, requests.boxed());
        let (member, limit) = (self.to.id, connect_limit(option));
        async move {
            let answers = bounded(member, limit, call).await;
            let pipeline = Pipeline {
                member,
                in_flight,
                answers: answers.map_err(|error| rpc_error(&error))?,
                ended: false,
            };
            let results = stream::unfold(pipeline, |mut pipeline| async move {
                let result = pipeline.result().await?;
                Some((result, pipeline))
            });
            Ok(results.boxed())
        }
        .boxed()
    }

    /// One request over the kept stream. When this is dropped before its answer came, the stream
    /// goes with it: a late answer must not be taken for that of the next request.
    async fn single(
        &self,
        request: AppendEntriesRequest<C>,
        limit: Duration,
    ) -> Result<StreamAppendResult<C>, PeerError> {
        let member = self.to.id;
        let call = async {
            let kept = self.kept.lock().take();
            let mut kept = match kept {
                Some(kept) => kept,
                None => self.open().await?,
            };
            let sent = Sent::of(&request);
            let closed = || PeerError::Unreachable {
                member,
                reason: "the stream ended".into(),
            };
            let request = append_to_wire(request);
            kept.requests.send(request).await.map_err(|_| closed())?;
            let answer = kept.answers.next().await.ok_or_else(closed)??;
            *self.kept.lock() = Some(kept);
            sent.outcome(answer)
        };
        bounded(member, limit, call.boxed()).await
    }

    async fn open(&self) -> Result<Kept, PeerError> {
        let (requests, queue) = mpsc::channel(1);
        let queue = ReceiverStream::new(queue).boxed();
        let answers = self.transport.append(&self.to, self.lane, queue).await?;
        Ok(Kept { requests, answers })
    }
}

/// Ends a call that takes longer than `limit`.
async fn bounded<T>(
    member: u64,
    limit: Duration,
    call: BoxFuture<'_, Result<T, PeerError>>,
) -> Result<T, PeerError> {
    let timeout = |_| PeerError::Timeout {
        member,
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    };
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|elapsed| Err(timeout(elapsed)))
}

/// openraft's limit is one heartbeat; a connection may take a little longer to be made.
fn connect_limit(option: &RPCOption) -> Duration {
    option.hard_ttl().max(Duration::from_millis(1_000))
}

async fn vote(
    call: Call<peer::VoteResponse>,
    member: u64,
    option: RPCOption,
) -> Result<VoteResponse<C>, RPCError<C>> {
    let answer = bounded(member, option.soft_ttl(), call).await;
    let answer = answer.map_err(|error| rpc_error(&error))?;
    let vote = answer.vote.unwrap_or_default();
    Ok(VoteResponse::new(
        codec::vote_from_wire(&vote),
        answer.last_log_id.as_ref().map(codec::log_id_from_wire),
        answer.granted,
    ))
}

fn vote_to_wire(request: &VoteRequest<C>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(codec::vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(codec::log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

impl RaftNetworkV2<C> for PeerClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let result = self.single(request, option.hard_ttl()).await;
        let result = result.map_err(|error| rpc_error(&error))?;
        Ok(AppendEntriesResponse::from(result))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendResults<'s>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        if self.lane == Lane::Append {
            return self.pipelined(input, &option);
        }
        let limit = option.hard_ttl();
        async move {
            let state = (self, input);
            let results = stream::unfold(state, move |(client, mut input)| async move {
                let request = input.next().await?;
                let result = client.single(request, limit).await;
                let result = result.map_err(|error| rpc_error(&error));
                Some((result, (client, input)))
            });
            Ok(results.boxed())
        }
        .boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let call = self.transport.vote(&self.to, vote_to_wire(&request));
        vote(call, self.to.id, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let call = self.transport.pre_vote(&self.to, vote_to_wire(&request));
        vote(call, self.to.id, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let limit = option.hard_ttl();
        send_snapshot(&self.transport, &self.to, vote, snapshot, cancel, limit).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let wire = peer::TransferLeaderRequest {
            from: Some(codec::vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().map(codec::log_id_to_wire),
        };
        let call = self.transport.transfer_leader(&self.to, wire);
        let answer = bounded(self.to.id, option.soft_ttl(), call).await;
        let answer = answer.map_err(|error| rpc_error(&error))?;
        if answer.refusal.is_empty() {
            return Ok(Ok(()));
        }
        let refused = PeerError::Refused {
            member: self.to.id,
            reason: answer.refusal,
        };
        Err(RPCError::Network(NetworkError::new(&refused)))
    }
}
