//! The peer door: what other members say, checked for whom it is meant, into the replica.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, future};
use prost::Message;
use quorate_proto::quorate::peer;
use quorate_proto::quorate::peer::peer_server::{Peer, PeerServer};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status, Streaming};

use super::status::failure;
use crate::model::limits::PEER_MESSAGE_BYTES_MAX;
use crate::model::tally::PeerTally;
use crate::raft::receive::PeerRefusal;
use crate::raft::transport::grpc::{CLUSTER_HEADER, FROM_HEADER, REMOVED_HEADER, TO_HEADER};
use crate::replica::Replica;

/// The Peer service of this member.
pub struct PeerDoor {
    replica: Arc<Replica>,
}

impl PeerDoor {
    /// The tonic service, with its message limits.
    pub fn service(replica: Arc<Replica>) -> PeerServer<Self> {
        PeerServer::new(Self { replica })
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    /// What arrives of a stream that is admitted, counted, and where its sender is counted.
    fn arriving<T: Message + 'static>(
        &self,
        request: Request<Streaming<T>>,
    ) -> Result<(impl Stream<Item = T> + Send + use<T>, Arc<PeerTally>), Status> {
        // Whoever is no member is counted as 0, so that a stranger cannot make the table grow.
        let is_member = |id: &u64| self.replica.raft().peer(*id).is_some();
        let from = sender(&request).filter(is_member).unwrap_or(0);
        let stream = self.admit(request)?;
        let peer = self.replica.tally().peer(from);
        let counted = Arc::clone(&peer);
        let arrived = arriving(stream)
            .inspect(move |message| counted.received_bytes.add(message.encoded_len() as u64));
        Ok((arrived, peer))
    }

    /// Refuses what is meant for another cluster or member.
    fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        let id = |name: &str| {
            let value = request.metadata().get(name)?.to_str().ok()?;
            u64::from_str_radix(value, 16).ok()
        };
        let (cluster, from, to) = (id(CLUSTER_HEADER), id(FROM_HEADER), id(TO_HEADER));
        let refused = |what: String| {
            let from = from.unwrap_or(0);
            tracing::warn!(
                from = format!("{from:016x}"),
                what,
                "a peer's call is refused"
            );
            Err(Status::failed_precondition(what))
        };
        let (ours, me) = (self.replica.cluster_id(), self.replica.member_id());
        match (cluster, to) {
            (Some(cluster), Some(to)) if cluster == ours && to == me => {
                self.admit_member(from)?;
                Ok(request.into_inner())
            }
            (Some(cluster), Some(_)) if cluster != ours => refused(format!(
                "cluster ID mismatch: this is cluster {ours:016x}, the call is for {cluster:016x}"
            )),
            (Some(_), Some(to)) => refused(format!(
                "member ID mismatch: this is member {me:016x}, the call is for {to:016x}"
            )),
            _ => refused("the call does not say which cluster and member it is for".into()),
        }
    }
}

impl PeerDoor {
    /// Refuses a member that was removed, and tells it so: it may have been down when that was
    /// decided, or be the last to hear of it.
    ///
    /// etcd: server/etcdserver/server.go, `Process`.
    fn admit_member(&self, from: Option<u64>) -> Result<(), Status> {
        let Some(from) = from.filter(|from| !self.replica.raft().is_member(*from)) else {
            return Ok(());
        };
        match self.replica.view().is_removed(from) {
            // Before the first start of a cluster, its members are not known yet.
            Ok(false) => Ok(()),
            Ok(true) => {
                let from = format!("{from:016x}");
                tracing::warn!(from, "rejected Raft message from removed member");
                let text = "cannot process message from removed member";
                let mut metadata = MetadataMap::new();
                metadata.insert(REMOVED_HEADER, MetadataValue::from_static("true"));
                let code = Code::PermissionDenied;
                Err(Status::with_metadata(code, text, metadata))
            }
            Err(error) => Err(failure(&error)),
        }
    }
}

/// The member that calls.
fn sender<T>(request: &Request<T>) -> Option<u64> {
    let value = request.metadata().get(FROM_HEADER)?.to_str().ok()?;
    u64::from_str_radix(value, 16).ok()
}

fn status(refusal: PeerRefusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        PeerRefusal::Malformed(_) | PeerRefusal::Snapshot(_) => Status::invalid_argument(text),
        PeerRefusal::NotLeader => Status::failed_precondition(text),
        PeerRefusal::Busy | PeerRefusal::Silent | PeerRefusal::Stopped => Status::unavailable(text),
    }
}

/// What arrives before the stream ends or breaks.
fn arriving<T: Send + 'static>(stream: Streaming<T>) -> impl Stream<Item = T> + Send + 'static {
    stream.scan((), |(), message| future::ready(message.ok()))
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Peer for PeerDoor {
    type AppendStream = Answers<peer::AppendResponse>;
    type ForwardStream = Answers<peer::ForwardRefusal>;

    async fn append(
        &self,
        request: Request<Streaming<peer::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (requests, peer) = self.arriving(request)?;
        let answers = self.replica.raft().receive_append(requests);
        let answers = answers.inspect(move |answer| {
            if let Ok(answer) = answer {
                peer.sent_bytes.add(answer.encoded_len() as u64);
            }
        });
        Ok(Response::new(answers.map_err(status).boxed()))
    }

    async fn vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let request = self.admit(request)?;
        let answer = self.replica.raft().receive_vote(request).await;
        answer.map(Response::new).map_err(status)
    }

    async fn pre_vote(
        &self,
        request: Request<peer::VoteRequest>,
    ) -> Result<Response<peer::VoteResponse>, Status> {
        let request = self.admit(request)?;
        let answer = self.replica.raft().receive_pre_vote(request).await;
        answer.map(Response::new).map_err(status)
    }

    async fn transfer_leader(
        &self,
        request: Request<peer::TransferLeaderRequest>,
    ) -> Result<Response<peer::TransferLeaderResponse>, Status> {
        let request = self.admit(request)?;
        let answer = self.replica.raft().receive_transfer_leader(request).await;
        answer.map(Response::new).map_err(status)
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<peer::SnapshotChunk>>,
    ) -> Result<Response<peer::SnapshotResponse>, Status> {
        let (chunks, _) = self.arriving(request)?;
        let chunks = chunks.boxed();
        let answer = self.replica.raft().receive_snapshot(chunks).await;
        answer.map(Response::new).map_err(status)
    }

    async fn forward(
        &self,
        request: Request<Streaming<peer::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let (sections, _) = self.arriving(request)?;
        let refusals = self.replica.receive_forward(sections);
        Ok(Response::new(refusals.map(Ok).boxed()))
    }

    async fn read_index(
        &self,
        request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        self.admit(request)?;
        let answer = self.replica.receive_read_index().await;
        answer.map(Response::new).map_err(status)
    }

    async fn lease_renew(
        &self,
        request: Request<peer::LeaseRenewRequest>,
    ) -> Result<Response<peer::LeaseRenewResponse>, Status> {
        let request = self.admit(request)?;
        let answer = self.replica.receive_lease_renew(request).await;
        answer.map(Response::new).map_err(status)
    }

    async fn lease_times(
        &self,
        request: Request<peer::LeaseTimesRequest>,
    ) -> Result<Response<peer::LeaseTimesResponse>, Status> {
        let request = self.admit(request)?;
        let answer = self.replica.receive_lease_times(request).await;
        answer.map(Response::new).map_err(status)
    }

    async fn member_change(
        &self,
        request: Request<peer::MemberChangeRequest>,
    ) -> Result<Response<peer::MemberChangeResponse>, Status> {
        let request = self.admit(request)?;
        let answer = self.replica.receive_member_change(request).await;
        answer.map(Response::new).map_err(status)
    }

    async fn members(
        &self,
        request: Request<peer::MembersRequest>,
    ) -> Result<Response<peer::MembersResponse>, Status> {
        let linearizable = request.into_inner().linearizable;
        let members = self.replica.members_for_joiner(linearizable).await;
        let members = members.map_err(|error| failure(&error))?;
        Ok(Response::new(peer::MembersResponse {
            cluster_id: self.replica.cluster_id(),
            members: members.into_iter().map(Into::into).collect(),
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<peer::HashKvRequest>,
    ) -> Result<Response<peer::HashKvResponse>, Status> {
        let request = self.admit(request)?;
        let answer = self.replica.receive_hash_kv(request).await;
        answer.map(Response::new).map_err(status)
    }
}
