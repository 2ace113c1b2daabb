//! One endpoint's connection: brought up at once, kept up, brought up again when it breaks.
//!
//! A link is ready only after the server's first frame arrived: a stopped process still
//! accepts connections, and a call handed to it would hang.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use quorate_tls::{Identity, Socket, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use tracing::debug;

use crate::body::RequestBody;
use crate::config::{Address, ClientConfig, Endpoint};
use crate::limits;
use crate::retry::Backoff;

/// What the link's task tells.
#[derive(Clone)]
pub(crate) enum State {
    Connecting,
    Ready(SendRequest<RequestBody>),
    Down(String),
}

/// A connection to one endpoint and the task that keeps it; both end on drop.
pub(crate) struct Link {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    endpoint: Endpoint,
    identity: Option<Arc<Identity>>,
    state: watch::Sender<State>,
    /// A call got no answer for long; calls go elsewhere until the endpoint answers something.
    silent: AtomicBool,
    ask: Notify,
}

#[derive(Clone, Copy)]
struct Times {
    dial_timeout: Duration,
    keepalive_time: Duration,
    keepalive_timeout: Duration,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Starts connecting.
    pub(crate) fn start(
        endpoint: Endpoint,
        config: &ClientConfig,
        identity: Option<Arc<Identity>>,
    ) -> Arc<Self> {
        let shared = Arc::new(Shared {
            endpoint,
            identity,
            state: watch::Sender::new(State::Connecting),
            silent: AtomicBool::new(false),
            ask: Notify::new(),
        });
        let times = Times {
            dial_timeout: config.dial_timeout,
            keepalive_time: config.keepalive_time,
            keepalive_timeout: config.keepalive_timeout,
        };
        let task = tokio::spawn(run(Arc::clone(&shared), times)).abort_handle();
        Arc::new(Self { shared, task })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Where to send a call, if the connection is up.
    pub(crate) fn sender(&self) -> Option<SendRequest<RequestBody>> {
        match &*self.shared.state.borrow() {
            State::Ready(sender) if !sender.is_closed() => Some(sender.clone()),
            _ => None,
        }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.shared.silent.load(Ordering::Relaxed)
    }

    /// Follows the state.
    pub(crate) fn states(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// The endpoint answered.
    pub(crate) fn answered(&self) {
        if self.is_silent() {
            self.shared.silent.store(false, Ordering::Relaxed);
        }
    }

    /// A call got no answer for long: avoid the endpoint and ask it whether it is there.
    pub(crate) fn suspect(&self) {
        self.shared.silent.store(true, Ordering::Relaxed);
        self.shared.ask.notify_one();
    }

    /// Why the link is not ready, for messages.
    pub(crate) fn trouble(&self) -> String {
        let name = &self.shared.endpoint.name;
        match &*self.shared.state.borrow() {
            State::Connecting => format!("{name}: still connecting"),
            State::Ready(_) => format!("{name}: no answer"),
            State::Down(why) => format!("{name}: {why}"),
        }
    }
}

/// Connects, drives the connection until it ends, and begins again.
async fn run(shared: Arc<Shared>, times: Times) {
    let mut backoff = Backoff::new(limits::RECONNECT_PAUSE_MAX);
    loop {
        let why = match tokio::time::timeout(times.dial_timeout, dial(&shared, times)).await {
            Ok(Ok((sender, connection))) => {
                backoff = Backoff::new(limits::RECONNECT_PAUSE_MAX);
                shared.silent.store(false, Ordering::Relaxed);
                shared.state.send_replace(State::Ready(sender.clone()));
                keep(&shared, sender, connection).await
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "dial timeout".to_owned(),
        };
        debug!(endpoint = %shared.endpoint.name, why, "no connection");
        shared.state.send_replace(State::Down(why));
        tokio::time::sleep(backoff.next()).await;
    }
}

type Conn = Connection<TokioIo<FirstByte>, RequestBody, TokioExecutor>;

/// Drives a ready connection until it ends, and asks the server for a sign of life when a caller
/// doubts it. The open question is a call in flight, so that HTTP/2 pings run beside it and end
/// a connection whose server is gone.
async fn keep(shared: &Shared, sender: SendRequest<RequestBody>, connection: Conn) -> String {
    tokio::pin!(connection);
    loop {
        tokio::select! {
            ended = &mut connection => return ending(ended),
            () = shared.ask.notified() => {}
        }
        let mut asking = sender.clone();
        let question = asking.send_request(sign_of_life(&shared.endpoint));
        tokio::pin!(question);
        tokio::select! {
            ended = &mut connection => return ending(ended),
            answer = &mut question => match answer {
                Ok(_) => shared.silent.store(false, Ordering::Relaxed),
                Err(error) => debug!(endpoint = %shared.endpoint.name, %error, "no sign of life"),
            },
        }
    }
}

fn ending(result: Result<(), hyper::Error>) -> String {
    match result {
        Ok(()) => "closed by the server".to_owned(),
        Err(error) => describe(&error),
    }
}

/// The health check of gRPC: every etcd answers it, whatever its state.
fn sign_of_life(endpoint: &Endpoint) -> http::Request<RequestBody> {
    let uri = http::Uri::builder()
        .scheme(endpoint.scheme())
        .authority(endpoint.authority.clone())
        .path_and_query("/grpc.health.v1.Health/Check")
        .build()
        .expect("all three parts are valid");
    let mut request = http::Request::new(RequestBody::whole(Bytes::from_static(&[0; 5])));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/grpc"),
    );
    headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    request
}

/// An error with its causes, in one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

async fn dial(
    shared: &Shared,
    times: Times,
) -> Result<(SendRequest<RequestBody>, Conn), DialError> {
    let (socket, name) = match &shared.endpoint.address {
        Address::Tcp { host, port } => {
            let socket = Socket::connect_tcp(host, *port).await?;
            (socket, host.as_str())
        }
        Address::Unix(path) => {
            // etcd: the last part of the path is the name to expect in the certificate.
            let name = path.file_name().and_then(|name| name.to_str());
            (Socket::connect_unix(path).await?, name.unwrap_or_default())
        }
    };
    let stream = match &shared.identity {
        Some(identity) if shared.endpoint.secure => identity
            .secure(socket, name)
            .await
            .map_err(DialError::Handshake)?,
        _ => Stream::from(socket),
    };
    let (seen, first_byte) = oneshot::channel();
    let io = FirstByte {
        stream,
        seen: Some(seen),
    };
    let (sender, mut connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(times.keepalive_time)
        .keep_alive_timeout(times.keepalive_timeout)
        .keep_alive_while_idle(false)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::select! {
        ended = &mut connection => Err(match ended {
            Ok(()) => DialError::Io(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => error.into(),
        }),
        first = first_byte => match first {
            Ok(()) => Ok((sender, connection)),
            Err(_) => Err(DialError::Io(io::ErrorKind::UnexpectedEof.into())),
        },
    }
}

#[derive(Debug)]
enum DialError {
    Io(io::Error),
    Handshake(io::Error),
    Http(hyper::Error),
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<hyper::Error> for DialError {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            // As grpc-go begins it.
            Self::Handshake(error) => {
                write!(f, "transport: authentication handshake failed: {error}")
            }
            Self::Http(error) => f.write_str(&describe(error)),
        }
    }
}

/// A stream that tells when the first byte was read from it.
struct FirstByte {
    stream: Stream,
    seen: Option<oneshot::Sender<()>>,
}

impl AsyncRead for FirstByte {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before
            && let Some(seen) = self.seen.take()
            && seen.send(()).is_err()
        {
            debug!("nobody waits for this connection any more");
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FirstByte {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
