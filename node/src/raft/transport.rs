//! How members reach each other: the node's only trait. tonic in life (`transport/grpc.rs`), in
//! memory in the simulation. It speaks the messages of `proto/internal/peer.proto` and nothing of
//! openraft.

pub mod grpc;
pub mod members;
pub mod metered;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quorate_proto::quorate::peer;

/// A member and where it listens for its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    pub id: u64,
    /// Its peer URLs, joined by commas.
    pub urls: String,
}

/// What travels together on one connection. A snapshot or a long append must not hold up a
/// heartbeat, nor a client's read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    Append,
    Heartbeat,
    Snapshot,
    /// Proposals, read indexes and leases on behalf of clients.
    Client,
}

/// Why a call to a peer has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The call did not get there, or the answer did not come back.
    #[error("member {member:x} cannot be reached: {reason}")]
    Unreachable { member: u64, reason: String },
    /// The peer answered that it will not.
    #[error("member {member:x} refuses: {reason}")]
    Refused { member: u64, reason: String },
    #[error("member {member:x} did not answer within {timeout_ms} ms")]
    Timeout { member: u64, timeout_ms: u64 },
}

/// Answers of a peer, in the order of what was asked.
pub type Answers<T> = BoxStream<'static, Result<T, PeerError>>;

/// A call to one peer. It is made when first polled and ends when dropped.
pub type Call<T> = BoxFuture<'static, Result<T, PeerError>>;

/// The way to every other member. Calls are bounded in time by those who make them; an
/// implementation notices a dead connection by itself.
pub trait Transport: Send + Sync + 'static {
    /// Replication, many requests in flight. One answer for each request, in order.
    fn append(
        &self,
        to: &PeerAddress,
        lane: Lane,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> Call<Answers<peer::AppendResponse>>;

    fn vote(&self, to: &PeerAddress, request: peer::VoteRequest) -> Call<peer::VoteResponse>;

    fn pre_vote(&self, to: &PeerAddress, request: peer::VoteRequest) -> Call<peer::VoteResponse>;

    fn transfer_leader(
        &self,
        to: &PeerAddress,
        request: peer::TransferLeaderRequest,
    ) -> Call<peer::TransferLeaderResponse>;

    /// A full snapshot: its head, then the files in order.
    fn snapshot(
        &self,
        to: &PeerAddress,
        chunks: BoxStream<'static, peer::SnapshotChunk>,
    ) -> Call<peer::SnapshotResponse>;

    /// Sections of commands for the leader to propose. What comes back was certainly not proposed.
    fn forward(
        &self,
        to: &PeerAddress,
        sections: BoxStream<'static, peer::ForwardRequest>,
    ) -> Call<Answers<peer::ForwardRefusal>>;

    fn read_index(&self, to: &PeerAddress) -> Call<peer::ReadIndexResponse>;

    fn lease_renew(
        &self,
        to: &PeerAddress,
        request: peer::LeaseRenewRequest,
    ) -> Call<peer::LeaseRenewResponse>;

    fn lease_times(
        &self,
        to: &PeerAddress,
        request: peer::LeaseTimesRequest,
    ) -> Call<peer::LeaseTimesResponse>;

    fn member_change(
        &self,
        to: &PeerAddress,
        request: peer::MemberChangeRequest,
    ) -> Call<peer::MemberChangeResponse>;

    fn hash_kv(&self, to: &PeerAddress, request: peer::HashKvRequest)
    -> Call<peer::HashKvResponse>;
}
