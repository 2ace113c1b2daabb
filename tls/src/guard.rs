//! The handshakes of a listener: bounded in time and number, and never in the way of others.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::identity::Identity;
use crate::leaf::Leaf;
use crate::san;
use crate::stream::Socket;
use crate::words::in_words_of_go;

/// How long a connection may take until its handshake is done, its first byte included.
///
/// etcd: client/pkg/transport/listener_tls.go (tlsHandshakeTimeout).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes that run at the same time on one listener; more wait their turn, as long as one
/// handshake may take. A connection that has said nothing yet does not count.
pub const HANDSHAKES_MAX: usize = 1_024;
/// The first byte of every TLS connection: a record of a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// How a listener takes connections.
#[derive(Debug, Clone, Copy)]
pub struct GuardOptions {
    /// Whose listener it is, for logs: `client` or `peer`.
    pub side: &'static str,
    /// A caller's certificate must belong to its address.
    pub check_addresses: bool,
    /// Plaintext is taken too.
    pub takes_plaintext: bool,
}

/// What stands before a listener that speaks TLS.
#[derive(Debug, Clone)]
pub struct Guard {
    identity: Arc<Identity>,
    options: GuardOptions,
    handshakes: Arc<Semaphore>,
}

/// A connection that may come in.
pub enum Welcomed {
    Plain(Socket),
    Secure(Box<TlsStream<Socket>>),
}

/// Why a connection is turned away.
struct Rejected {
    error: io::Error,
    leaf: Option<Leaf>,
}

impl From<io::Error> for Rejected {
    fn from(error: io::Error) -> Self {
        Self { error, leaf: None }
    }
}

impl Guard {
    pub fn new(identity: Arc<Identity>, options: GuardOptions) -> Self {
        Self {
            identity,
            options,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        }
    }

    pub fn takes_plaintext(&self) -> bool {
        self.options.takes_plaintext
    }

    /// Shakes hands. None when the connection is turned away, which is told in the log.
    pub async fn welcome(&self, socket: Socket, remote: &str) -> Option<Welcomed> {
        let welcome = self.shake_hands(socket);
        let rejected = match tokio::time::timeout(HANDSHAKE_TIMEOUT, welcome).await {
            Ok(Ok(welcomed)) => return Some(welcomed),
            Ok(Err(rejected)) => rejected,
            Err(_) => {
                let seconds = HANDSHAKE_TIMEOUT.as_secs();
                let text = format!("no handshake within {seconds} s");
                io::Error::new(io::ErrorKind::TimedOut, text).into()
            }
        };
        self.tell(&rejected, remote);
        None
    }

    async fn shake_hands(&self, socket: Socket) -> Result<Welcomed, Rejected> {
        socket.readable().await?;
        let permit = self.handshakes.acquire().await.map_err(io::Error::other)?;
        if let (true, Socket::Tcp(stream)) = (self.options.takes_plaintext, &socket)
            && first_byte(stream).await? != HANDSHAKE_RECORD
        {
            return Ok(Welcomed::Plain(socket));
        }
        let address = socket.remote();
        let config = self.identity.server().map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(config).accept(socket).await;
        let stream = stream.map_err(in_words_of_go)?;
        if self.options.check_addresses
            && let Some(address) = address
        {
            let (_, connection) = stream.get_ref();
            check_address(connection.peer_certificates(), address).await?;
        }
        drop(permit);
        Ok(Welcomed::Secure(Box::new(stream)))
    }

    /// etcd: server/embed/config_logging.go (logTLSHandshakeFailureFunc).
    fn tell(&self, rejected: &Rejected, remote: &str) {
        let text = match self.options.side {
            "peer" => "rejected connection on peer endpoint",
            _ => "rejected connection on client endpoint",
        };
        let error = &rejected.error;
        // Probes of ports say nothing and go.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            tracing::debug!("remote-addr" = remote, %error, "{text}");
            return;
        }
        let (ips, names) = rejected.leaf.as_ref().map_or_else(
            || (String::new(), String::new()),
            |leaf| {
                (
                    format!("{:?}", leaf.addresses),
                    format!("{:?}", leaf.dns_names),
                )
            },
        );
        tracing::warn!(
            "remote-addr" = remote,
            "ip-addresses" = ips,
            "dns-names" = names,
            %error,
            "{text}"
        );
    }
}

async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut byte = [0; 1];
    match stream.peek(&mut byte).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(byte[0]),
    }
}

async fn check_address(
    shown: Option<&[CertificateDer<'static>]>,
    address: IpAddr,
) -> Result<(), Rejected> {
    let Some(first) = shown.and_then(<[_]>::first) else {
        return Ok(());
    };
    let leaf = Leaf::parse(first).map_err(io::Error::other)?;
    match san::check(&leaf, address).await {
        Ok(()) => Ok(()),
        Err(text) => Err(Rejected {
            error: io::Error::new(io::ErrorKind::PermissionDenied, text),
            leaf: Some(leaf),
        }),
    }
}
