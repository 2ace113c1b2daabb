//! TLS of the member: certificates are made or read, and put before the listeners and behind the
//! calls to peers.

use std::path::PathBuf;
use std::sync::Arc;

use quorate_tls::{AutoOptions, Dialer, Guard, GuardOptions, Identity, self_signed};

use crate::config::Config;
use crate::config::security::Side;
use crate::config::urls::Url;

/// What stands before the listeners, and who calls peers.
pub struct Tls {
    client: Option<Arc<Identity>>,
    client_migrating: bool,
    peer: Option<Arc<Identity>>,
    peer_migrating: bool,
    check_peer_addresses: bool,
    pub dialer: Dialer,
}

impl Tls {
    /// Reads every file that is used.
    ///
    /// # Errors
    /// What is wrong with one, by its name.
    pub fn load(config: &Config) -> Result<Self, String> {
        let (listen, security) = (&config.listen, &config.security);
        let of_clients = [&listen.client, &listen.client_http, &listen.metrics];
        let of_clients: Vec<&Url> = of_clients.into_iter().flatten().collect();
        let of_peers: Vec<&Url> = listen.peer.iter().collect();
        let (client, peer) = (&security.client, &security.peer);
        let load = |side: &Side, name: &str, urls: &[&Url]| {
            load(config, side, name, urls).map_err(|error| format!("{name} TLS: {error}"))
        };
        let is_asked_for =
            |side: &Side, urls: &[&Url]| side.migrating || urls.iter().any(|url| url.is_secure());
        warn_of_plaintext("client", client, &of_clients);
        warn_of_plaintext("peer", peer, &of_peers);
        let client_identity = match is_asked_for(client, &of_clients) {
            true => Some(load(client, "client", &of_clients)?),
            false => None,
        };
        // Calls to peers need one even if this member listens in plaintext, as in etcd.
        let options = &peer.options;
        let calls = peer.has_certificate() || options.callers_need_certificate();
        let calls = calls || cluster_is_secure(config);
        let peer_identity = match calls || is_asked_for(peer, &of_peers) {
            true => Some(load(peer, "peer", &of_peers)?),
            false => None,
        };
        Ok(Self {
            dialer: Dialer {
                identity: peer_identity.clone(),
                either: peer.migrating,
            },
            client: client_identity,
            client_migrating: client.migrating,
            peer: peer_identity,
            peer_migrating: peer.migrating,
            check_peer_addresses: !security.skip_peer_addresses,
        })
    }

    /// What stands before a listener for clients that has these schemes.
    pub fn client_guard(&self, secure: bool, insecure: bool) -> Option<Guard> {
        let options = GuardOptions {
            side: "client",
            check_addresses: false,
            takes_plaintext: insecure || self.client_migrating,
        };
        let identity = self.client.as_ref()?;
        let guarded = secure || self.client_migrating;
        guarded.then(|| Guard::new(Arc::clone(identity), options))
    }

    /// What stands before a listener for peers that has these schemes.
    pub fn peer_guard(&self, secure: bool, insecure: bool) -> Option<Guard> {
        let options = GuardOptions {
            side: "peer",
            check_addresses: self.check_peer_addresses,
            takes_plaintext: insecure || self.peer_migrating,
        };
        let identity = self.peer.as_ref()?;
        let guarded = secure || self.peer_migrating;
        guarded.then(|| Guard::new(Arc::clone(identity), options))
    }
}

/// Whether some member is to be called over TLS.
fn cluster_is_secure(config: &Config) -> bool {
    let mut members = config.cluster.initial.values().flatten();
    members.any(Url::is_secure)
}

fn load(
    config: &Config,
    side: &Side,
    name: &str,
    urls: &[&Url],
) -> Result<Arc<Identity>, quorate_tls::Error> {
    let mut options = side.options.clone();
    if side.auto && !options.is_empty() {
        tracing::warn!("ignoring {name} auto TLS since certs given");
    } else if side.auto {
        let hosts = urls.iter().filter_map(|url| url.host_port());
        let mut hosts: Vec<String> = hosts.map(|(host, _)| host.to_owned()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let auto = AutoOptions {
            directory: absolute(&config.data_dir).join("fixtures").join(name),
            hosts,
            validity_years: config.security.self_signed_years,
            for_calls: name == "peer",
        };
        options = self_signed(&auto, options)?;
    }
    let identity = Identity::load(options)?;
    let options = identity.options();
    tracing::info!(
        cert = %options.cert_file.display(),
        key = %options.key_file.display(),
        "client-cert" = %options.client_cert_file.display(),
        "trusted-ca" = %options.trusted_ca_file.display(),
        "client-cert-auth" = options.callers_need_certificate(),
        "crl-file" = %options.crl_file.display(),
        "cipher-suites" = ?options.cipher_suites,
        "starting with {name} TLS"
    );
    if side.migrating {
        tracing::warn!(
            "--quorate-tls-migration={name}: {name}s may speak plaintext; \
             take the flag away once all of them speak TLS"
        );
    }
    Ok(Arc::new(identity))
}

fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// etcd: server/embed/etcd.go (configurePeerListeners, configureClientListeners).
fn warn_of_plaintext(name: &str, side: &Side, urls: &[&Url]) {
    for url in urls
        .iter()
        .filter(|url| !url.is_secure() && !side.migrating)
    {
        if !side.options.is_empty() {
            tracing::warn!(
                url = url.text,
                "scheme is http or unix while key and cert files of {name} TLS are present; \
                 ignoring key and cert files"
            );
        }
        if side.options.client_cert_auth {
            tracing::warn!(
                url = url.text,
                "scheme is http or unix while client certificates are asked of {name}s; ignoring \
                 client cert auth for this URL"
            );
        }
    }
}
