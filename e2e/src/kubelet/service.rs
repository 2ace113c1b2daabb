//! What stands for a Service: connections to a Pod that is ready, chosen anew for each.

use super::Shared;
use anyhow::Result;
use http::Uri;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use quorate_tls::{Identity, Socket};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// The port that clients use.
const CLIENT_PORT: u16 = 2379;

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

const CLUSTER_LABEL: &str = "quorate.dev/cluster";

/// The client Service of a cluster, as kube-proxy would serve it.
#[derive(Clone, Debug)]
pub struct Service {
    shared: Arc<Shared>,
    namespace: String,
    cluster: String,
    turn: Arc<AtomicUsize>,
}

impl Service {
    pub(super) fn new(shared: &Arc<Shared>, namespace: &str, cluster: &str) -> Self {
        Self {
            shared: shared.clone(),
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
            turn: Arc::default(),
        }
    }

    /// The addresses of the Pods that are ready.
    pub fn endpoints(&self) -> Vec<Ipv4Addr> {
        let pods = self.shared.pods.state();
        let mut found: Vec<Ipv4Addr> = pods.iter().filter_map(|pod| self.endpoint(pod)).collect();
        found.sort_unstable();
        found
    }

    fn endpoint(&self, pod: &Pod) -> Option<Ipv4Addr> {
        let labels = pod.metadata.labels.as_ref()?;
        let is_ours = pod.metadata.namespace.as_ref() == Some(&self.namespace)
            && labels.get(CLUSTER_LABEL) == Some(&self.cluster)
            && pod.metadata.deletion_timestamp.is_none();
        let status = pod.status.as_ref()?;
        let mut conditions = status.conditions.iter().flatten();
        let ready = conditions.find(|condition| condition.type_ == "Ready")?;
        let address = status.pod_ip.as_ref()?.parse().ok()?;
        (is_ours && ready.status == "True").then_some(address)
    }

    fn pick(&self) -> io::Result<Ipv4Addr> {
        let endpoints = self.endpoints();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let chosen = endpoints.get(turn % endpoints.len().max(1)).copied();
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "no Pod is ready");
        chosen.ok_or_else(refused)
    }

    /// A channel to whoever is ready when it connects. Without an identity it speaks in plaintext.
    ///
    /// # Errors
    /// Never, but that its URI is fixed.
    pub fn channel(
        &self,
        identity: Option<&Arc<Identity>>,
        timeout: Option<Duration>,
    ) -> Result<Channel> {
        let service = self.clone();
        channel(
            move || service.pick(),
            identity.cloned(),
            self.peer_name(),
            timeout,
        )
    }

    /// A name that the certificates of all members hold.
    pub fn peer_name(&self) -> String {
        format!("member.{}-peer.{}.svc", self.cluster, self.namespace)
    }

    /// A channel to one member.
    ///
    /// # Errors
    /// Never, but that its URI is fixed.
    pub fn member(
        &self,
        address: Ipv4Addr,
        identity: Option<&Arc<Identity>>,
        timeout: Option<Duration>,
    ) -> Result<Channel> {
        channel(
            move || Ok(address),
            identity.cloned(),
            self.peer_name(),
            timeout,
        )
    }
}

fn channel(
    pick: impl Fn() -> io::Result<Ipv4Addr> + Send + Sync + 'static,
    identity: Option<Arc<Identity>>,
    name: String,
    timeout: Option<Duration>,
) -> Result<Channel> {
    let pick = Arc::new(pick);
    let connect = move |_: Uri| {
        let (pick, identity, name) = (pick.clone(), identity.clone(), name.clone());
        async move {
            let address = pick()?.to_string();
            let socket = Socket::connect_tcp(&address, CLIENT_PORT).await?;
            let stream = match identity {
                Some(identity) => identity.secure(socket, &name).await?,
                None => socket.into(),
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    };
    let mut endpoint = Endpoint::from_static("http://quorate").connect_timeout(CONNECT_TIMEOUT);
    if let Some(timeout) = timeout {
        endpoint = endpoint.timeout(timeout);
    }
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
}
