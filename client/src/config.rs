//! What a client is told: endpoints, times and limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::Error;
use crate::limits;

/// How a [`crate::Client`] connects. Every field has a default, so name only what differs:
///
/// ```
/// use quorate_client::ClientConfig;
/// let config = ClientConfig {
///     endpoints: vec!["127.0.0.1:2379".into(), "http://127.0.0.1:22379".into()],
///     ..ClientConfig::default()
/// };
/// ```
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Where members listen: `host:port`, `http://host:port`, `unix:///path` (or `unix://name`
    /// for a path relative to the working directory). `https://` is refused until TLS comes.
    pub endpoints: Vec<String>,
    /// How long a connection may take to come up, and how long a call waits for any connection.
    pub dial_timeout: Duration,
    /// How long one call of the high-level methods may take, its repetitions included. Streams
    /// and calls that wait for others (a lock, a campaign) are not bounded by it.
    pub request_timeout: Duration,
    /// After how much silence on a connection with calls in flight a ping is sent. Servers of
    /// etcd hang up on clients that ping more often than every 5 seconds.
    pub keepalive_time: Duration,
    /// How long a ping may stay unanswered before the connection is given up.
    pub keepalive_timeout: Duration,
    /// The largest request that is sent, in bytes.
    pub max_request_bytes: usize,
    /// The largest response that is taken, in bytes.
    pub max_recv_bytes: usize,
    /// Certificates; not supported yet: must be `None`.
    pub tls: Option<TlsConfig>,
}

impl Default for ClientConfig {
    /// No endpoint; limits as in etcd's client, times in `limits.rs`.
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            dial_timeout: limits::DIAL_TIMEOUT,
            request_timeout: limits::REQUEST_TIMEOUT,
            keepalive_time: limits::KEEPALIVE_TIME,
            keepalive_timeout: limits::KEEPALIVE_TIMEOUT,
            max_request_bytes: limits::REQUEST_BYTES_MAX,
            max_recv_bytes: limits::RECEIVE_BYTES_MAX,
            tls: None,
        }
    }
}

impl ClientConfig {
    /// The defaults with these endpoints.
    pub fn new<I, S>(endpoints: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// The files of a TLS connection. The client refuses a configuration that has one: TLS is not
/// supported yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Who may sign the server's certificate.
    pub trusted_ca_file: Option<PathBuf>,
    /// The client's certificate.
    pub cert_file: Option<PathBuf>,
    /// The key of the client's certificate.
    pub key_file: Option<PathBuf>,
    /// The name to expect in the server's certificate, if not the endpoint's host.
    pub server_name: Option<String>,
    /// Whether the server's certificate is taken unseen.
    pub insecure_skip_verify: bool,
}

/// One endpoint, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As the user wrote it: what messages show.
    pub(crate) name: String,
    /// The `:authority` of its calls.
    pub(crate) authority: http::uri::Authority,
    pub(crate) address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Endpoint {
    /// # Errors
    /// [`Error::Invalid`] if `text` is no endpoint, or one that needs TLS.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::Invalid {
            text: format!("endpoint {text:?}: {why}"),
        };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => match text.strip_prefix("unix:") {
                Some(rest) => ("unix", rest),
                None => ("http", text),
            },
        };
        match scheme {
            "http" => {
                let authority = rest.strip_suffix('/').unwrap_or(rest);
                let authority: http::uri::Authority = authority
                    .parse()
                    .map_err(|_| invalid("expected host:port"))?;
                let port = authority
                    .port_u16()
                    .ok_or_else(|| invalid("expected host:port"))?;
                let host = authority.host();
                let host = host.strip_prefix('[').unwrap_or(host);
                let host = host.strip_suffix(']').unwrap_or(host).to_owned();
                if host.is_empty() {
                    return Err(invalid("expected host:port"));
                }
                Ok(Self {
                    name: text.to_owned(),
                    authority,
                    address: Address::Tcp { host, port },
                })
            }
            "unix" if !rest.is_empty() => Ok(Self {
                name: text.to_owned(),
                authority: http::uri::Authority::from_static("localhost"),
                address: Address::Unix(rest.into()),
            }),
            "unix" => Err(invalid("expected a path")),
            "https" | "unixs" => Err(invalid("TLS is not supported yet")),
            _ => Err(invalid("unknown scheme, expected http, https or unix")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_with_and_without_scheme() {
        let tcp = |host: &str, port| Address::Tcp {
            host: host.to_owned(),
            port,
        };
        for (text, address) in [
            ("127.0.0.1:2379", tcp("127.0.0.1", 2379)),
            ("http://node-1.svc:2379/", tcp("node-1.svc", 2379)),
            ("[::1]:2379", tcp("::1", 2379)),
            ("unix:///run/q.sock", Address::Unix("/run/q.sock".into())),
            ("unix:q.sock", Address::Unix("q.sock".into())),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().address, address, "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_its_name() {
        for text in [
            "",
            "host",
            "host:",
            "http://:2379",
            "ftp://a:1",
            "unix://",
            "a:99999",
        ] {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
        let error = Endpoint::parse("https://a:1").unwrap_err().to_string();
        assert!(error.contains("TLS is not supported yet"), "{error}");
    }
}
