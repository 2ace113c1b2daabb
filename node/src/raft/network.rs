//! The sending side of raft: openraft's calls as messages over the [`Transport`].
//!
//! openraft bounds neither a pipelined append nor a snapshot in time, so each call here has a
//! limit of its own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt, future, stream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use quorate_proto::quorate::peer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::codec;
use super::membership::Addresses;
use super::pipeline::{AppendResults, Sent, pipelined};
use super::send_snapshot::{self, send_snapshot};
use super::snapshot::{Snapshot, SnapshotData};
use super::transport::{Answers, Call, Lane, PeerAddress, PeerError, Transport};
use super::types::{Node, TypeConfig, Vote};

type C = TypeConfig;
type BoxFuture<'s, T> = future::BoxFuture<'s, T>;

/// Makes the clients that openraft asks for. None of them connects before it is used.
pub struct Network {
    transport: Arc<dyn Transport>,
    addresses: Arc<Addresses>,
}

impl Network {
    pub fn new(transport: Arc<dyn Transport>, addresses: Arc<Addresses>) -> Self {
        Self {
            transport,
            addresses,
        }
    }

    fn client(&self, target: u64, node: &Node, lane: Lane) -> PeerClient {
        PeerClient {
            transport: Arc::clone(&self.transport),
            addresses: Arc::clone(&self.addresses),
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
    addresses: Arc<Addresses>,
    /// The peer, where it was when openraft began to talk to it.
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
pub(super) fn rpc_error(error: &PeerError) -> RPCError<C> {
    match error {
        PeerError::Timeout { .. } => RPCError::Network(NetworkError::new(error)),
        PeerError::Unreachable { .. } | PeerError::Refused { .. } => {
            RPCError::Unreachable(Unreachable::new(error))
        }
    }
}

pub(super) fn append_to_wire(request: AppendEntriesRequest<C>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(codec::vote_to_wire(&request.vote)),
        previous: request.prev_log_id.as_ref().map(codec::log_id_to_wire),
        committed: request.leader_commit.as_ref().map(codec::log_id_to_wire),
        entries: request.entries.iter().map(codec::entry_to_wire).collect(),
    }
}

impl PeerClient {
    /// The peer, where it is now.
    fn to(&self) -> PeerAddress {
        self.addresses.locate(&self.to)
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
        let answers = self.transport.append(&self.to(), self.lane, queue).await?;
        Ok(Kept { requests, answers })
    }
}

/// Ends a call that takes longer than `limit`.
pub(super) async fn bounded<T>(
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

    fn backoff(&self) -> Option<Backoff> {
        (self.lane == Lane::Snapshot).then(send_snapshot::backoff)
    }

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
            let limit = connect_limit(&option);
            let (transport, to, lane) = (Arc::clone(&self.transport), self.to(), self.lane);
            return async move { pipelined(&transport, &to, lane, input, limit).await }.boxed();
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
        let call = self.transport.vote(&self.to(), vote_to_wire(&request));
        vote(call, self.to.id, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let call = self.transport.pre_vote(&self.to(), vote_to_wire(&request));
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
        send_snapshot(&self.transport, &self.to(), vote, snapshot, cancel, limit).await
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
        let call = self.transport.transfer_leader(&self.to(), wire);
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
