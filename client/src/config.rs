//! What a client is told: endpoints, times and limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quorate_tls::{Identity, Options};

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
    /// Where members listen: `host:port`, `http://host:port`, `https://host:port`,
    /// `unix:///path` (or `unix://name` for a path relative to the working directory) and
    /// `unixs://…`. Without a scheme, and for `unix`, it is TLS if `tls` is given.
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
    /// Certificates and trust of TLS; without, `https` trusts whom the operating system trusts.
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

/// The files of TLS connections. They are looked at again before each connection; files that
/// changed and cannot be used leave the old ones in use.
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

impl TlsConfig {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`Error::Invalid`] with etcd's text and the file's name.
    pub fn check(&self) -> Result<(), Error> {
        self.load().map(drop)
    }

    pub(crate) fn load(&self) -> Result<Arc<Identity>, Error> {
        let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
        let options = Options {
            cert_file: path(&self.cert_file),
            key_file: path(&self.key_file),
            trusted_ca_file: path(&self.trusted_ca_file),
            server_name: self.server_name.clone().unwrap_or_default(),
            skip_verify: self.insecure_skip_verify,
            ..Options::default()
        };
        let identity = Identity::load(options).map_err(|error| Error::Invalid {
            text: error.to_string(),
        })?;
        Ok(Arc::new(identity))
    }
}

/// One endpoint, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As the user wrote it: what messages show.
    pub(crate) name: String,
    /// The `:authority` of its calls.
    pub(crate) authority: http::uri::Authority,
    pub(crate) address: Address,
    /// Whether it is spoken to over TLS.
    pub(crate) secure: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Endpoint {
    /// The `:scheme` of its calls.
    pub(crate) fn scheme(&self) -> http::uri::Scheme {
        match self.secure {
            true => http::uri::Scheme::HTTPS,
            false => http::uri::Scheme::HTTP,
        }
    }

    /// # Errors
    /// [`Error::Invalid`] if `text` is no endpoint.
    pub(crate) fn parse(text: &str, has_tls: bool) -> Result<Self, Error> {
        let invalid = |why: &str| Error::Invalid {
            text: format!("endpoint {text:?}: {why}"),
        };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => match text.split_once(':') {
                Some((scheme @ ("unix" | "unixs"), rest)) => (scheme, rest),
                _ => ("", text),
            },
        };
        // etcd: client/v3/internal/endpoint/endpoint.go (schemeToCredsRequirement).
        let secure = match scheme {
            "https" | "unixs" => true,
            "http" => false,
            _ => has_tls,
        };
        match scheme {
            "" | "http" | "https" => {
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
                    secure,
                })
            }
            "unix" | "unixs" if !rest.is_empty() => Ok(Self {
                name: text.to_owned(),
                authority: http::uri::Authority::from_static("localhost"),
                address: Address::Unix(rest.into()),
                secure,
            }),
            "unix" | "unixs" => Err(invalid("expected a path")),
            _ => Err(invalid(
                "unknown scheme, expected http, https, unix or unixs",
            )),
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
            let endpoint = Endpoint::parse(text, false).unwrap();
            assert_eq!(endpoint.address, address, "{text}");
            assert!(!endpoint.secure, "{text}");
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
            let error = Endpoint::parse(text, false).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn the_scheme_decides_on_tls_and_without_one_the_settings() {
        for (text, without, with) in [
            ("a:1", false, true),
            ("http://a:1", false, false),
            ("https://a:1", true, true),
            ("unix:///s", false, true),
            ("unixs:///s", true, true),
            ("unixs:s", true, true),
        ] {
            let secure = |has_tls| Endpoint::parse(text, has_tls).unwrap().secure;
            assert_eq!((secure(false), secure(true)), (without, with), "{text}");
        }
    }

    #[test]
    fn wrong_files_are_told_by_name() {
        let tls = TlsConfig {
            trusted_ca_file: Some("/nonexistent/ca.pem".into()),
            ..TlsConfig::default()
        };
        let error = tls.check().unwrap_err().to_string();
        assert_eq!(error, "open /nonexistent/ca.pem: no such file or directory");
        let tls = TlsConfig {
            key_file: Some("k.pem".into()),
            ..TlsConfig::default()
        };
        let error = tls.check().unwrap_err().to_string();
        assert_eq!(
            error,
            "KeyFile and CertFile must both be present[key: k.pem, cert: ]"
        );
    }
}
