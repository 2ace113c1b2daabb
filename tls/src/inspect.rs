//! A certificate and its key that are not in files yet: whether a handshake would go well.
//!
//! Names in errors are the keys of a Secret of the type `kubernetes.io/tls`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use crate::files;
use crate::leaf::Leaf;
use crate::options::{Allowed, Error, Options};
use crate::revocation::Revoked;
use crate::suites;
use crate::verify::{Callers, Servers};

/// What each certificate of a PEM bundle says.
///
/// # Errors
/// There is none, or one is malformed.
pub fn certificates(pem: &[u8]) -> Result<Vec<Leaf>, Error> {
    let path = Path::new("ca.crt");
    let read = |der: &CertificateDer<'_>| Leaf::parse(der);
    let all = files::certificates(path, pem)?;
    let all: Result<_, _> = all.iter().map(read).collect();
    all.map_err(|reason| Error::file(path, reason))
}

/// Judges a pair in PEM as this crate's handshakes would at `now` (seconds since 1970): the key
/// belongs to the certificate, and one of `authorities` has signed it for what it may be used.
/// Which names it should have is for the caller to say.
///
/// # Errors
/// What is wrong with which of `tls.crt`, `tls.key` and `ca.crt`. Nothing of the key is in it.
pub fn inspect(
    certificate: &[u8],
    key: &[u8],
    authorities: &[u8],
    now: u64,
) -> Result<Leaf, Error> {
    let (cert_file, key_file) = (Path::new("tls.crt"), Path::new("tls.key"));
    let provider = suites::provider(&Options::default())?;
    let (certified, leaf) = files::matched((cert_file, key_file), (certificate, key), &provider)?;
    let authorities = files::certificates(Path::new("ca.crt"), authorities)?;
    let (end_entity, intermediates) = match certified.cert.split_first() {
        Some((first, rest)) => (first, rest),
        None => return Err(Error::file(cert_file, "x509: there is no certificate")),
    };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let refused = |error: rustls::Error| Error::file(cert_file, format!("x509: {error}"));
    if leaf.may_call {
        let (all, provider) = (authorities.clone(), Arc::clone(&provider));
        Callers::new(all, Allowed::All, Revoked::new(), provider)?
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(refused)?;
    }
    if let Some(name) = a_name(&leaf).filter(|_| leaf.may_serve) {
        Servers::new(authorities, Allowed::All, provider)?
            .verify_server_cert(end_entity, intermediates, &name, &[], now)
            .map_err(refused)?;
    }
    Ok(leaf)
}

/// A name that the certificate is valid for.
fn a_name(leaf: &Leaf) -> Option<ServerName<'static>> {
    let names = leaf.dns_names.iter();
    let names = names.map(|name| name.replacen('*', "any", 1));
    let addresses = leaf.addresses.iter().map(ToString::to_string);
    names
        .chain(addresses)
        .find_map(|name| ServerName::try_from(name).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    struct Pair(String, String);

    fn authority() -> (String, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        (pem, Issuer::new(params, key))
    }

    fn issue(
        issuer: &Issuer<'static, KeyPair>,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        Pair(certificate.pem(), key.serialize_pem())
    }

    fn judge(pair: &Pair, authority: &str) -> Result<Leaf, Error> {
        inspect(
            pair.0.as_bytes(),
            pair.1.as_bytes(),
            authority.as_bytes(),
            2_000_000_000,
        )
    }

    #[test]
    fn a_pair_is_judged_as_in_a_handshake() {
        let ((ours, issuer), (other, stranger)) = (authority(), authority());
        let server = ["*.demo-peer.team.svc"];
        let server = issue(&issuer, &server, ExtendedKeyUsagePurpose::ServerAuth);
        let leaf = judge(&server, &ours).expect("it is good");
        assert!(leaf.is_valid_for("demo-abcdef.demo-peer.team.svc") && !leaf.may_call);
        assert!(!leaf.is_valid_for("demo-peer.team.svc"));
        assert!(judge(&server, &other).is_err());
        assert!(judge(&server, &format!("{other}{ours}")).is_ok());
        let client = issue(&stranger, &[], ExtendedKeyUsagePurpose::ClientAuth);
        assert!(judge(&client, &other).is_ok() && judge(&client, &ours).is_err());
        let mixed = Pair(client.0.clone(), server.1);
        let error = judge(&mixed, &other)
            .expect_err("the key is another's")
            .to_string();
        assert!(
            error.starts_with("tls.key: ") && error.contains("does not match"),
            "{error}"
        );
        let expired = inspect(
            client.0.as_bytes(),
            client.1.as_bytes(),
            other.as_bytes(),
            u64::MAX / 4,
        );
        assert!(expired.is_err());
        assert!(inspect(b"", client.1.as_bytes(), other.as_bytes(), 1).is_err());
    }

    #[test]
    fn a_bundle_is_read() {
        let (ours, _) = authority();
        assert_eq!(
            certificates(format!("{ours}{ours}").as_bytes()).map(|all| all.len()),
            Ok(2)
        );
        assert!(certificates(b"nothing").is_err());
    }
}
