//! The one layer between HTTP and the services: admits a call, counts it, and warns of a slow one.
//!
//! etcd: server/etcdserver/api/v3rpc/interceptor.go, server/embed/serve.go.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use quorate_proto::etcdserverpb::FILE_DESCRIPTOR_SET;
use quorate_proto::etcdserverpb::auth_server::AuthServer;
use quorate_proto::etcdserverpb::cluster_server::ClusterServer;
use quorate_proto::etcdserverpb::lease_server::LeaseServer;
use quorate_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use quorate_proto::quorate::peer::peer_server::PeerServer;
use quorate_proto::ready::k_v_server::KVServer;
use quorate_proto::ready::watch_server::WatchServer;
use quorate_proto::v3electionpb::election_server::ElectionServer;
use quorate_proto::v3lockpb::lock_server::LockServer;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_health::pb::health_server::HealthServer;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tracing::Instrument;

use super::auth::AuthService;
use super::body::{RequestBody, ResponseBody};
use super::calls::{Calls, Flow, Method};
use super::cluster::ClusterService;
use super::election::ElectionService;
use super::grpc_health::GrpcHealth;
use super::http::{HttpDoor, Scope, not_found};
use super::kv::KvService;
use super::lease::LeaseService;
use super::lock::LockService;
use super::maintenance::MaintenanceService;
use super::metadata::{client_api_version, headers_require_leader};
use super::peer::PeerDoor;
use super::status::status;
use super::watch::WatchService;
use crate::model::Refusal;
use crate::replica::Replica;

/// What a learner serves besides serializable ranges, which the KV service sees to.
const LEARNER_PATHS: [&str; 3] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Snapshot",
];

type Boxed = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// The services, which gRPC and the JSON gateway share.
pub struct Services {
    pub kv: Arc<KvService>,
    pub watch: Arc<WatchService>,
    pub lease: Arc<LeaseService>,
    pub cluster: Arc<ClusterService>,
    pub maintenance: Arc<MaintenanceService>,
    pub auth: Arc<AuthService>,
    pub lock: Arc<LockService>,
    pub election: Arc<ElectionService>,
    /// The largest message that gRPC takes.
    pub message_bytes_max: usize,
}

/// Serves gRPC.
pub struct GrpcDoor {
    replica: Arc<Replica>,
    calls: Arc<Calls>,
    slow: Duration,
    kv: KVServer<KvService>,
    watch: WatchServer<WatchService>,
    lease: LeaseServer<LeaseService>,
    cluster: ClusterServer<ClusterService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    auth: AuthServer<AuthService>,
    lock: LockServer<LockService>,
    election: ElectionServer<ElectionService>,
    health: Boxed,
    reflection: Boxed,
    reflection_alpha: Boxed,
}

impl GrpcDoor {
    /// `slow` is `--warning-unary-request-duration`.
    ///
    /// # Errors
    /// The descriptors for reflection do not fit together.
    pub fn new(
        replica: Arc<Replica>,
        services: &Services,
        calls: Arc<Calls>,
        slow: Duration,
    ) -> Result<Self, String> {
        let limit = services.message_bytes_max;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let v1 = reflection().build_v1().map_err(|error| error.to_string())?;
        let v1alpha = reflection()
            .build_v1alpha()
            .map_err(|error| error.to_string())?;
        let health = HealthServer::new(GrpcHealth);
        Ok(Self {
            replica,
            calls,
            slow,
            kv: KVServer::from_arc(Arc::clone(&services.kv)).max_decoding_message_size(limit),
            watch: WatchServer::from_arc(Arc::clone(&services.watch))
                .max_decoding_message_size(limit),
            lease: LeaseServer::from_arc(Arc::clone(&services.lease))
                .max_decoding_message_size(limit),
            cluster: ClusterServer::from_arc(Arc::clone(&services.cluster))
                .max_decoding_message_size(limit),
            maintenance: MaintenanceServer::from_arc(Arc::clone(&services.maintenance))
                .max_decoding_message_size(limit),
            auth: AuthServer::from_arc(Arc::clone(&services.auth)).max_decoding_message_size(limit),
            lock: LockServer::from_arc(Arc::clone(&services.lock)).max_decoding_message_size(limit),
            election: ElectionServer::from_arc(Arc::clone(&services.election))
                .max_decoding_message_size(limit),
            health: BoxCloneSyncService::new(health),
            reflection: BoxCloneSyncService::new(v1),
            reflection_alpha: BoxCloneSyncService::new(v1alpha),
        })
    }

    /// Serves one call.
    fn serve(&self, request: Request<Incoming>, remote: &Arc<str>) -> Serving {
        let path = request.uri().path();
        let Some(method) = self.calls.method(path) else {
            let response = unknown_method(path).into_http::<Body>();
            return Serving::ready(response.map(ResponseBody::streamed));
        };
        let method = Arc::clone(method);
        let started = Instant::now();
        let limit = grpc_timeout(request.headers());
        let admitted = self.admit(&request, method.flow);
        let request = request.map(|body| RequestBody::new(body, &method, &self.calls));
        if let Err(refused) = admitted {
            let response = refused.into_http();
            let calls = &self.calls;
            return Serving::ready(ResponseBody::of_call(response, &method, calls, started));
        }
        let mut running = self.dispatch(&method, request);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let span = tracing::debug_span!("rpc", method = method.name);
            running = Box::pin(running.instrument(span));
        }
        Serving::Call(Call {
            running,
            deadline: limit.map(|limit| Box::pin(tokio::time::sleep(limit))),
            slow: self.slow,
            remote: Arc::clone(remote),
            calls: Arc::clone(&self.calls),
            method,
            started,
        })
    }

    /// What etcd checks before it looks at a request.
    fn admit(&self, request: &Request<Incoming>, flow: Flow) -> Result<(), Status> {
        let headers = request.headers();
        let path = request.uri().path();
        if self.replica.is_learner() && !LEARNER_PATHS.contains(&path) {
            return Err(status(Refusal::NotSupportedForLearner));
        }
        let version =
            client_api_version(headers).map_err(|_| status(Refusal::InvalidClientApiVersion))?;
        self.calls.count_client(version, flow);
        if headers_require_leader(headers) && self.replica.leader() == 0 {
            return Err(status(Refusal::NoLeader));
        }
        Ok(())
    }

    fn dispatch(&self, method: &Method, request: Request<RequestBody<Incoming>>) -> Running {
        match method.service {
            "etcdserverpb.KV" => self.kv.clone().call(request),
            "etcdserverpb.Watch" => self.watch.clone().call(request),
            "etcdserverpb.Lease" => self.lease.clone().call(request),
            "etcdserverpb.Cluster" => self.cluster.clone().call(request),
            "etcdserverpb.Maintenance" => self.maintenance.clone().call(request),
            "etcdserverpb.Auth" => self.auth.clone().call(request),
            "v3lockpb.Lock" => self.lock.clone().call(request),
            "v3electionpb.Election" => self.election.clone().call(request),
            "grpc.health.v1.Health" => {
                Box::pin(self.health.clone().oneshot(request.map(Body::new)))
            }
            "grpc.reflection.v1.ServerReflection" => {
                Box::pin(self.reflection.clone().oneshot(request.map(Body::new)))
            }
            "grpc.reflection.v1alpha.ServerReflection" => Box::pin(
                self.reflection_alpha
                    .clone()
                    .oneshot(request.map(Body::new)),
            ),
            _ => Box::pin(ready(Ok(unknown_method(request.uri().path()).into_http()))),
        }
    }
}

/// A call inside tonic.
type Running = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// A request that is being served. It is written out, and small, because it is moved several
/// times on its way into a task: as an `async` block it would drag all its states along.
pub enum Serving {
    Call(Call),
    Other(BoxFuture<'static, Response<ResponseBody>>),
}

/// One call, from its admission to the head of its answer.
pub struct Call {
    running: Running,
    deadline: Option<Pin<Box<Sleep>>>,
    slow: Duration,
    remote: Arc<str>,
    calls: Arc<Calls>,
    method: Arc<Method>,
    started: Instant,
}

impl Serving {
    fn ready(response: Response<ResponseBody>) -> Self {
        Self::Other(Box::pin(ready(response)))
    }
}

impl Future for Serving {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Other(other) => other.as_mut().poll(context).map(Ok),
            Self::Call(call) => call.poll(context).map(Ok),
        }
    }
}

impl Call {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Response<ResponseBody>> {
        let response = match self.running.as_mut().poll(context) {
            Poll::Ready(Ok(response)) => response,
            Poll::Ready(Err(never)) => match never {},
            Poll::Pending => match &mut self.deadline {
                Some(deadline) => {
                    ready!(deadline.as_mut().poll(context));
                    deadline_exceeded().into_http()
                }
                None => return Poll::Pending,
            },
        };
        let Self {
            method,
            calls,
            started,
            ..
        } = self;
        if method.flow == Flow::Unary && started.elapsed() > self.slow {
            tracing::warn!(
                "time spent" = ?started.elapsed(),
                remote = %self.remote,
                "response type" = format!("/{}/{}", method.service, method.name),
                "request stats"
            );
        }
        Poll::Ready(ResponseBody::of_call(response, method, calls, *started))
    }
}

/// What a listener serves.
#[derive(Clone)]
pub enum Door {
    /// gRPC, and HTTP unless that has listeners of its own.
    Client(Arc<GrpcDoor>, Option<Arc<HttpDoor>>),
    /// HTTP alone.
    Http(Arc<HttpDoor>, Scope),
    /// Other members.
    Peers(PeerServer<PeerDoor>),
}

impl Door {
    /// Answers one request: gRPC by its content type, everything else as HTTP.
    /// `secure` says whether it came over TLS.
    pub fn serve(&self, request: Request<Incoming>, remote: &Arc<str>, secure: bool) -> Serving {
        let (http, scope) = match self {
            Self::Client(grpc, _) if is_grpc(&request) => return grpc.serve(request, remote),
            Self::Client(_, Some(http)) => (Arc::clone(http), Scope::Client),
            Self::Client(_, None) => return Serving::ready(not_found()),
            Self::Http(http, scope) => (Arc::clone(http), *scope),
            Self::Peers(peers) => {
                let call = peers.clone().call(request);
                return Serving::Other(Box::pin(async move {
                    match call.await {
                        Ok(response) => response.map(ResponseBody::streamed),
                        Err(never) => match never {},
                    }
                }));
            }
        };
        Serving::Other(Box::pin(
            async move { http.serve(request, scope, secure).await },
        ))
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// grpc-go's words for a path that leads nowhere.
fn unknown_method(path: &str) -> Status {
    let Some((service, method)) = path.get(1..).and_then(|path| path.rsplit_once('/')) else {
        return Status::unimplemented(format!("malformed method name: {path:?}"));
    };
    let known = super::methods::METHODS
        .iter()
        .any(|(name, _)| *name == service);
    Status::unimplemented(if known {
        format!("unknown method {method} for service {service}")
    } else {
        format!("unknown service {service}")
    })
}

fn deadline_exceeded() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// How long the client waits, from `grpc-timeout`: up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.len().checked_sub(1)?;
    let count: u64 = text.get(..unit)?.parse().ok()?;
    match text.get(unit..)? {
        "H" => Some(Duration::from_secs(count.saturating_mul(3_600))),
        "M" => Some(Duration::from_secs(count.saturating_mul(60))),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn timeouts_of_calls_are_read() {
        for (text, millis) in [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("5S", Some(5_000)),
            ("4999m", Some(4_999)),
            ("1000u", Some(1)),
            ("5", None),
            ("", None),
            ("-1S", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            let expected = millis.map(Duration::from_millis);
            assert_eq!(grpc_timeout(&headers), expected, "{text:?}");
        }
    }

    #[test]
    fn unknown_paths_are_told_in_the_words_of_grpc_go() {
        let told = |path| unknown_method(path).message().to_owned();
        assert_eq!(
            told("/etcdserverpb.KV/Nothing"),
            "unknown method Nothing for service etcdserverpb.KV"
        );
        assert_eq!(told("/a.B/C"), "unknown service a.B");
        assert_eq!(told("nothing"), "malformed method name: \"nothing\"");
    }
}
