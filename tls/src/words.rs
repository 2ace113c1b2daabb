//! What went wrong in a handshake, in the words of Go, which operators of etcd know.
//!
//! Go: crypto/tls/alert.go, crypto/x509/verify.go.

use std::io;

use rustls::{
    AlertDescription, CertificateError, Error as TlsError, InvalidMessage, PeerMisbehaved,
};

/// An error of a handshake with Go's words where there are some.
pub fn in_words_of_go(error: io::Error) -> io::Error {
    let inner = error.get_ref();
    let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return error;
    };
    let kind = error.kind();
    io::Error::new(kind, words(tls))
}

fn words(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(error) => {
            format!("tls: failed to verify certificate: {}", certificate(error))
        }
        TlsError::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        TlsError::AlertReceived(alert) => format!("remote error: tls: {}", told(*alert)),
        TlsError::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "tls: first record does not look like a TLS handshake".to_owned(),
        TlsError::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments) => {
            "tls: too many empty records".to_owned()
        }
        other => format!("tls: {other}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "x509: certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "x509: certificate has expired or is not yet valid: it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "x509: certificate has expired or is not yet valid: it is not valid yet".to_owned()
        }
        CertificateError::Revoked => "transport: certificate serial revoked".to_owned(),
        CertificateError::NotValidForName => {
            "x509: certificate is not valid for the name that was dialed".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "x509: certificate is valid for {}, not {}",
            presented.join(", "),
            expected.to_str()
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "x509: certificate specifies an incompatible key usage".to_owned()
        }
        CertificateError::Other(error) => error.to_string(),
        other => format!("x509: {other:?}"),
    }
}

fn told(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::BadCertificate => "bad certificate".to_owned(),
        AlertDescription::CertificateRequired => "certificate required".to_owned(),
        AlertDescription::CertificateRevoked => "revoked certificate".to_owned(),
        AlertDescription::CertificateExpired => "expired certificate".to_owned(),
        AlertDescription::CertificateUnknown => "unknown certificate".to_owned(),
        AlertDescription::UnknownCA => "unknown certificate authority".to_owned(),
        AlertDescription::AccessDenied => "access denied".to_owned(),
        AlertDescription::HandshakeFailure => "handshake failure".to_owned(),
        AlertDescription::ProtocolVersion => "protocol version not supported".to_owned(),
        AlertDescription::NoApplicationProtocol => "no application protocol".to_owned(),
        other => format!("{other:?}"),
    }
}
