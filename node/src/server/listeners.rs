//! Where this member listens: which addresses, for whom, and what stands before them.

use quorate_tls::Guard;

use super::tls::Tls;
use crate::api::listen::{Address, ConnectionOptions, Listener};
use crate::config::Config;
use crate::config::urls::{Scheme, Url};

/// Every listener, bound and not yet served.
pub(super) struct Listeners {
    pub(super) client: Vec<Listener>,
    pub(super) client_http: Vec<Listener>,
    pub(super) metrics: Vec<Listener>,
    pub(super) peer: Vec<Listener>,
}

impl Listeners {
    /// Binds all of them, so that a port in use is found before anything else.
    ///
    /// # Errors
    /// In Go's words, with the address.
    pub(super) fn bind(
        config: &Config,
        options: &ConnectionOptions,
        tls: &Tls,
    ) -> Result<Self, String> {
        let client = |urls| {
            bind(urls, options, |secure, plain| {
                tls.client_guard(secure, plain)
            })
        };
        let listen = &config.listen;
        Ok(Self {
            client: client(&listen.client)?,
            client_http: client(&listen.client_http)?,
            metrics: client(&listen.metrics)?,
            peer: bind(&listen.peer, options, |secure, plain| {
                tls.peer_guard(secure, plain)
            })?,
        })
    }
}

/// Binds every address once. One that stands under both schemes takes both, as in etcd.
fn bind(
    urls: &[Url],
    options: &ConnectionOptions,
    guard: impl Fn(bool, bool) -> Option<Guard>,
) -> Result<Vec<Listener>, String> {
    let mut addresses: Vec<(Address, bool, bool)> = Vec::new();
    for url in urls {
        let (address, secure) = (address(url), url.is_secure());
        match addresses.iter_mut().find(|(known, ..)| *known == address) {
            Some(known) => (known.1, known.2) = (known.1 || secure, known.2 || !secure),
            None => addresses.push((address, secure, !secure)),
        }
    }
    let bound = addresses.into_iter().map(|(address, secure, insecure)| {
        let listener = Listener::bind(&address, options)?;
        Ok(listener.guarded(guard(secure, insecure)))
    });
    bound.collect()
}

fn address(url: &Url) -> Address {
    match url.scheme {
        Scheme::Http | Scheme::Https => Address::Tcp(url.address.clone()),
        Scheme::Unix | Scheme::Unixs => Address::Unix(url.address.clone().into()),
    }
}
