//! Whether a caller's certificate belongs to the address from which it calls.
//!
//! etcd: client/pkg/transport/listener_tls.go (checkCertSAN, isHostInDNS).

use std::net::IpAddr;

use crate::leaf::Leaf;

/// Checks the names of a certificate against the caller's address: an address in it, the names
/// that the address has, or the addresses that its names have.
///
/// # Errors
/// etcd's words.
pub async fn check(leaf: &Leaf, remote: IpAddr) -> Result<(), String> {
    let remote = remote.to_canonical();
    let (addresses, names) = (&leaf.addresses, &leaf.dns_names);
    if (addresses.is_empty() && names.is_empty()) || leaf.has_address(remote) {
        return Ok(());
    }
    if names.is_empty() {
        let known: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        return Err(format!(
            "x509: certificate is valid for {}, not {remote}",
            known.join(", ")
        ));
    }
    // The system's resolver blocks; it has limits of its own, and the handshake has one.
    let reverse = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&remote).ok());
    if let Ok(Some(found)) = reverse.await {
        let found = found.strip_suffix('.').unwrap_or(&found);
        if names.iter().any(|name| belongs(name, found)) {
            return Ok(());
        }
    }
    for name in names.iter().filter(|name| !name.starts_with("*.")) {
        if let Ok(mut found) = tokio::net::lookup_host((name.as_str(), 0)).await
            && found.any(|address| address.ip().to_canonical() == remote)
        {
            return Ok(());
        }
    }
    Err(format!(
        "tls: \"{remote}\" does not match any of DNSNames {names:?}"
    ))
}

fn belongs(name: &str, found: &str) -> bool {
    match name.strip_prefix('*') {
        Some(end) if end.starts_with('.') => found.ends_with(end),
        _ => name == found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(names: &[&str]) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).expect("names are in order");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Leaf::parse(certificate.der()).expect("it is in order")
    }

    #[tokio::test]
    async fn callers_must_be_where_their_certificate_says() {
        let here: IpAddr = [127, 0, 0, 1].into();
        let mapped = "::ffff:127.0.0.1".parse().expect("an address");
        assert_eq!(check(&leaf(&[]), here).await, Ok(()));
        assert_eq!(check(&leaf(&["127.0.0.1"]), here).await, Ok(()));
        assert_eq!(check(&leaf(&["127.0.0.1"]), mapped).await, Ok(()));
        assert_eq!(check(&leaf(&["localhost"]), here).await, Ok(()));
        assert_eq!(
            check(&leaf(&["127.0.0.9"]), here).await,
            Err("x509: certificate is valid for 127.0.0.9, not 127.0.0.1".to_owned())
        );
        assert_eq!(
            check(&leaf(&["peer.invalid"]), here).await,
            Err("tls: \"127.0.0.1\" does not match any of DNSNames [\"peer.invalid\"]".to_owned())
        );
        assert!(belongs("*.example", "a.example") && !belongs("*.example", "example"));
    }
}
