//! What is asked for, before any file is read.

use std::path::PathBuf;

/// Why TLS cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, in Go's words.
    #[error("open {}: {reason}", path.display())]
    Open { path: PathBuf, reason: String },
    /// A file holds something else than it should.
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    /// Settings that do not fit together.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    pub(crate) fn file(path: &std::path::Path, reason: impl std::fmt::Display) -> Self {
        Self::File {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// Whose certificates are taken beyond what the CA says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Allowed {
    #[default]
    All,
    CommonNames(Vec<String>),
    /// DNS names or addresses, of which a certificate must be valid for one.
    Hostnames(Vec<String>),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Tls12,
    Tls13,
}

impl Version {
    /// etcd: client/pkg/tlsutil/versions.go.
    ///
    /// # Errors
    /// etcd's words. An empty text is none.
    pub fn parse(text: &str) -> Result<Option<Self>, Error> {
        match text {
            "" => Ok(None),
            "TLS1.2" => Ok(Some(Self::Tls12)),
            "TLS1.3" => Ok(Some(Self::Tls13)),
            _ => Err(Error::Settings(format!(
                "unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)"
            ))),
        }
    }
}

/// One side's TLS: that of clients, of peers, or of a client program. An empty path is none.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Shown to servers instead of `cert_file`.
    pub client_cert_file: PathBuf,
    pub client_key_file: PathBuf,
    /// Who may have signed the certificates of others; the system's CAs when there is none.
    pub trusted_ca_file: PathBuf,
    /// Revoked certificates of callers.
    pub crl_file: PathBuf,
    /// Callers need a certificate. They do too when `trusted_ca_file` is given, as in etcd.
    pub client_cert_auth: bool,
    pub allowed: Allowed,
    /// Servers are believed whoever signed them.
    pub skip_verify: bool,
    /// The name to expect in a server's certificate, if not the one that was dialed.
    pub server_name: String,
    /// Connections to servers are for HTTP/1.1 and not for HTTP/2.
    pub calls_http1: bool,
    /// Go's names; empty for all.
    pub cipher_suites: Vec<String>,
    pub min_version: Option<Version>,
    pub max_version: Option<Version>,
}

impl Options {
    /// Whether there is no certificate: nothing can be served over TLS.
    pub fn is_empty(&self) -> bool {
        self.cert_file.as_os_str().is_empty() && self.key_file.as_os_str().is_empty()
    }

    /// Whether callers must show a certificate.
    pub fn callers_need_certificate(&self) -> bool {
        self.client_cert_auth || !self.trusted_ca_file.as_os_str().is_empty()
    }

    /// etcd: TLSInfo.baseConfig.
    pub(crate) fn check_pairs(&self) -> Result<(), Error> {
        let (cert, key) = (&self.cert_file, &self.key_file);
        if !self.is_empty() && (cert.as_os_str().is_empty() || key.as_os_str().is_empty()) {
            return Err(Error::Settings(format!(
                "KeyFile and CertFile must both be present[key: {}, cert: {}]",
                key.display(),
                cert.display()
            )));
        }
        let (cert, key) = (&self.client_cert_file, &self.client_key_file);
        if cert.as_os_str().is_empty() != key.as_os_str().is_empty() {
            return Err(Error::Settings(format!(
                "ClientKeyFile and ClientCertFile must both be present or both absent: \
                 key: {}, cert: {}]",
                key.display(),
                cert.display()
            )));
        }
        Ok(())
    }
}
