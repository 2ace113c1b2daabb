//! What is read of a certificate, and which names it is valid for in Go's eyes.
//!
//! Go: crypto/x509/verify.go (VerifyHostname, matchHostnames).

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The part of a certificate that is judged here and not by webpki.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The last of several.
    pub common_name: Option<String>,
    /// Addresses that it is valid for.
    pub addresses: Vec<IpAddr>,
    /// DNS names that it is valid for; the first label may be `*`.
    pub dns_names: Vec<String>,
    /// Big endian, without leading zeros.
    pub serial: Vec<u8>,
    /// From when on it is valid, in seconds since 1970.
    pub not_before: i64,
    /// Until when it is valid, in seconds since 1970.
    pub not_after: i64,
    /// A server may show it: no extended key usage, or one that allows it.
    pub may_serve: bool,
    /// A client may show it: no extended key usage, or one that allows it.
    pub may_call: bool,
}

impl Leaf {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| format!("x509: {error}"))?;
        let usage = certificate
            .extended_key_usage()
            .map_err(|error| format!("x509: {error}"))?;
        let usage = usage.map(|usage| usage.value);
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| format!("x509: {error}"))?;
        let mut leaf = Self {
            // Go keeps the last of several.
            common_name: certificate
                .subject()
                .iter_common_name()
                .last()
                .and_then(|name| name.as_str().ok())
                .map(str::to_owned),
            addresses: Vec::new(),
            dns_names: Vec::new(),
            serial: without_zeros(certificate.raw_serial()),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            may_serve: usage.is_none_or(|usage| usage.any || usage.server_auth),
            may_call: usage.is_none_or(|usage| usage.any || usage.client_auth),
        };
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => leaf.dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => leaf.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(leaf)
    }

    /// Whether the certificate is valid for a DNS name or an address. The common name does not
    /// count.
    pub fn is_valid_for(&self, name: &str) -> bool {
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        match bare.parse::<IpAddr>() {
            Ok(address) => self.has_address(address),
            Err(_) => self.dns_names.iter().any(|pattern| matches(pattern, name)),
        }
    }

    /// Whether an address stands in it.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|known| known.to_canonical() == address.to_canonical())
    }
}

/// A serial number in the form in which it is compared.
pub fn without_zeros(serial: &[u8]) -> Vec<u8> {
    let start = serial.iter().position(|byte| *byte != 0);
    start.map_or_else(Vec::new, |start| serial[start..].to_vec())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let (mut ours, mut theirs) = (pattern.split('.'), host.split('.'));
    if pattern.is_empty() || host.is_empty() {
        return false;
    }
    let mut first = true;
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some("*"), Some(label)) if first && !label.is_empty() => {}
            (Some(ours), Some(theirs)) if ours.eq_ignore_ascii_case(theirs) => {}
            _ => return false,
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        for (pattern, host, expected) in [
            ("a.example", "A.example.", true),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", false),
            ("*.example", "example", false),
            ("a.*", "a.example", false),
            ("", "", false),
        ] {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn a_certificate_is_read() {
        let mut params = rcgen::CertificateParams::new(vec![
            "a.example".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ])
        .expect("names are in order");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "someone");
        params.serial_number = Some(vec![0, 7, 8].into());
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let leaf = Leaf::parse(certificate.der()).expect("it is in order");
        assert_eq!(leaf.common_name.as_deref(), Some("someone"));
        assert_eq!(leaf.serial, [7, 8]);
        assert!(leaf.may_call && !leaf.may_serve);
        assert!(leaf.is_valid_for("a.example") && leaf.is_valid_for("[::1]"));
        assert!(leaf.is_valid_for("127.0.0.1") && !leaf.is_valid_for("127.0.0.2"));
        assert!(!leaf.is_valid_for("someone"));
        assert!(Leaf::parse(b"nothing").is_err());
    }
}
