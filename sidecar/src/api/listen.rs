//! The listener: TLS before HTTP, a bounded number of connections, an end when told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use quorate_tls::{Guard, Socket, Welcomed};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at one time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// A pause when no connection can be accepted, so that the attempt does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    /// None: plain HTTP.
    guard: Option<Guard>,
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(address: SocketAddr, guard: Option<Guard>) -> Result<Self, String> {
        let socket = TcpListener::bind(address).await;
        let socket = socket.map_err(|error| format!("listen on {address}: {error}"))?;
        let secure = guard.is_some();
        tracing::info!(%address, secure, "listening");
        Ok(Self { socket, guard })
    }

    /// Serves until `stop`; requests that are under way are cut then.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepting = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (permit, self.socket.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                accepted = accepting => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, remote)) => {
                    let (guard, router) = (self.guard.clone(), router.clone());
                    connections.spawn(async move {
                        welcome(Socket::Tcp(stream), &remote.to_string(), guard, router).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn welcome(socket: Socket, remote: &str, guard: Option<Guard>, router: Router) {
    let Some(guard) = guard else {
        return serve(socket, router).await;
    };
    match guard.welcome(socket, remote).await {
        None => {}
        Some(Welcomed::Plain(socket)) => serve(socket, router).await,
        Some(Welcomed::Secure(stream)) => serve(stream, router).await,
    }
}

async fn serve<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    let service = TowerToHyperService::new(router);
    let served = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}
