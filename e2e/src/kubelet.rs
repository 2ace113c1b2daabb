//! A kubelet, a scheduler and a volume provisioner without containers and without root: Pods of a
//! real API server become real processes on loopback addresses of their own.
//!
//! What differs from a node: images are what was built here, paths are folders elsewhere and are
//! rewritten in arguments and environments, and a Service has no address that can be dialed.

mod claims;
mod container;
mod dispatch;
mod environment;
mod event;
pub mod lab;
mod launch;
pub mod load;
mod mounts;
mod names;
mod node;
pub mod operator;
mod pod;
mod probe;
mod rewrite;
mod scheduler;
mod service;
pub mod space;
mod status;

use crate::wait;
use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Config, Resource};
use launch::Room;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// How long the first lists may take.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a command in a container may take.
const EXEC_DEADLINE: Duration = Duration::from_secs(60);

/// A Pod by its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub namespace: String,
    pub name: String,
}

impl Place {
    /// Where a Pod is to be found.
    pub fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// A Pod by its names.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What tests reach of a container.
#[derive(Clone, Debug)]
struct Inside {
    uid: String,
    room: Room,
    /// While it runs.
    group: Option<Pid>,
    address: Ipv4Addr,
}

/// What all parts share.
#[derive(Debug)]
struct Shared {
    client: ClientBox,
    dir: PathBuf,
    names: names::Names,
    programs: PathBuf,
    addresses: Addresses,
    pods: Store<Pod>,
    nodes: Store<Node>,
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    classes: Store<StorageClass>,
    secrets: Store<Secret>,
    configs: Store<ConfigMap>,
    running: Mutex<BTreeMap<(Place, String), Inside>>,
    /// The UID of the Pod that is being placed.
    placing: Mutex<Option<String>>,
    /// The nodes that are not lost.
    alive: Mutex<BTreeSet<String>>,
    log: Mutex<File>,
}

/// A client that says nothing of itself.
struct ClientBox(Client);

impl Debug for ClientBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl std::ops::Deref for ClientBox {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl Shared {
    fn say(&self, text: &str) {
        let now = jiff::Timestamp::now();
        // A log that cannot be written must not end what it tells of.
        writeln!(self.log.lock(), "{now} {text}").ok();
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets
            .get(&reflector::ObjectRef::new(name).within(namespace))
    }

    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.configs
            .get(&reflector::ObjectRef::new(name).within(namespace))
    }
}

/// Loopback addresses, each handed out once.
#[derive(Debug)]
struct Addresses {
    second: u8,
    next: AtomicU16,
}

impl Addresses {
    /// Test programs that run at the same time have ranges of their own.
    fn new() -> Self {
        Self {
            second: 1 + (std::process::id() % 250) as u8,
            next: AtomicU16::new(1),
        }
    }

    fn next(&self) -> Result<Ipv4Addr> {
        for _ in 0..u16::MAX {
            let [third, fourth] = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let address = Ipv4Addr::new(127, self.second, third, fourth);
            let is_free = |port| std::net::TcpListener::bind((address, port)).is_ok();
            if [0, 255].contains(&fourth) || !(2379..=2382).all(is_free) {
                continue;
            }
            return Ok(address);
        }
        anyhow::bail!("no free address in 127.{}.0.0/16", self.second)
    }
}

/// A running kubelet of several nodes. All processes are killed when it is dropped.
#[derive(Debug)]
pub struct Kubelet {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// Follows all objects of a kind.
fn reflect<K>(client: &Client, tasks: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + DeserializeOwned + 'static,
{
    let (store, writer) = reflector::store();
    let objects = watcher(Api::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        // What is wrong with a watch is mended by it; the store is what counts.
        .for_each(async |_| {});
    tasks.spawn(objects);
    store
}

impl Kubelet {
    /// Registers `nodes` nodes and begins to run what is put on them; files lie in `dir`.
    ///
    /// # Errors
    /// When this machine allows no way to give Pods their names, or the API server refuses.
    pub async fn start(kubeconfig: &Path, dir: &Path, nodes: usize) -> Result<Self> {
        let config = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let mut tasks = JoinSet::new();
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            names: names::Names::new(dir)?,
            programs: launch::programs(dir)?,
            addresses: Addresses::new(),
            pods: reflect(&client, &mut tasks),
            nodes: reflect(&client, &mut tasks),
            claims: reflect(&client, &mut tasks),
            volumes: reflect(&client, &mut tasks),
            classes: reflect(&client, &mut tasks),
            secrets: reflect(&client, &mut tasks),
            configs: reflect(&client, &mut tasks),
            client: ClientBox(client),
            running: Mutex::default(),
            placing: Mutex::default(),
            alive: Mutex::default(),
            log: Mutex::new(File::create(dir.join("kubelet.log"))?),
        });
        shared.say(&format!("names come by {}", shared.names.way()));
        claims::make_classes(&shared).await?;
        for number in 0..nodes {
            node::register(&shared, number, None).await?;
        }
        let ready = async {
            shared.pods.wait_until_ready().await?;
            shared.secrets.wait_until_ready().await?;
            shared.configs.wait_until_ready().await?;
            Ok::<_, anyhow::Error>(())
        };
        tokio::time::timeout(START_DEADLINE, ready)
            .await
            .context("the first lists")??;
        tasks.spawn(dispatch::run(shared.clone()));
        Ok(Self { shared, tasks })
    }

    /// What it said of itself.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(
            self.shared.dir.join("kubelet.log"),
        )?)
    }

    /// A name beside those of the Pods.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn name(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        self.shared.names.set(name, address, vec![name.to_owned()])
    }

    fn inside(&self, place: &Place, container: &str) -> Result<Inside> {
        let running = self.shared.running.lock();
        let inside = running.get(&(place.clone(), container.to_owned()));
        inside
            .cloned()
            .with_context(|| format!("{place} has not begun {container}"))
    }

    /// The address of a Pod that runs.
    ///
    /// # Errors
    /// When the container has never run.
    pub fn address(&self, place: &Place, container: &str) -> Result<Ipv4Addr> {
        Ok(self.inside(place, container)?.address)
    }

    /// Sends a signal to a container, such as [`Signal::KILL`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, place: &Place, container: &str, signal: Signal) -> Result<()> {
        let group = self.inside(place, container)?.group;
        let group = group.with_context(|| format!("{container} of {place} does not run"))?;
        Ok(kill_process_group(group, signal)?)
    }

    /// Everything that a container has printed, over all its runs.
    ///
    /// # Errors
    /// When it has never run.
    pub fn container_log(&self, place: &Place, container: &str) -> Result<String> {
        let bytes = std::fs::read(self.inside(place, container)?.room.log)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What answers for a cluster's client Service.
    pub fn service(&self, namespace: &str, cluster: &str) -> Service {
        Service::new(&self.shared, namespace, cluster)
    }

    /// The folder of a claim that is bound.
    pub fn claim_folder(&self, namespace: &str, name: &str) -> Option<PathBuf> {
        self.shared.claim_folder(namespace, name)
    }

    /// Runs a command in a container, as `kubectl exec` does.
    ///
    /// # Errors
    /// When the container has never run, or the command hangs.
    pub async fn exec(&self, place: &Place, container: &str, argv: &[&str]) -> Result<Output> {
        let room = self.inside(place, container)?.room;
        let argv: Vec<String> = argv.iter().map(|arg| (*arg).to_owned()).collect();
        room.exec(&self.shared, &argv, EXEC_DEADLINE).await
    }

    /// Adds nodes for those alone who ask for `pool` by selector and toleration.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn add_pool(&self, pool: &str, nodes: usize) -> Result<()> {
        for number in 0..nodes {
            node::register(&self.shared, number, Some(pool)).await?;
        }
        Ok(())
    }

    /// Loses a node: its processes die, its heartbeats stop, and the cluster gives it up at once.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn lose_node(&self, name: &str) -> Result<()> {
        let was_alive = self.shared.alive.lock().remove(name);
        ensure!(was_alive, "no node {name} is alive");
        wait::until("the end of a node", START_DEADLINE, async || {
            let running = self.shared.running.lock();
            let is_here = |place: &Place| {
                let pod = self.shared.pods.find(|pod| Place::of(pod) == *place);
                let spec = pod.as_ref().and_then(|pod| pod.spec.as_ref());
                spec.and_then(|spec| spec.node_name.as_deref()) == Some(name)
            };
            Ok((!running.keys().any(|(place, _)| is_here(place))).then_some(()))
        })
        .await?;
        node::give_up(&self.shared, name).await
    }

    /// Fails when a part of it has ended, with the end of its log.
    ///
    /// # Errors
    /// When it has ended.
    pub fn is_running(&mut self) -> Result<()> {
        ensure!(
            self.tasks.try_join_next().is_none(),
            "the kubelet ended: {}",
            self.log()?
        );
        Ok(())
    }
}

pub use claims::{CLASS, FIXED_CLASS};
pub use service::Service;
