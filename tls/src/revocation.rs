//! Certificate revocation lists: who issued them, and which serial numbers they hold.
//!
//! etcd: client/pkg/transport/listener_tls.go (checkCRL), which compares serial numbers alone.

use std::collections::HashSet;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::error::X509Error;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::leaf::without_zeros;

/// The serial numbers of revoked certificates.
pub type Revoked = HashSet<Vec<u8>>;

/// Reads a list in DER, as etcd does, or lists in PEM.
///
/// # Errors
/// What is wrong with the file, or that no CA in `authorities` issued a list of it.
pub fn read(bytes: &[u8], authorities: &[CertificateDer<'static>]) -> Result<Revoked, String> {
    let mut revoked = Revoked::new();
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("malformed crl: {error}"))?;
    if lists.is_empty() {
        read_one(bytes, authorities, &mut revoked)?;
    }
    for list in &lists {
        read_one(list, authorities, &mut revoked)?;
    }
    Ok(revoked)
}

fn read_one(
    der: &[u8],
    authorities: &[CertificateDer<'static>],
    revoked: &mut Revoked,
) -> Result<(), String> {
    let (rest, list) = CertificateRevocationList::from_der(der)
        .map_err(|_| "x509: malformed crl: it is no revocation list in DER or PEM".to_owned())?;
    if !rest.is_empty() {
        return Err("x509: malformed crl: something follows the list".to_owned());
    }
    // Without a CA of ours, callers are those of the system's CAs, which cannot all be asked.
    if !authorities.is_empty() && !authorities.iter().any(|ca| issued(ca, &list)) {
        return Err(format!(
            "the revocation list was issued by {:?}, which is none of the trusted CAs",
            list.issuer().to_string()
        ));
    }
    for entry in list.iter_revoked_certificates() {
        revoked.insert(without_zeros(entry.raw_serial()));
    }
    Ok(())
}

fn issued(authority: &CertificateDer<'_>, list: &CertificateRevocationList<'_>) -> bool {
    let Ok((_, authority)) = X509Certificate::from_der(authority) else {
        return false;
    };
    if authority.subject().as_raw() != list.issuer().as_raw() {
        return false;
    }
    match list.verify_signature(authority.public_key()) {
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
        Err(_) => false,
    }
}
