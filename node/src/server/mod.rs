//! Builds the floors bottom-up, names every task and what happens when it ends.
//!
//! | task | when it ends before the node is told to stop |
//! |---|---|
//! | a listener for clients, HTTP or metrics | the node stops |
//! | the listener for peers | the node stops |
//! | readiness | it is done: it told that reads work |
//! | the replica's own tasks | they say why in `Replica::fatal`; the node stops |
//! | one connection | it is closed, nothing else |

mod join;
mod listeners;
mod member;
mod metrics;
pub mod probe;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::listeners::Listeners;
use self::member::replica_config;
use self::metrics::Metrics;
use self::tls::Tls;
use crate::api::auth::AuthService;
use crate::api::cluster::ClusterService;
use crate::api::door::{Door, GrpcDoor, Services};
use crate::api::election::ElectionService;
use crate::api::gateway::Gateway;
use crate::api::health::Health;
use crate::api::http::{HttpDoor, Scope};
use crate::api::kv::{KvLimits, KvService};
use crate::api::lease::LeaseService;
use crate::api::listen::{ConnectionOptions, Listener};
use crate::api::lock::LockService;
use crate::api::maintenance::{MaintenanceService, Release};
use crate::api::peer::PeerDoor;
use crate::api::watch::{WatchService, WatchSettings};
use crate::config::Config;
use crate::config::help::{ETCD_MINOR_VERSION, ETCD_VERSION, VERSION};
use crate::model::limits::GRPC_OVERHEAD_BYTES;
use crate::raft::transport::grpc::{GrpcOptions, GrpcTransport};
use crate::raft::transport::metered::Metered;
use crate::replica::Replica;
use crate::tasks;
use crate::tasks::publish;

/// How long clients' calls that are under way may take when the node stops.
const DRAIN: Duration = Duration::from_secs(2);
/// How long between two attempts of a first read.
const READY_RETRY: Duration = Duration::from_millis(10);

/// The running node.
pub struct Server {
    replica: Arc<Replica>,
    stop: CancellationToken,
    stop_peers: CancellationToken,
    /// Every task by name; one that ends too early stops the node.
    tasks: JoinSet<&'static str>,
    client_ports: Vec<u16>,
    /// Cancelled when a peer says that this member was removed.
    removed: CancellationToken,
}

/// etcd: server/etcdserver/server.go.
const REMOVED: &str = "the member has been permanently removed from the cluster";
/// How long a member that was removed still answers: among others, who removed it.
const REMOVED_DELAY: Duration = Duration::from_secs(1);

/// Waits until this member has been removed from its cluster.
async fn removed(replica: &Replica, told: &CancellationToken) {
    tokio::select! {
        () = told.cancelled() => {}
        () = replica.raft().removed().cancelled() => tokio::time::sleep(REMOVED_DELAY).await,
    }
}

impl Server {
    /// Runs a member until SIGTERM, SIGINT or a failure.
    ///
    /// # Errors
    /// Why the member could not start, or had to stop.
    pub async fn run(config: Config) -> Result<(), String> {
        let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
        let mut server = tokio::select! {
            server = Self::start(config) => server?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let (told, replica) = (server.removed.clone(), Arc::clone(&server.replica));
        let ended = tokio::select! {
            _ = terminate.recv() => Ok("terminated"),
            _ = interrupt.recv() => Ok("interrupt"),
            error = server.failure() => Err(error),
            () = removed(&replica, &told) => {
                tracing::warn!(error = REMOVED, "server error");
                tracing::warn!("data-dir used by this member must be removed");
                return server.stop().await;
            }
        };
        match &ended {
            Ok(signal) => tracing::info!(signal, "received signal; shutting down"),
            Err(error) => tracing::error!(error, "shutting down"),
        }
        server.stop().await?;
        ended.map(|_| ())
    }

    /// Starts a member: listeners first, so that a port in use is found before anything else.
    pub async fn start(config: Config) -> Result<Self, String> {
        let options = ConnectionOptions {
            reuse_port: config.listen.reuse_port,
            concurrent_streams_max: config.listen.concurrent_streams_max,
            keepalive_interval: config.listen.keepalive_interval,
            keepalive_timeout: config.listen.keepalive_timeout,
        };
        let tls = Tls::load(&config)?;
        let listeners = Listeners::bind(&config, &options, &tls)?;
        let metrics = Metrics::new(&config);
        let replica_config = replica_config(&config, &tls.dialer).await?;
        tracing::info!(
            name = config.name,
            "data-dir" = %config.data_dir.display(),
            "member-id" = format!("{:x}", replica_config.raft.member_id),
            "cluster-id" = format!("{:x}", replica_config.raft.cluster_id),
            version = VERSION,
            "starting a member"
        );
        let transport = GrpcTransport::new(
            replica_config.raft.member_id,
            replica_config.raft.cluster_id,
            GrpcOptions {
                dialer: tls.dialer,
                ..GrpcOptions::default()
            },
        );
        let removed = transport.removed().clone();
        let transport = Metered::new(transport, Arc::clone(&replica_config.raft.tally));
        let replica = Replica::start(replica_config, Arc::new(transport)).await;
        let replica = replica.map_err(|error| error.to_string())?;
        if config.checks.initial {
            tasks::corruption::initial_check(&replica).await?;
        }
        tasks::spawn_all(&replica);
        replica.observe_flushes(metrics.log_observer());
        let mut server = Self {
            replica,
            stop: CancellationToken::new(),
            stop_peers: CancellationToken::new(),
            tasks: JoinSet::new(),
            removed,
            client_ports: listeners
                .client
                .iter()
                .filter_map(Listener::local_port)
                .collect(),
        };
        server.serve(&config, listeners, options, &metrics)?;
        Ok(server)
    }

    /// The ports on which clients are served.
    pub fn client_ports(&self) -> &[u16] {
        &self.client_ports
    }

    /// Opens the doors.
    fn serve(
        &mut self,
        config: &Config,
        listeners: Listeners,
        options: ConnectionOptions,
        metrics: &Metrics,
    ) -> Result<(), String> {
        let replica = &self.replica;
        let services = Arc::new(services(config, replica));
        let slow = config.slow_request;
        let grpc = GrpcDoor::new(
            Arc::clone(replica),
            &services,
            Arc::clone(&metrics.calls),
            slow,
        )?;
        let gateway = config
            .http
            .gateway
            .then(|| Gateway::new(Arc::clone(replica), services));
        let http = Arc::new(HttpDoor {
            health: Health::new(Arc::clone(replica), metrics.health.clone()),
            exposition: metrics.exposition(config, replica),
            version: format!(
                "{{\"etcdserver\":\"{ETCD_VERSION}\",\"etcdcluster\":\"{ETCD_MINOR_VERSION}\",\
                 \"storage\":\"{ETCD_MINOR_VERSION}\"}}"
            ),
            hosts: config.http.hosts.clone(),
            origins: config.http.origins.clone(),
            gateway,
        });
        let grpc = Arc::new(grpc);
        let beside = listeners.client_http.is_empty().then(|| Arc::clone(&http));
        let ready = self.ready(&listeners.client);
        self.tasks.spawn(ready);
        let peers = Door::Peers(PeerDoor::service(Arc::clone(replica)));
        let client_http = Door::Http(Arc::clone(&http), Scope::Client);
        for (name, listeners, door) in [
            ("peer listener", listeners.peer, peers),
            (
                "client listener",
                listeners.client,
                Door::Client(grpc, beside),
            ),
            ("http listener", listeners.client_http, client_http),
            (
                "metrics listener",
                listeners.metrics,
                Door::Http(http, Scope::Metrics),
            ),
        ] {
            // Members must hear each other until the replica has handed its leadership over;
            // their streams have no end to wait for.
            let (stop, drain) = match &door {
                Door::Peers(_) => (self.stop_peers.clone(), Duration::ZERO),
                Door::Client(..) | Door::Http(..) => (self.stop.clone(), DRAIN),
            };
            for listener in listeners {
                tracing::info!(listener = name, address = listener.name, "listening");
                let serving = listener.serve(door.clone(), options, drain, stop.clone());
                self.tasks.spawn(async move {
                    serving.await;
                    name
                });
            }
        }
        Ok(())
    }

    /// Tells once that a linearizable read works and that the others know this member.
    fn ready(&self, listeners: &[Listener]) -> impl Future<Output = &'static str> + use<> {
        let secure = |listener: &Listener| listener.is_secure().then_some("securely");
        let insecure = |listener: &Listener| listener.is_insecure().then_some("insecurely");
        let ways = listeners.iter().flat_map(|listener| {
            let ways = secure(listener).into_iter().chain(insecure(listener));
            ways.map(|way| (listener.name.clone(), way))
        });
        let ways: Vec<(String, &str)> = ways.collect();
        let (replica, stop) = (Arc::clone(&self.replica), self.stop.clone());
        async move {
            let readable = async {
                while replica.barrier().await.is_err()
                    || !matches!(publish::is_published(&replica), Ok(true))
                {
                    tokio::time::sleep(READY_RETRY).await;
                }
            };
            tokio::select! {
                () = readable => {}
                () = stop.cancelled() => return READINESS,
            }
            tracing::info!("ready to serve client requests");
            for (address, way) in ways {
                tracing::info!(
                    traffic = "grpc+http",
                    address,
                    "serving client traffic {way}"
                );
            }
            notify_systemd();
            READINESS
        }
    }

    /// Waits for what must stop the node.
    async fn failure(&mut self) -> String {
        let mut fatal = self.replica.fatal();
        loop {
            tokio::select! {
                reason = fatal.wait_for(Option::is_some) => {
                    let reason = reason.ok().and_then(|reason| reason.clone());
                    return reason.unwrap_or_else(|| "the replica is gone".to_owned());
                }
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(READINESS) => {}
                    Ok(name) => return format!("{name} ended"),
                    Err(error) => return format!("a task broke: {error}"),
                },
            }
        }
    }

    /// Stops in peace: the doors take nobody new and finish what they serve, the replica hands its
    /// leadership over and ends, then the peers are left.
    pub async fn stop(mut self) -> Result<(), String> {
        self.stop.cancel();
        let stopped = self.replica.stop().await;
        self.stop_peers.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task broke while stopping");
            }
        }
        stopped?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// The one task that may end.
const READINESS: &str = "readiness";

fn services(config: &Config, replica: &Arc<Replica>) -> Services {
    let cluster = &config.cluster;
    let election_timeout = Duration::from_millis(cluster.election_ms);
    let message_bytes_max = config
        .limits
        .request_bytes_max
        .saturating_add(GRPC_OVERHEAD_BYTES);
    let replica = || Arc::clone(replica);
    let kv = KvLimits {
        txn_ops_max: config.limits.txn_ops_max,
        request_bytes_max: config.limits.request_bytes_max,
    };
    let watch = WatchSettings {
        progress_interval: config.watch_progress_interval,
        election_timeout,
        response_bytes_max: message_bytes_max,
    };
    let release = Release {
        version: ETCD_VERSION.to_owned(),
        storage_version: ETCD_MINOR_VERSION.to_owned(),
        quota_bytes: config.limits.quota_bytes,
    };
    let (heartbeat_ms, election_ms) = (cluster.heartbeat_ms, cluster.election_ms);
    Services {
        kv: Arc::new(KvService::new(replica(), kv)),
        watch: Arc::new(WatchService::new(replica(), watch)),
        lease: Arc::new(LeaseService::new(replica(), heartbeat_ms, election_ms)),
        cluster: Arc::new(ClusterService::new(replica())),
        maintenance: Arc::new(MaintenanceService::new(replica(), release)),
        auth: Arc::new(AuthService::new(replica())),
        lock: Arc::new(LockService::new(replica())),
        election: Arc::new(ElectionService::new(replica(), election_timeout)),
        message_bytes_max,
    }
}

/// Tells systemd that the node is up, where it asked to be told.
fn notify_systemd() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(b"READY=1", &path));
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot tell systemd that the member is ready");
    }
}
