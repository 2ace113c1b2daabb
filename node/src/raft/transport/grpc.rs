//! [`Transport`] over tonic: one HTTP/2 connection for each peer and lane, kept alive by pings,
//! each call marked with the cluster and the members it is meant for.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use quorate_proto::quorate::peer;
use quorate_proto::quorate::peer::peer_client::PeerClient;
use quorate_tls::Dialer;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::{Answers, Call, Lane, PeerAddress, PeerError, Transport};
use crate::model::limits::PEER_MESSAGE_BYTES_MAX;

/// The cluster that a call is meant for, in hexadecimal.
pub const CLUSTER_HEADER: &str = "quorate-cluster-id";
/// The member that calls, in hexadecimal.
pub const FROM_HEADER: &str = "quorate-from";
/// Marks a refusal of a call from a member that was removed; its value says nothing.
pub const REMOVED_HEADER: &str = "quorate-removed";
/// The member that is called, in hexadecimal.
pub const TO_HEADER: &str = "quorate-to";

type Client = PeerClient<InterceptedService<Channel, Marks>>;

/// How connections to peers behave.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    pub connect_timeout: Duration,
    /// How often a connection is pinged, and how long the answer may take.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// Makes the connections.
    pub dialer: Dialer,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(3),
            dialer: Dialer::default(),
        }
    }
}

/// The tonic transport of one member.
pub struct GrpcTransport {
    member_id: u64,
    cluster_id: u64,
    options: GrpcOptions,
    /// Connections by peer address and lane; a lock for the length of a lookup.
    clients: Mutex<HashMap<(u64, String, Lane), Client>>,
    /// Cancelled when a peer says that this member was removed.
    removed: CancellationToken,
}

/// Marks each call with who calls whom.
#[derive(Debug, Clone)]
struct Marks {
    cluster: MetadataValue<tonic::metadata::Ascii>,
    from: MetadataValue<tonic::metadata::Ascii>,
    to: MetadataValue<tonic::metadata::Ascii>,
}

impl Interceptor for Marks {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_HEADER, self.cluster.clone());
        metadata.insert(FROM_HEADER, self.from.clone());
        metadata.insert(TO_HEADER, self.to.clone());
        Ok(request)
    }
}

fn hex(id: u64) -> MetadataValue<tonic::metadata::Ascii> {
    format!("{id:x}").parse().expect("hexadecimal is ASCII")
}

impl GrpcTransport {
    pub fn new(member_id: u64, cluster_id: u64, options: GrpcOptions) -> Self {
        Self {
            member_id,
            cluster_id,
            options,
            clients: Mutex::new(HashMap::new()),
            removed: CancellationToken::new(),
        }
    }

    /// Cancelled when a peer says that this member was removed from the cluster: it was not
    /// there to hear of it.
    pub fn removed(&self) -> &CancellationToken {
        &self.removed
    }

    /// The client for a peer and lane; connects when it is first used.
    fn client(&self, to: &PeerAddress, lane: Lane) -> Result<Client, PeerError> {
        let key = (to.id, to.urls.clone(), lane);
        if let Some(client) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        let channel = self.connect(to, lane)?;
        let marks = Marks {
            cluster: hex(self.cluster_id),
            from: hex(self.member_id),
            to: hex(to.id),
        };
        let client = PeerClient::with_interceptor(channel, marks)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
        let mut clients = self.clients.lock();
        // A member that moved is not looked for where it was.
        clients.retain(|(id, urls, _), _| *id != to.id || *urls == to.urls);
        clients.insert(key, client.clone());
        drop(clients);
        Ok(client)
    }

    fn connect(&self, to: &PeerAddress, lane: Lane) -> Result<Channel, PeerError> {
        let unreachable = |reason: String| PeerError::Unreachable {
            member: to.id,
            reason,
        };
        Ok(endpoint(&to.urls)
            .map_err(unreachable)?
            .connect_timeout(self.options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.options.keepalive_interval)
            .keep_alive_timeout(self.options.keepalive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAM_WINDOW_BYTES)
            .connect_with_connector_lazy(connector(
                self.options.dialer.clone(),
                &to.urls,
                // Of several connections to a peer, one is enough to tell of.
                lane == Lane::Heartbeat,
            )))
    }
}

/// The endpoint for a peer's URLs, which only names the calls: the connector looks at all of them.
pub(super) fn endpoint(urls: &str) -> Result<Endpoint, String> {
    let first = urls.split(',').next().unwrap_or_default();
    let first = if first.starts_with("unix") {
        "http://localhost"
    } else {
        first
    };
    Endpoint::from_shared(first.to_owned()).map_err(|error| format!("peer URL {first:?}: {error}"))
}

/// Connects to a peer. What is wrong with TLS is told once, until it works or differs; with
/// `tells`, also that a peer cannot be reached, and that it can again.
pub(super) fn connector(
    dialer: Dialer,
    urls: &str,
    tells: bool,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<quorate_tls::Stream>,
    Error = std::io::Error,
    Future: Send,
> + Send
+ 'static {
    let urls = Arc::<str>::from(urls);
    let told = Arc::new(Mutex::new(String::new()));
    tower::service_fn(move |_: Uri| {
        let (dialer, urls) = (dialer.clone(), Arc::clone(&urls));
        let told = Arc::clone(&told);
        async move {
            let dialed = dialer.dial(&urls).await;
            let is_tls = |error: &std::io::Error| {
                matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::Other)
            };
            match &dialed {
                Ok(stream) => {
                    let before = std::mem::take(&mut *told.lock());
                    if tells && !before.is_empty() {
                        tracing::info!(peer = %urls, "a peer can be reached again");
                    }
                    // Whoever changes a cluster to TLS waits until nobody is left in plaintext.
                    if dialer.either {
                        let tls = stream.is_secure();
                        tracing::info!(peer = %urls, tls, "connected to a peer");
                    }
                }
                Err(error) if (tells || is_tls(error)) && *told.lock() != error.to_string() => {
                    let what = match is_tls(error) {
                        true => "cannot speak TLS with a peer",
                        false => "cannot reach a peer",
                    };
                    tracing::warn!(peer = %urls, %error, "{what}");
                    *told.lock() = error.to_string();
                }
                Err(_) => {}
            }
            dialed.map(TokioIo::new)
        }
    })
}

/// What may be on its way unread: one full batch and more.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

fn failed(member: u64, status: &Status, removed: &CancellationToken) -> PeerError {
    let reason = status.message().to_owned();
    if status.metadata().contains_key(REMOVED_HEADER) {
        removed.cancel();
    }
    match status.code() {
        tonic::Code::FailedPrecondition
        | tonic::Code::InvalidArgument
        | tonic::Code::PermissionDenied
        | tonic::Code::Unimplemented => PeerError::Refused { member, reason },
        _ => PeerError::Unreachable { member, reason },
    }
}

/// One unary call over a lane.
macro_rules! unary {
    ($self:ident, $to:ident, $lane:expr, $method:ident, $request:expr) => {{
        let (client, member) = ($self.client($to, $lane), $to.id);
        let removed = $self.removed.clone();
        async move {
            let answer = client?.$method($request).await;
            answer
                .map(tonic::Response::into_inner)
                .map_err(|status| failed(member, &status, &removed))
        }
        .boxed()
    }};
}

/// A stream of requests with a name: tonic's futures over a nameless one are not seen to be `Send`
/// (rust-lang/rust#102211).
struct Outgoing<T>(BoxStream<'static, T>);

impl<T> Stream for Outgoing<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.as_mut().poll_next(context)
    }
}

/// One call over a lane whose answers are a stream.
macro_rules! streaming {
    ($self:ident, $to:ident, $lane:expr, $method:ident, $requests:expr) => {{
        let (client, member) = ($self.client($to, $lane), $to.id);
        let removed = $self.removed.clone();
        async move {
            let answers = client?.$method($requests).await;
            let answers = answers.map_err(|status| failed(member, &status, &removed))?;
            let answers = answers.into_inner();
            Ok(answers
                .map(move |item| item.map_err(|status| failed(member, &status, &removed)))
                .boxed())
        }
        .boxed()
    }};
}

impl Transport for GrpcTransport {
    fn append(
        &self,
        to: &PeerAddress,
        lane: Lane,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> Call<Answers<peer::AppendResponse>> {
        streaming!(self, to, lane, append, Outgoing(requests))
    }

    fn vote(&self, to: &PeerAddress, request: peer::VoteRequest) -> Call<peer::VoteResponse> {
        unary!(self, to, Lane::Heartbeat, vote, request)
    }

    fn pre_vote(&self, to: &PeerAddress, request: peer::VoteRequest) -> Call<peer::VoteResponse> {
        unary!(self, to, Lane::Heartbeat, pre_vote, request)
    }

    fn transfer_leader(
        &self,
        to: &PeerAddress,
        request: peer::TransferLeaderRequest,
    ) -> Call<peer::TransferLeaderResponse> {
        unary!(self, to, Lane::Heartbeat, transfer_leader, request)
    }

    fn snapshot(
        &self,
        to: &PeerAddress,
        chunks: BoxStream<'static, peer::SnapshotChunk>,
    ) -> Call<peer::SnapshotResponse> {
        unary!(self, to, Lane::Snapshot, snapshot, Outgoing(chunks))
    }

    fn forward(
        &self,
        to: &PeerAddress,
        sections: BoxStream<'static, peer::ForwardRequest>,
    ) -> Call<Answers<peer::ForwardRefusal>> {
        streaming!(self, to, Lane::Client, forward, Outgoing(sections))
    }

    fn read_index(&self, to: &PeerAddress) -> Call<peer::ReadIndexResponse> {
        unary!(
            self,
            to,
            Lane::Client,
            read_index,
            peer::ReadIndexRequest {}
        )
    }

    fn lease_renew(
        &self,
        to: &PeerAddress,
        request: peer::LeaseRenewRequest,
    ) -> Call<peer::LeaseRenewResponse> {
        unary!(self, to, Lane::Client, lease_renew, request)
    }

    fn lease_times(
        &self,
        to: &PeerAddress,
        request: peer::LeaseTimesRequest,
    ) -> Call<peer::LeaseTimesResponse> {
        unary!(self, to, Lane::Client, lease_times, request)
    }

    fn member_change(
        &self,
        to: &PeerAddress,
        request: peer::MemberChangeRequest,
    ) -> Call<peer::MemberChangeResponse> {
        unary!(self, to, Lane::Client, member_change, request)
    }

    fn hash_kv(
        &self,
        to: &PeerAddress,
        request: peer::HashKvRequest,
    ) -> Call<peer::HashKvResponse> {
        unary!(self, to, Lane::Client, hash_kv, request)
    }
}
