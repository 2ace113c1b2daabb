//! Connections to others: by URL, over TLS where the URL says so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::identity::Identity;
use crate::stream::{Socket, Stream};
use crate::words::in_words_of_go;

/// How long the first try may take while a cluster changes between plaintext and TLS.
const FIRST_TRY: Duration = Duration::from_millis(500);

impl Identity {
    /// Shakes hands with a server whose certificate must be valid for `name`, unless the options
    /// name another.
    ///
    /// # Errors
    /// The handshake failed, or one of the two does not believe the other.
    pub async fn secure(&self, socket: Socket, name: &str) -> io::Result<Stream> {
        let other = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
        let config = self.client().map_err(|error| other(&error))?;
        let name = match self.options().server_name.as_str() {
            "" => name,
            name => name,
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| other(&format!("{name:?} can stand in no certificate")))?;
        let stream = TlsConnector::from(config).connect(name, socket).await;
        let stream = stream.map_err(in_words_of_go)?;
        Ok(Stream::Secure(Box::new(stream)))
    }
}

/// Connects to peers.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    /// None: `https` cannot be dialed.
    pub identity: Option<Arc<Identity>>,
    /// TLS is tried first and plaintext then, whatever the URL says: for the time in which the
    /// members of a cluster change one after another.
    pub either: bool,
}

struct Target<'a> {
    secure: bool,
    place: Place<'a>,
}

enum Place<'a> {
    Tcp(&'a str, u16),
    Unix(&'a str),
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let secure = matches!(scheme, "https" | "unixs");
        let place = match scheme {
            "unix" | "unixs" => Place::Unix(rest),
            "http" | "https" => {
                let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
                let host = host.strip_prefix('[').unwrap_or(host);
                let host = host.strip_suffix(']').unwrap_or(host);
                Place::Tcp(host, port.parse().ok()?)
            }
            _ => return None,
        };
        Some(Self { secure, place })
    }

    async fn socket(&self) -> io::Result<Socket> {
        match self.place {
            Place::Tcp(host, port) => Socket::connect_tcp(host, port).await,
            Place::Unix(path) => Socket::connect_unix(path).await,
        }
    }

    fn name(&self) -> &str {
        match self.place {
            Place::Tcp(host, _) => host,
            Place::Unix(path) => path.rsplit('/').next().unwrap_or(path),
        }
    }
}

impl Dialer {
    /// Connects to the first of some URLs, parted by commas, that answers.
    ///
    /// # Errors
    /// That of the last one.
    pub async fn dial(&self, urls: &str) -> io::Result<Stream> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "there is no peer URL");
        for url in urls.split(',') {
            let Some(target) = Target::parse(url) else {
                let text = format!("{url:?} is no peer URL");
                last = io::Error::new(io::ErrorKind::InvalidInput, text);
                continue;
            };
            match self.dial_one(&target).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = io::Error::new(error.kind(), format!("{url}: {error}")),
            }
        }
        Err(last)
    }

    async fn dial_one(&self, target: &Target<'_>) -> io::Result<Stream> {
        let identity = match &self.identity {
            Some(identity) if self.either => {
                return either(identity, target).await;
            }
            Some(identity) if target.secure => identity,
            None if target.secure => {
                let text = "TLS is asked for, and this member has no certificates for peers";
                return Err(io::Error::other(text));
            }
            Some(_) | None => return target.socket().await.map(Stream::from),
        };
        identity.secure(target.socket().await?, target.name()).await
    }
}

async fn either(identity: &Identity, target: &Target<'_>) -> io::Result<Stream> {
    let socket = target.socket().await?;
    let first = identity.secure(socket, target.name());
    match tokio::time::timeout(FIRST_TRY, first).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, peer = target.name(), "no TLS with a peer; plaintext then");
            target.socket().await.map(Stream::from)
        }
        Err(_) => {
            tracing::debug!(
                peer = target.name(),
                "TLS with a peer is slow; plaintext then"
            );
            target.socket().await.map(Stream::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_url_that_answers_is_taken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let dialer = Dialer::default();
        let urls = format!("https://127.0.0.1:{port},ftp://x:1,http://127.0.0.1:{port}");
        let stream = dialer.dial(&urls).await.expect("the third answers");
        assert!(!stream.is_secure());
        let error = dialer.dial("").await.expect_err("nobody is named");
        assert_eq!(error.to_string(), "\"\" is no peer URL");
        let error = dialer.dial("https://[::1]:1").await.expect_err("no TLS");
        assert!(
            error
                .to_string()
                .starts_with("https://[::1]:1: TLS is asked for")
        );
    }
}
