//! TLS of clients and peers as the flags tell it.
//!
//! etcd: server/embed/config.go (Validate, updateCipherSuites), server/embed/etcd.go
//! (configureClientListeners).

use quorate_tls::{Allowed, Options, Version, check_suites};

use super::parts::Listen;
use super::source::{Error, Notice, Values};
use super::urls::Url;

/// TLS of both sides.
#[derive(Debug, Clone)]
pub struct Security {
    pub client: Side,
    pub peer: Side,
    /// How long certificates are valid that a member makes for itself.
    pub self_signed_years: u32,
    /// Callers' certificates need not belong to their addresses.
    pub skip_peer_addresses: bool,
}

/// TLS of one side.
#[derive(Debug, Clone)]
pub struct Side {
    pub options: Options,
    /// The member makes a certificate for itself.
    pub auto: bool,
    /// The side changes between plaintext and TLS: both are taken.
    pub migrating: bool,
}

impl Side {
    /// Whether there is, or will be, a certificate.
    pub fn has_certificate(&self) -> bool {
        self.auto || !self.options.is_empty()
    }
}

impl Security {
    pub(super) fn from_values(values: &mut Values) -> Result<Self, Error> {
        let invalid = |error: quorate_tls::Error| Error::Invalid(error.to_string());
        let (min, max) = (
            values.text("tls-min-version"),
            values.text("tls-max-version"),
        );
        let min_version = Version::parse(min).map_err(invalid)?;
        let max_version = Version::parse(max).map_err(invalid)?;
        if min_version.is_some() && max_version.is_some() && min_version > max_version {
            return Err(Error::Invalid(format!(
                "min version ({min}) is greater than max version ({max})"
            )));
        }
        let cipher_suites = values.texts("cipher-suites");
        if min_version == Some(Version::Tls13) && !cipher_suites.is_empty() {
            return Err(Error::Invalid(
                "cipher suites cannot be configured when only TLS1.3 is enabled".to_owned(),
            ));
        }
        for suite in check_suites(&cipher_suites).map_err(invalid)? {
            values.notices.push(Notice {
                flag: "cipher-suites".to_owned(),
                value: suite,
                text: "this cipher suite is left out: it is weak and not supported".to_owned(),
            });
        }
        let migrating = values.texts("quorate-tls-migration");
        if let Some(other) = migrating
            .iter()
            .find(|side| !SIDES.contains(&side.as_str()))
        {
            return Err(Error::Invalid(format!(
                "--quorate-tls-migration: {other:?} is no side; they are {SIDES:?}"
            )));
        }
        let side = |name: &str, prefix: &str| -> Result<Side, Error> {
            let mut side = side(values, prefix)?;
            side.options.cipher_suites.clone_from(&cipher_suites);
            side.options.min_version = min_version;
            side.options.max_version = max_version;
            side.migrating = migrating.iter().any(|side| side == name);
            Ok(side)
        };
        let self_signed_years = match values.number("self-signed-cert-validity")? {
            0 if values.from_file => 1,
            years => years,
        };
        Ok(Self {
            client: side("client", "")?,
            peer: side("peer", "peer-")?,
            self_signed_years,
            skip_peer_addresses: values.bool("peer-skip-client-san-verification"),
        })
    }

    /// Checks that what is asked for over TLS can be served over TLS.
    pub(super) fn check(&self, listen: &Listen) -> Result<(), Error> {
        let without = |urls: &[Url], side: &Side| {
            let secure = urls.iter().find(|url| url.is_secure());
            secure.filter(|_| !side.has_certificate()).cloned()
        };
        let wrong = if let Some(url) = without(&listen.client, &self.client)
            .or_else(|| without(&listen.client_http, &self.client))
        {
            format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {} with \
                 HTTPS scheme",
                url.text
            )
        } else if without(&listen.metrics, &self.client).is_some() {
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
                .to_owned()
        } else if let Some(url) = without(&listen.peer, &self.peer) {
            format!(
                "cannot listen on TLS for {}: KeyFile and CertFile are not presented \
                 (--peer-cert-file, --peer-key-file)",
                url.address
            )
        } else if let Some(both) = listen.client_http.iter().find(|url| {
            listen
                .client
                .iter()
                .any(|other| other.address == url.address)
        }) {
            format!(
                "cannot bind both --listen-client-urls and --listen-client-http-urls on the same \
                 url {}",
                both.text
            )
        } else if self.client.migrating && !self.client.has_certificate() {
            "--quorate-tls-migration=client needs --cert-file and --key-file".to_owned()
        } else if self.peer.migrating && !self.peer.has_certificate() {
            "--quorate-tls-migration=peer needs --peer-cert-file and --peer-key-file".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::Invalid(wrong))
    }
}

/// The sides of a member that speak TLS.
const SIDES: [&str; 2] = ["client", "peer"];

fn side(values: &Values, prefix: &str) -> Result<Side, Error> {
    let path = |name: &str| values.text(&format!("{prefix}{name}")).into();
    // The flags for revoked and allowed clients begin with another word.
    let of_callers = if prefix.is_empty() { "client-" } else { prefix };
    let names = |name: &str| values.texts(&format!("{of_callers}{name}"));
    let allowed = match (names("cert-allowed-cn"), names("cert-allowed-hostname")) {
        (names, hosts) if !names.is_empty() && !hosts.is_empty() => {
            return Err(Error::Invalid(format!(
                "AllowedCNs and AllowedHostnames are mutually exclusive \
                 (cns={names:?}, hostnames={hosts:?})"
            )));
        }
        (names, _) if !names.is_empty() => Allowed::CommonNames(names),
        (_, hosts) if !hosts.is_empty() => Allowed::Hostnames(hosts),
        _ => Allowed::All,
    };
    Ok(Side {
        options: Options {
            cert_file: path("cert-file"),
            key_file: path("key-file"),
            client_cert_file: path("client-cert-file"),
            client_key_file: path("client-key-file"),
            trusted_ca_file: path("trusted-ca-file"),
            crl_file: values.text(&format!("{of_callers}crl-file")).into(),
            client_cert_auth: values.bool(&format!("{prefix}client-cert-auth")),
            allowed,
            ..Options::default()
        },
        auto: values.bool(&format!("{prefix}auto-tls")),
        migrating: false,
    })
}
