//! Making keys and signing certificates: the only place of chance here.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use super::leaves::Purpose;

/// Clocks of members may be behind the operator's by so much.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// A key or a certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a certificate for {what} cannot be made: {source}")]
pub struct Error {
    what: String,
    source: rcgen::Error,
}

/// A certificate and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Makes an authority.
///
/// # Errors
/// The key or the certificate could not be made.
pub fn authority(name: &str, now: Timestamp, until: Timestamp) -> Result<Pair, Error> {
    let failed = |source| Error {
        what: name.to_owned(),
        source,
    };
    let mut params = authority_params(name);
    params.not_before = (SystemTime::from(now) - CLOCK_SKEW).into();
    params.not_after = SystemTime::from(until).into();
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// What a leaf is to be.
pub struct Request<'a> {
    pub purpose: Purpose,
    pub names: &'a [String],
    pub until: Timestamp,
}

/// Issues a leaf by the authority of this common name and key.
///
/// # Errors
/// A name is none, or the key or the certificate could not be made.
pub fn leaf(
    request: &Request<'_>,
    (authority, key): (&str, &str),
    now: Timestamp,
) -> Result<Pair, Error> {
    let failed = |source| Error {
        what: request.purpose.common_name().to_owned(),
        source,
    };
    let issuer_key = KeyPair::from_pem(key).map_err(failed)?;
    let issuer = Issuer::new(authority_params(authority), issuer_key);
    let mut params = CertificateParams::new(request.names).map_err(failed)?;
    params.distinguished_name = named(request.purpose.common_name());
    params.not_before = (SystemTime::from(now) - CLOCK_SKEW).into();
    params.not_after = SystemTime::from(request.until).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let usages = [
        (
            request.purpose.serves(),
            ExtendedKeyUsagePurpose::ServerAuth,
        ),
        (request.purpose.calls(), ExtendedKeyUsagePurpose::ClientAuth),
    ];
    let usages = usages.into_iter().filter(|(wanted, _)| *wanted);
    params.extended_key_usages = usages.map(|(_, usage)| usage).collect();
    params.use_authority_key_identifier_extension = true;
    let own = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&own, &issuer).map_err(failed)?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: own.serialize_pem(),
    })
}
