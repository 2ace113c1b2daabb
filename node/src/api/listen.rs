//! Listeners: binds addresses, accepts connections up to a limit, has TLS shaken hands on where it
//! is asked for, serves HTTP/1.1 and HTTP/2 on each, and lets them finish when the node stops.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use quorate_tls::{Guard, Socket as Connection, Welcomed};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;

use super::cork::Cork;
use super::door::Door;
use super::turns::{EagerExecutor, LastInLine, Unanswered};

/// Connections of one listener.
pub const CONNECTIONS_MAX: usize = 65_536;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;
/// How long a new connection may say nothing, and how long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// What tells HTTP/2 from HTTP/1.1 at the start of a connection.
const PREFACE_BYTES: usize = 24;
/// What a client may send ahead on one stream, and on one connection.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// A pause when no connection can be accepted, so that the attempt does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

/// How connections are kept.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionOptions {
    pub reuse_port: bool,
    pub concurrent_streams_max: u32,
    /// Server-to-client pings; none when zero.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
}

/// A bound listener that serves nobody yet.
pub struct Listener {
    socket: ListenerSocket,
    /// The address, for logs.
    pub name: String,
    /// None: plaintext alone.
    guard: Option<Guard>,
}

enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds an address.
    ///
    /// # Errors
    /// In Go's words, with the address, as operators know them.
    pub fn bind(address: &Address, options: &ConnectionOptions) -> Result<Self, String> {
        match address {
            Address::Tcp(host_port) => {
                let socket = bind_tcp(host_port, options)
                    .map_err(|error| format!("listen tcp {host_port}: bind: {}", plain(&error)))?;
                Ok(Self {
                    socket: ListenerSocket::Tcp(socket),
                    name: host_port.clone(),
                    guard: None,
                })
            }
            Address::Unix(path) => {
                let name = path.display().to_string();
                let socket = bind_unix(path)
                    .map_err(|error| format!("listen unix {name}: bind: {}", plain(&error)))?;
                Ok(Self {
                    socket: ListenerSocket::Unix(socket),
                    name,
                    guard: None,
                })
            }
        }
    }

    /// Has handshakes of TLS before every connection.
    pub fn guarded(self, guard: Option<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// Whether TLS is spoken, be it beside plaintext.
    pub fn is_secure(&self) -> bool {
        self.guard.is_some()
    }

    /// Whether plaintext is spoken.
    pub fn is_insecure(&self) -> bool {
        self.guard.as_ref().is_none_or(Guard::takes_plaintext)
    }

    /// The port that was bound, which differs from the one asked for when that was 0.
    pub fn local_port(&self) -> Option<u16> {
        match &self.socket {
            ListenerSocket::Tcp(socket) => socket.local_addr().ok().map(|address| address.port()),
            ListenerSocket::Unix(_) => None,
        }
    }

    /// Serves connections until `stop`, and then for `drain` those that are still open.
    pub async fn serve(
        self,
        door: Door,
        options: ConnectionOptions,
        drain: Duration,
        stop: CancellationToken,
    ) {
        let builder = Arc::new(builder(&options));
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepting = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, self.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accepting => accepted,
                () = stop.cancelled() => break,
            };
            let Ok(permit) = permit else { break };
            let (connection, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, listener = self.name, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let serving = Serving {
                remote,
                builder: Arc::clone(&builder),
                door: door.clone(),
                watcher: graceful.watcher(),
                permit,
                secure: false,
            };
            match (connection, &self.guard) {
                (connection, Some(guard)) => {
                    let guard = guard.clone();
                    connections.spawn(serving.after_handshake(connection, guard, stop.clone()))
                }
                (Connection::Tcp(stream), None) => connections.spawn(serving.serve(stream)),
                (Connection::Unix(stream), None) => connections.spawn(serving.serve(stream)),
            };
            // Those that are done need no memory; how they ended is told where they end.
            while connections.try_join_next().is_some() {}
        }
        // A stream such as a watch has no end of its own, so that those that are left when the
        // time to drain is over end with the connection: the set is dropped.
        if tokio::time::timeout(drain, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::debug!(listener = self.name, "connections that had no end were cut");
        }
    }

    async fn accept(&self) -> io::Result<(Connection, String)> {
        match &self.socket {
            ListenerSocket::Tcp(socket) => {
                let (stream, remote) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Connection::Tcp(stream), remote.to_string()))
            }
            ListenerSocket::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                Ok((Connection::Unix(stream), "@".to_owned()))
            }
        }
    }
}

type Builder = auto::Builder<EagerExecutor>;

fn builder(options: &ConnectionOptions) -> Builder {
    let mut builder = auto::Builder::new(EagerExecutor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .title_case_headers(true)
        .header_read_timeout(HEAD_TIMEOUT);
    let interval = options.keepalive_interval;
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        // As grpc-go: no gRPC client looks at it.
        .auto_date_header(false)
        .max_concurrent_streams(options.concurrent_streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval((!interval.is_zero()).then_some(interval));
    if !options.keepalive_timeout.is_zero() {
        http2.keep_alive_timeout(options.keepalive_timeout);
    }
    builder
}

/// What serving one connection takes.
struct Serving {
    remote: String,
    builder: Arc<Builder>,
    door: Door,
    watcher: Watcher,
    permit: OwnedSemaphorePermit,
    secure: bool,
}

impl Serving {
    /// Shakes hands first, in the connection's own task. A stop does not wait for it.
    async fn after_handshake(
        mut self,
        connection: Connection,
        guard: Guard,
        stop: CancellationToken,
    ) {
        let welcomed = tokio::select! {
            welcomed = guard.welcome(connection, &self.remote) => welcomed,
            () = stop.cancelled() => return,
        };
        match welcomed {
            None => {}
            Some(Welcomed::Plain(Connection::Tcp(stream))) => self.serve(stream).await,
            Some(Welcomed::Plain(Connection::Unix(stream))) => self.serve(stream).await,
            Some(Welcomed::Secure(stream)) => {
                self.secure = true;
                self.serve(stream).await;
            }
        }
    }

    /// Serves one connection, from its first byte to its last.
    async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let remote: Arc<str> = self.remote.into();
        let (door, secure) = (self.door, self.secure);
        let caller = Arc::clone(&remote);
        let unanswered = Unanswered::default();
        let under_way = unanswered.clone();
        let service = service_fn(move |request| {
            let call = under_way.begin();
            let serving = door.serve(request, &caller, secure);
            async move {
                let _call = call;
                serving.await
            }
        });
        let heard = Arc::new(AtomicUsize::new(0));
        let hear = Arc::clone(&heard);
        let stream = InspectReader::new(stream, move |bytes: &[u8]| {
            hear.fetch_add(bytes.len(), Ordering::Relaxed);
        });
        let cork = Cork::new(stream);
        let serving = self
            .builder
            .serve_connection(TokioIo::new(cork.clone()), service)
            .into_owned();
        let serving = Box::pin(self.watcher.watch(serving));
        let mut serving = LastInLine::new(serving, cork, unanswered);
        // Before it knows which protocol is spoken, nothing else limits its wait.
        let served = match tokio::time::timeout(HEAD_TIMEOUT, &mut serving).await {
            Ok(served) => served,
            Err(_) if heard.load(Ordering::Relaxed) < PREFACE_BYTES => {
                tracing::debug!(%remote, "a connection said nothing");
                return;
            }
            Err(_) => serving.await,
        };
        if let Some(Err(error)) = served {
            tracing::debug!(%error, %remote, "a connection broke");
        }
        // For the next connection.
        drop(self.permit);
    }
}

fn bind_tcp(host_port: &str, options: &ConnectionOptions) -> io::Result<TcpListener> {
    let resolvable = match host_port.strip_prefix(':') {
        Some(_) => format!("0.0.0.0{host_port}"),
        None => host_port.to_owned(),
    };
    let addresses: Vec<SocketAddr> = resolvable.to_socket_addrs()?.collect();
    // As Go: of the addresses of a name, an IPv4 one first.
    let address = addresses
        .iter()
        .find(|address| address.is_ipv4())
        .or(addresses.first())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such host"))?;
    let socket = Socket::new(
        Domain::for_address(*address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Go sets it on every listener, so that a restart need not wait for old connections.
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&(*address).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_unix(path: &PathBuf) -> io::Result<UnixListener> {
    // As etcd: what a process that was killed left behind makes way.
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    UnixListener::bind(path)
}

/// An error of the operating system in its own words, without the number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ConnectionOptions {
        ConnectionOptions {
            reuse_port: false,
            concurrent_streams_max: u32::MAX,
            keepalive_interval: Duration::ZERO,
            keepalive_timeout: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_in_the_words_of_go() {
        let any = Address::Tcp("127.0.0.1:0".to_owned());
        let first = Listener::bind(&any, &options()).expect("a free port");
        let port = first.local_port().expect("it is TCP");
        let taken = Address::Tcp(format!("127.0.0.1:{port}"));
        let error = Listener::bind(&taken, &options())
            .err()
            .expect("it is taken");
        assert_eq!(
            error,
            format!("listen tcp 127.0.0.1:{port}: bind: address already in use")
        );
        let reusing = ConnectionOptions {
            reuse_port: true,
            ..options()
        };
        let shared = Listener::bind(&any, &reusing).expect("a free port");
        let port = shared.local_port().expect("it is TCP");
        let again = Address::Tcp(format!("127.0.0.1:{port}"));
        assert!(Listener::bind(&again, &reusing).is_ok());
    }

    #[tokio::test]
    async fn a_socket_left_behind_makes_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = Address::Unix(directory.path().join("socket"));
        let first = Listener::bind(&address, &options()).expect("a new socket");
        drop(first);
        assert!(Listener::bind(&address, &options()).is_ok());
    }

    #[tokio::test]
    async fn names_resolve() {
        let address = Address::Tcp("localhost:0".to_owned());
        assert!(Listener::bind(&address, &options()).is_ok());
        let address = Address::Tcp("host.invalid:0".to_owned());
        assert!(Listener::bind(&address, &options()).is_err());
    }
}
