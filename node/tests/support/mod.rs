//! A cluster of replicas in one process, over tonic on loopback.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]
#![allow(dead_code, reason = "each test file uses a part of this")]

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::StreamExt;
use quorate::api::peer::PeerDoor;
use quorate::model::kv::{Command, LeaseGrantRequest, PutRequest, RangeRequest, command};
use quorate::model::kv::{KeyValue, RangeResponse};
use quorate::model::limits;
use quorate::model::member::{Member, cluster_id, member_id};
use quorate::raft::bootstrap::RaftOptions;
use quorate::raft::transport::grpc::{GrpcOptions, GrpcTransport};
use quorate::replica::{Reconfiguration, Replica, ReplicaConfig};
use quorate::storage::Db;
use quorate::tasks::autocompact::AutoCompaction;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

struct Running {
    replica: Arc<Replica>,
    door: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

struct Node {
    directory: TempDir,
    address: SocketAddr,
    config: ReplicaConfig,
    running: Option<Running>,
    /// The state of the last life, which a disk may still work for.
    left: Weak<Db>,
}

pub struct Cluster {
    nodes: Vec<Node>,
}

/// Polls until `condition` holds; fails after 30 seconds.
pub async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Cluster {
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, |_| {}).await
    }

    pub async fn start_with(count: usize, change: impl Fn(&mut ReplicaConfig)) -> Self {
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let addresses: Vec<_> = listeners
            .iter()
            .map(|it| it.local_addr().unwrap())
            .collect();
        let members: Vec<Member> = addresses
            .iter()
            .map(|address| {
                let peer_urls = vec![format!("http://{address}")];
                Member {
                    id: member_id(&peer_urls, "test"),
                    name: String::new(),
                    peer_urls,
                    client_urls: Vec::new(),
                    is_learner: false,
                }
            })
            .collect();
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        let mut nodes = Vec::new();
        for (n, address) in addresses.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let mut config = ReplicaConfig {
                raft: RaftOptions {
                    member_id: ids[n],
                    cluster_id: cluster_id(&ids),
                    data_dir: directory.path().to_owned(),
                    members: members.clone(),
                    heartbeat_interval: Duration::from_millis(100),
                    election_timeout: Duration::from_millis(1_000),
                    snapshot_count: limits::SNAPSHOT_COUNT,
                    snapshot_catchup_entries: limits::SNAPSHOT_CATCHUP_ENTRIES,
                    fsync: true,
                    cluster_token: String::new(),
                    force_new_cluster: false,
                    tally: Arc::default(),
                },
                name: format!("m{n}"),
                client_urls: vec![format!("http://client{n}")],
                max_request_bytes: limits::REQUEST_BYTES_MAX,
                quota_bytes: None,
                corrupt_check: None,
                compact_hash_check: None,
                auto_compaction: AutoCompaction::Off,
                compaction_slice_records: limits::COMPACTION_SLICE_RECORDS,
                compaction_pause: Duration::from_millis(limits::COMPACTION_PAUSE_MS),
                reconfiguration: Reconfiguration::default(),
            };
            change(&mut config);
            nodes.push(Node {
                directory,
                address,
                config,
                running: None,
                left: Weak::new(),
            });
        }
        let mut cluster = Self { nodes };
        for (n, listener) in listeners.into_iter().enumerate() {
            cluster.run(n, listener).await;
        }
        cluster.leader().await;
        cluster
    }

    async fn run(&mut self, n: usize, listener: TcpListener) {
        let node = &mut self.nodes[n];
        let (member, cluster) = (node.config.raft.member_id, node.config.raft.cluster_id);
        let transport = GrpcTransport::new(member, cluster, GrpcOptions::default());
        let replica = Replica::start(node.config.clone(), Arc::new(transport))
            .await
            .unwrap();
        quorate::tasks::spawn_all(&replica);
        let door = CancellationToken::new();
        let closed = door.clone().cancelled_owned();
        let service = PeerDoor::service(Arc::clone(&replica));
        let served = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let incoming = TcpListenerStream::new(listener).map(|stream| {
                let stream = stream?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(stream)
            });
            let served = server.serve_with_incoming_shutdown(incoming, closed).await;
            served.unwrap();
        });
        node.running = Some(Running {
            replica,
            door,
            served,
        });
    }

    /// Waits until nothing is left of the last life: a process that ends lets go of all at once.
    async fn until_gone(&self, n: usize) {
        let left = &self.nodes[n].left;
        eventually("nobody holds the state", async || left.strong_count() == 0).await;
    }

    pub async fn restart(&mut self, n: usize) {
        self.until_gone(n).await;
        let address = self.nodes[n].address;
        let deadline = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(self.nodes[n].directory.path().exists());
        self.run(n, listener).await;
    }

    /// The folder of a member.
    pub fn directory(&self, n: usize) -> &std::path::Path {
        self.nodes[n].directory.path()
    }

    /// Why a member does not start.
    pub async fn start_error(&self, n: usize) -> String {
        self.until_gone(n).await;
        let config = self.nodes[n].config.clone();
        let raft = &config.raft;
        let transport = GrpcTransport::new(raft.member_id, raft.cluster_id, GrpcOptions::default());
        let started = Replica::start(config, Arc::new(transport)).await;
        started.err().expect("it starts").to_string()
    }

    pub fn replica(&self, n: usize) -> Arc<Replica> {
        let running = self.nodes[n].running.as_ref();
        Arc::clone(&running.expect("it runs").replica)
    }

    pub fn data_dir(&self, n: usize) -> std::path::PathBuf {
        self.nodes[n].directory.path().to_owned()
    }

    pub fn url(&self, n: usize) -> String {
        format!("http://{}", self.nodes[n].address)
    }

    async fn close(&mut self, running: Running) {
        running.door.cancel();
        running.served.await.unwrap();
    }

    /// As a crash, but for the log, which is closed.
    pub async fn halt(&mut self, n: usize) {
        let running = self.nodes[n].running.take().expect("it runs");
        self.nodes[n].left = Arc::downgrade(&running.replica.db());
        running.replica.halt().await.unwrap();
        self.close(running).await;
    }

    /// In peace.
    pub async fn stop(&mut self, n: usize) {
        let running = self.nodes[n].running.take().expect("it runs");
        self.nodes[n].left = Arc::downgrade(&running.replica.db());
        running.replica.stop().await.unwrap();
        self.close(running).await;
    }

    pub async fn shutdown(mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].running.is_some() {
                self.halt(n).await;
            }
        }
    }

    /// Waits for a leader that all running members know.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let running = self.nodes.iter().filter_map(|node| node.running.as_ref());
            let mut leaders: Vec<u64> = running.map(|it| it.replica.status().leader).collect();
            leaders.dedup();
            if let [leader] = leaders[..]
                && let Some(n) = self.position(leader)
            {
                return n;
            }
            assert!(Instant::now() < deadline, "no leader: {leaders:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn position(&self, member: u64) -> Option<usize> {
        let mut nodes = self.nodes.iter();
        nodes.position(|node| node.config.raft.member_id == member && node.running.is_some())
    }
}

pub fn put(key: &str, value: &str) -> Command {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    Command {
        kind: Some(command::Kind::Put(request)),
    }
}

pub fn grant(id: i64, ttl: i64) -> Command {
    let request = LeaseGrantRequest { ttl, id };
    Command {
        kind: Some(command::Kind::LeaseGrant(request)),
    }
}

pub fn get(replica: &Replica, key: &str) -> RangeResponse {
    let request = RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    };
    replica.view().range(&request).unwrap()
}

/// The value of a key in the newest view.
pub fn value(replica: &Replica, key: &str) -> Option<String> {
    let kvs: Vec<KeyValue> = get(replica, key).kvs;
    let first = kvs.into_iter().next()?;
    Some(String::from_utf8(first.value.to_vec()).unwrap())
}
