//! The receiving side of raft: messages of other members into openraft. The doors (`api/peer.rs`,
//! the simulation's transport) call these and nothing else.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, future};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use quorate_proto::quorate::peer;

use super::codec::{self, Malformed};
use super::handle::RaftHandle;
use super::snapshot::{ReceiveError, Receiver};
use super::types::TypeConfig;
use crate::model::limits::{APPENDS_IN_FLIGHT_MAX, PEER_STALL_MS};

/// Why a peer's message is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PeerRefusal {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Snapshot(#[from] ReceiveError),
    #[error("another snapshot is being received")]
    Busy,
    #[error("the sender fell silent")]
    Silent,
    #[error("this member is not the leader")]
    NotLeader,
    #[error("raft has stopped")]
    Stopped,
}

/// Answers to a peer, in order.
pub type PeerAnswers<T> = BoxStream<'static, Result<T, PeerRefusal>>;

fn append_from_wire(
    request: peer::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let vote = request.vote.ok_or(Malformed("append without vote"))?;
    let entries = request.entries.into_iter().map(codec::entry_from_wire);
    Ok(AppendEntriesRequest {
        vote: codec::vote_from_wire(&vote),
        prev_log_id: request.previous.as_ref().map(codec::log_id_from_wire),
        leader_commit: request.committed.as_ref().map(codec::log_id_from_wire),
        entries: entries.collect::<Result<_, _>>()?,
    })
}

fn append_to_wire(answer: AppendEntriesResponse<TypeConfig>) -> peer::AppendResponse {
    use peer::append_response::Outcome;
    let outcome = match answer {
        AppendEntriesResponse::Success => Outcome::Success(true),
        AppendEntriesResponse::PartialSuccess(id) => {
            Outcome::PartialSuccess(id.as_ref().map(codec::log_id_to_wire).unwrap_or_default())
        }
        AppendEntriesResponse::Conflict => Outcome::Conflict(true),
        AppendEntriesResponse::HigherVote(vote) => Outcome::HigherVote(codec::vote_to_wire(&vote)),
    };
    peer::AppendResponse {
        outcome: Some(outcome),
    }
}

fn vote_from_wire(request: &peer::VoteRequest) -> Result<VoteRequest<TypeConfig>, Malformed> {
    let vote = request
        .vote
        .as_ref()
        .ok_or(Malformed("vote without vote"))?;
    let last = request.last_log_id.as_ref().map(codec::log_id_from_wire);
    let mut request_out = VoteRequest::new(codec::vote_from_wire(vote), last);
    request_out.leadership_transfer = request.leadership_transfer;
    Ok(request_out)
}

fn vote_to_wire(answer: &VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(codec::vote_to_wire(&answer.vote)),
        granted: answer.vote_granted,
        last_log_id: answer.last_log_id.as_ref().map(codec::log_id_to_wire),
    }
}

impl RaftHandle {
    /// Takes appends until the first that does not fit. A malformed request ends the stream.
    pub fn receive_append(
        self: &Arc<Self>,
        requests: impl Stream<Item = peer::AppendRequest> + Send + 'static,
    ) -> PeerAnswers<peer::AppendResponse> {
        let handle = Arc::clone(self);
        let requests = requests.scan((), |(), request| {
            let request = append_from_wire(request);
            let request = request.inspect_err(|error| tracing::error!(%error, "append refused"));
            future::ready(request.ok())
        });
        let requests = requests.take_until(self.closing().clone().cancelled_owned());
        let taken = requests.map(move |request| {
            let handle = Arc::clone(&handle);
            async move {
                let answer = handle.raft.append_entries(request).await;
                let answer = answer.map_err(|_| PeerRefusal::Stopped)?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    handle.heard();
                }
                Ok(answer)
            }
        });
        // They reach raft in order and are answered in order.
        let answers = taken.buffered(APPENDS_IN_FLIGHT_MAX);
        let answers = answers.scan(false, |ended, answer| {
            let next = (!*ended).then_some(answer);
            *ended = !matches!(next, Some(Ok(AppendEntriesResponse::Success)));
            future::ready(next)
        });
        answers.map(|answer| answer.map(append_to_wire)).boxed()
    }

    pub async fn receive_vote(
        &self,
        request: peer::VoteRequest,
    ) -> Result<peer::VoteResponse, PeerRefusal> {
        let answer = self.raft.vote(vote_from_wire(&request)?).await;
        let answer = answer.map_err(|_| PeerRefusal::Stopped)?;
        Ok(vote_to_wire(&answer))
    }

    pub async fn receive_pre_vote(
        &self,
        request: peer::VoteRequest,
    ) -> Result<peer::VoteResponse, PeerRefusal> {
        let answer = self.raft.pre_vote(vote_from_wire(&request)?).await;
        let answer = answer.map_err(|_| PeerRefusal::Stopped)?;
        Ok(vote_to_wire(&answer))
    }

    pub async fn receive_transfer_leader(
        &self,
        request: peer::TransferLeaderRequest,
    ) -> Result<peer::TransferLeaderResponse, PeerRefusal> {
        let from = request.from.ok_or(Malformed("transfer without vote"))?;
        let request = TransferLeaderRequest::new(
            codec::vote_from_wire(&from),
            request.to,
            request.last_log_id.as_ref().map(codec::log_id_from_wire),
        );
        let answer = self.raft.handle_transfer_leader(request).await;
        let answer = answer.map_err(|_| PeerRefusal::Stopped)?;
        let refusal = answer.err().map(|error| error.to_string());
        Ok(peer::TransferLeaderResponse {
            refusal: refusal.unwrap_or_default(),
        })
    }

    /// Receives a snapshot into a folder of its own, checks it and installs it.
    pub async fn receive_snapshot(
        &self,
        mut chunks: impl Stream<Item = peer::SnapshotChunk> + Send + Unpin,
    ) -> Result<peer::SnapshotResponse, PeerRefusal> {
        let _alone = self.receiving.try_lock().map_err(|_| PeerRefusal::Busy)?;
        let limit = Duration::from_millis(PEER_STALL_MS);
        let mut next = async || {
            let chunk = tokio::time::timeout(limit, chunks.next()).await;
            chunk.map_err(|_| PeerRefusal::Silent)
        };
        let head = next().await?.ok_or(Malformed("empty snapshot"))?;
        let directory = self.directory.clone();
        let mut receiver = disk(move || Receiver::begin(head, &directory)).await?;
        while let Some(chunk) = next().await? {
            receiver = disk(move || {
                receiver.write(chunk)?;
                Ok(receiver)
            })
            .await?;
            // Whoever sends a snapshot leads: without this, no heartbeat may get through.
            self.heard();
        }
        let (vote, snapshot) = disk(move || receiver.finish()).await?;
        let answer = self.raft.install_full_snapshot(vote, snapshot).await;
        let answer = answer.map_err(|_| PeerRefusal::Stopped)?;
        Ok(peer::SnapshotResponse {
            vote: Some(codec::vote_to_wire(&answer.vote)),
        })
    }
}

async fn disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReceiveError> + Send + 'static,
) -> Result<T, PeerRefusal> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| PeerRefusal::Stopped)??)
}
