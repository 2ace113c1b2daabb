//! Cipher suites by Go's names, and versions, as a provider of cryptography.
//!
//! etcd: client/pkg/tlsutil/cipher_suites.go; Go: crypto/tls/cipher_suites.go.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};

use crate::options::{Error, Options, Version};

const COMMON: [(&str, CipherSuite); 11] = [
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Suites that Go has and rustls has not: without forward secrecy, or not authenticated.
const ONLY_GO: [&str; 16] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

/// Checks names of cipher suites; gives back those that are known and left out here.
///
/// # Errors
/// A name that Go does not know, in etcd's words; or that none of the suites can be had.
pub fn check_suites(names: &[String]) -> Result<Vec<String>, Error> {
    let mut left_out = Vec::new();
    for name in names {
        if COMMON.iter().any(|(known, _)| known == name) {
            continue;
        }
        if !ONLY_GO.contains(&name.as_str()) {
            let text = format!("unexpected TLS cipher suite {name:?}");
            return Err(Error::Settings(text));
        }
        left_out.push(name.clone());
    }
    if !names.is_empty() && left_out.len() == names.len() {
        return Err(Error::Settings(format!(
            "none of the cipher suites {names:?} is supported; take one of {:?}",
            COMMON.map(|(name, _)| name)
        )));
    }
    Ok(left_out)
}

/// The provider with the suites of `options`. Suites of TLS 1.3 cannot be chosen, as in Go.
pub fn provider(options: &Options) -> Result<Arc<CryptoProvider>, Error> {
    check_suites(&options.cipher_suites)?;
    let mut provider = ring::default_provider();
    if !options.cipher_suites.is_empty() {
        let chosen: Vec<CipherSuite> = options
            .cipher_suites
            .iter()
            .filter_map(|name| COMMON.iter().find(|(known, _)| known == name))
            .map(|(_, suite)| *suite)
            .collect();
        provider.cipher_suites.retain(|suite| match suite {
            SupportedCipherSuite::Tls13(_) => true,
            SupportedCipherSuite::Tls12(_) => chosen.contains(&suite.suite()),
        });
    }
    Ok(Arc::new(provider))
}

/// The versions of `options`.
pub fn versions(options: &Options) -> Vec<&'static SupportedProtocolVersion> {
    let within = |version| {
        options.min_version.is_none_or(|min| min <= version)
            && options.max_version.is_none_or(|max| version <= max)
    };
    let known = [
        (Version::Tls13, &rustls::version::TLS13),
        (Version::Tls12, &rustls::version::TLS12),
    ];
    let chosen = known.into_iter().filter(|(version, _)| within(*version));
    chosen.map(|(_, supported)| supported).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn suites_are_known_left_out_or_refused() {
        let both = names(&[
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_RSA_WITH_AES_256_GCM_SHA384",
        ]);
        assert_eq!(
            check_suites(&both),
            Ok(names(&["TLS_RSA_WITH_AES_256_GCM_SHA384"]))
        );
        let error = check_suites(&names(&["TLS_NOPE"])).expect_err("Go does not know it");
        assert_eq!(
            error.to_string(),
            "unexpected TLS cipher suite \"TLS_NOPE\""
        );
        let error = check_suites(&names(&["TLS_RSA_WITH_RC4_128_SHA"])).expect_err("none is left");
        assert!(error.to_string().starts_with("none of the cipher suites"));

        let options = Options {
            cipher_suites: both,
            ..Options::default()
        };
        let provider = provider(&options).expect("one is left");
        let old = provider
            .cipher_suites
            .iter()
            .filter(|suite| matches!(suite, SupportedCipherSuite::Tls12(_)));
        let old: Vec<_> = old.map(SupportedCipherSuite::suite).collect();
        assert_eq!(old, [CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
    }

    #[test]
    fn versions_are_bounded() {
        let options = |min_version, max_version| Options {
            min_version,
            max_version,
            ..Options::default()
        };
        assert_eq!(versions(&options(None, None)).len(), 2);
        assert_eq!(versions(&options(Some(Version::Tls13), None)).len(), 1);
        assert_eq!(versions(&options(None, Some(Version::Tls12))).len(), 1);
        assert_eq!(
            Version::parse("TLS1.1").map_err(|error| error.to_string()),
            Err("unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)".to_owned())
        );
    }
}
