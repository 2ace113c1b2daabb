//! The client: connections, and the way every call takes.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use prost::Message;
use quorate_proto::etcdserverpb::auth_client::AuthClient;
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3lockpb::lock_client::LockClient;
use tonic::{Code, Request, Response, Status};

use crate::channel::Channel;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::limits;
use crate::retry::{is_from_learner, jitter, read_may_pass};
use crate::watch::Hub;

/// A client of a cluster. Clones are cheap and share the connections; the last one that is
/// dropped closes them.
///
/// ```no_run
/// # async fn f() -> Result<(), quorate_client::Error> {
/// use quorate_client::{Client, ClientConfig};
/// let client = Client::connect(ClientConfig::new(["127.0.0.1:2379"])).await?;
/// client.put("greeting", "hello").await?;
/// let found = client.get("greeting").await?;
/// assert_eq!(&found.kvs[0].value[..], b"hello");
/// # Ok(()) }
/// ```
///
/// [`get`](Client::get), [`put`](Client::put), [`delete`](Client::delete),
/// [`txn`](Client::txn) and the rest of the methods keep the deadline of
/// [`ClientConfig::request_timeout`] and repeat what may be repeated. [`kv`](Client::kv) and
/// its like are the generated clients on the same connections: no deadline unless the
/// request has one, and nothing is repeated that may have been seen by a server.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    channel: Channel,
    /// Serves all watches; begins with the first.
    hub: OnceLock<Hub>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("channel", &self.inner.channel)
            .finish_non_exhaustive()
    }
}

macro_rules! raw_clients {
    ($($(#[$doc:meta])* $name:ident -> $type:ident;)+) => {
        $(
            $(#[$doc])*
            pub fn $name(&self) -> $type<Channel> {
                $type::new(self.inner.channel.clone())
                    .max_encoding_message_size(self.inner.config.max_request_bytes)
                    .max_decoding_message_size(self.inner.config.max_recv_bytes)
            }
        )+
    };
}

impl Client {
    /// Connects to all endpoints and waits for the first connection.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong configuration, [`Error::Unreachable`] when no endpoint is
    /// connected within `dial_timeout`.
    pub async fn connect(config: ClientConfig) -> Result<Self, Error> {
        let client = Self::connect_lazy(config)?;
        client.inner.channel.connected().await?;
        Ok(client)
    }

    /// Begins to connect and returns at once. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong configuration.
    pub fn connect_lazy(config: ClientConfig) -> Result<Self, Error> {
        let channel = Channel::start(&config)?;
        Ok(Self::over(config, channel))
    }

    fn over(config: ClientConfig, channel: Channel) -> Self {
        Self {
            inner: Arc::new(Inner {
                config,
                channel,
                hub: OnceLock::new(),
            }),
        }
    }

    /// A client of one endpoint alone, for what concerns one member (status, defragmentation).
    /// If this client is connected to `endpoint`, the connection is shared.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `endpoint` is none.
    pub fn endpoint(&self, endpoint: &str) -> Result<Self, Error> {
        let channel = self.inner.channel.only(endpoint, &self.inner.config)?;
        let config = ClientConfig {
            endpoints: vec![endpoint.to_owned()],
            ..self.inner.config.clone()
        };
        Ok(Self::over(config, channel))
    }

    pub(crate) fn hub(&self) -> &Hub {
        self.inner.hub.get_or_init(|| Hub::start(self.watch_raw()))
    }

    /// What the client was told.
    pub fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// The channel under the generated clients, for services that are not listed here.
    pub fn channel(&self) -> Channel {
        self.inner.channel.clone()
    }

    raw_clients! {
        /// The generated client of etcd's KV service.
        kv -> KvClient;
        /// The generated client of etcd's Watch service; [`Client::watch`] is easier.
        watch_raw -> WatchClient;
        /// The generated client of etcd's Lease service.
        lease_raw -> LeaseClient;
        /// The generated client of etcd's Cluster service.
        cluster -> ClusterClient;
        /// The generated client of etcd's Maintenance service.
        maintenance -> MaintenanceClient;
        /// The generated client of etcd's Auth service.
        auth -> AuthClient;
        /// The generated client of etcd's Lock service.
        lock -> LockClient;
        /// The generated client of etcd's Election service.
        election -> ElectionClient;
    }

    /// Makes a call that has no effect; repeats it, within `request_timeout`, after failures
    /// that may pass.
    ///
    /// ```no_run
    /// # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
    /// use quorate_client::proto::etcdserverpb::StatusRequest;
    /// let status = client
    ///     .read(StatusRequest {}, async |client, request| {
    ///         client.maintenance().status(request).await
    ///     })
    ///     .await?;
    /// println!("{}", status.version);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Unreachable`].
    pub async fn read<Q, A, F, Fut>(&self, request: Q, call: F) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(Self, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let limit = self.inner.config.request_timeout;
        let mut last = None;
        let attempts = async {
            let round = self.inner.channel.endpoints().count() as u32;
            for attempt in 1..=limits::ATTEMPTS_MAX {
                match call(self.clone(), Request::new(request.clone())).await {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status)
                        if read_may_pass(&status)
                            || is_from_learner(&status) && attempt < round =>
                    {
                        last = Some(Error::of_read(status));
                    }
                    Err(status) => return Err(Error::of_read(status)),
                }
                if attempt % round == 0 {
                    tokio::time::sleep(jitter(limits::BACKOFF_MIN)).await;
                }
            }
            Err(last.take().unwrap_or_else(|| timed_out(limit)))
        };
        match tokio::time::timeout(limit, attempts).await {
            Ok(result) => result,
            Err(_) => Err(last.unwrap_or_else(|| timed_out(limit))),
        }
    }

    /// Makes a call that has an effect, once: the channel sends it to a second endpoint only
    /// when the first certainly did not take it.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] when the outcome is unknown, also when `request_timeout` passed;
    /// else [`Error::Refused`] or [`Error::Unreachable`].
    pub async fn write<Q, A, F, Fut>(&self, request: Q, call: F) -> Result<A, Error>
    where
        Q: Message,
        F: FnOnce(Self, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let limit = self.inner.config.request_timeout;
        let answer = call(self.clone(), Request::new(request));
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::of_write(status)),
            Err(_) => Err(Error::Ambiguous {
                code: Code::DeadlineExceeded,
                text: format!("no answer within {limit:?}"),
            }),
        }
    }
}

fn timed_out(limit: std::time::Duration) -> Error {
    Error::Unreachable {
        text: format!("no answer within {limit:?}"),
    }
}
