//! Who is believed: webpki's judgement, and beside it what Go and etcd judge differently.
//!
//! Go believes a certificate that itself stands among the trusted ones; webpki never takes a CA's
//! certificate for an end entity's, as self-signed ones often are. etcd asks further for common
//! names, host names and revoked serial numbers.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError,
    RootCertStore, SignatureScheme,
};

use crate::leaf::Leaf;
use crate::options::{Allowed, Error};
use crate::revocation::Revoked;

/// A judgement of etcd's, with its words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(&'static str);

fn refused(text: &'static str) -> TlsError {
    TlsError::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(text)))))
}

/// Trusted certificates, and those that are believed as they stand.
#[derive(Debug)]
struct Trust {
    authorities: Vec<CertificateDer<'static>>,
    allowed: Allowed,
}

/// What a certificate is shown for.
#[derive(Clone, Copy)]
enum Use<'a> {
    Call,
    Serve(&'a ServerName<'a>),
}

impl Trust {
    /// A verdict on a certificate that is itself trusted; none when it is not.
    fn itself(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixTime,
        shown: Use<'_>,
    ) -> Option<Result<(), TlsError>> {
        self.authorities
            .iter()
            .any(|trusted| trusted.as_ref() == certificate.as_ref())
            .then(|| judge(&leaf(certificate)?, now, shown))
    }

    fn check_allowed(&self, certificate: &CertificateDer<'_>) -> Result<(), TlsError> {
        let allowed = match &self.allowed {
            Allowed::All => return Ok(()),
            Allowed::CommonNames(names) => {
                let leaf = leaf(certificate)?;
                let name = leaf.common_name.unwrap_or_default();
                names.contains(&name)
            }
            Allowed::Hostnames(names) => {
                let leaf = leaf(certificate)?;
                names.iter().any(|name| leaf.is_valid_for(name))
            }
        };
        match allowed {
            true => Ok(()),
            false => Err(refused("client certificate authentication failed")),
        }
    }
}

fn leaf(certificate: &CertificateDer<'_>) -> Result<Leaf, TlsError> {
    Leaf::parse(certificate)
        .map_err(|_| TlsError::InvalidCertificate(CertificateError::BadEncoding))
}

fn judge(leaf: &Leaf, now: UnixTime, shown: Use<'_>) -> Result<(), TlsError> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let fits = match shown {
        Use::Call => leaf.may_call,
        Use::Serve(_) => leaf.may_serve,
    };
    let error = match shown {
        _ if seconds > leaf.not_after => CertificateError::Expired,
        _ if seconds < leaf.not_before => CertificateError::NotValidYet,
        _ if !fits => CertificateError::InvalidPurpose,
        Use::Serve(name) if !leaf.is_valid_for(&name.to_str()) => CertificateError::NotValidForName,
        Use::Call | Use::Serve(_) => return Ok(()),
    };
    Err(TlsError::InvalidCertificate(error))
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority.clone())
            .map_err(|error| Error::Settings(format!("x509: a trusted CA: {error}")))?;
    }
    Ok(Arc::new(roots))
}

/// Judges callers.
#[derive(Debug)]
pub struct Callers {
    webpki: Arc<dyn ClientCertVerifier>,
    trust: Trust,
    revoked: Revoked,
}

impl Callers {
    pub fn new(
        authorities: Vec<CertificateDer<'static>>,
        allowed: Allowed,
        revoked: Revoked,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let webpki = WebPkiClientVerifier::builder_with_provider(roots(&authorities)?, provider)
            .build()
            .map_err(|error| Error::Settings(format!("trusted CAs: {error}")))?;
        Ok(Self {
            webpki,
            trust: Trust {
                authorities,
                allowed,
            },
            revoked,
        })
    }

    /// All that the caller shows is looked for, as etcd does.
    fn check_revoked(&self, shown: &[&CertificateDer<'_>]) -> Result<(), TlsError> {
        if self.revoked.is_empty() {
            return Ok(());
        }
        for certificate in shown {
            if self.revoked.contains(&leaf(certificate)?.serial) {
                return Err(TlsError::InvalidCertificate(CertificateError::Revoked));
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.webpki.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        match self.trust.itself(end_entity, now, Use::Call) {
            Some(verdict) => verdict?,
            None => {
                self.webpki
                    .verify_client_cert(end_entity, intermediates, now)?;
            }
        }
        let shown: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
        self.check_revoked(&shown)?;
        self.trust.check_allowed(end_entity)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.webpki
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.webpki
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Judges servers.
#[derive(Debug)]
pub struct Servers {
    /// None: everybody is believed.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Servers {
    pub fn new(
        authorities: Vec<CertificateDer<'static>>,
        allowed: Allowed,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let roots = roots(&authorities)?;
        let webpki = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| Error::Settings(format!("trusted CAs: {error}")))?;
        Ok(Self {
            webpki: Some(webpki),
            trust: Trust {
                authorities,
                allowed,
            },
            provider,
        })
    }

    /// Believes everybody who holds the key of the certificate that is shown.
    pub fn unseen(provider: Arc<CryptoProvider>) -> Self {
        Self {
            webpki: None,
            trust: Trust {
                authorities: Vec::new(),
                allowed: Allowed::All,
            },
            provider,
        }
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(webpki) = &self.webpki else {
            return Ok(ServerCertVerified::assertion());
        };
        match self.trust.itself(end_entity, now, Use::Serve(name)) {
            Some(verdict) => verdict?,
            None => {
                webpki.verify_server_cert(end_entity, intermediates, name, stapled, now)?;
            }
        }
        self.trust.check_allowed(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
