//! One side's certificates and trust, looked at again before every handshake.
//!
//! etcd reads certificates and keys anew for every handshake, and the trusted CAs at the start
//! alone. Here all of them are read anew when a file has changed. What cannot be used is told
//! once, and what was in use stays in use.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};

use crate::files::{self, Contents, Material, Stamp};
use crate::options::{Error, Options};
use crate::suites;
use crate::verify::{Callers, Servers};

/// One side's TLS. It is shared by all who shake hands on that side.
pub struct Identity {
    options: Options,
    provider: Arc<CryptoProvider>,
    /// Those whom the operating system trusts, when the options name nobody.
    system: Vec<CertificateDer<'static>>,
    /// For the length of a look at the files, before a handshake.
    state: Mutex<State>,
}

struct State {
    stamps: Option<Vec<Stamp>>,
    contents: Contents,
    configs: Configs,
    /// What the files last failed with, so that it is told once.
    told: Option<Error>,
}

#[derive(Clone)]
struct Configs {
    server: Option<Arc<ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.options).finish()
    }
}

impl Identity {
    /// Reads and checks all files.
    ///
    /// # Errors
    /// What is wrong with the options or with a file, by its name.
    pub fn load(options: Options) -> Result<Self, Error> {
        options.check_pairs()?;
        let provider = suites::provider(&options)?;
        let system = match options.trusted_ca_file.as_os_str().is_empty() && !options.skip_verify {
            true => rustls_native_certs::load_native_certs().certs,
            false => Vec::new(),
        };
        // Before the bytes are read, so that a change in between is seen later.
        let stamps = files::stamps(&options);
        let contents = Contents::read(&options)?;
        let configs = Configs::build(&options, &contents, &system, &provider)?;
        let state = State {
            stamps,
            contents,
            configs,
            told: None,
        };
        Ok(Self {
            options,
            provider,
            system,
            state: Mutex::new(state),
        })
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How to answer a handshake now.
    ///
    /// # Errors
    /// There is no certificate to show.
    pub fn server(&self) -> Result<Arc<ServerConfig>, Error> {
        let missing = || Error::Settings("there is no certificate to serve with".to_owned());
        self.current().server.ok_or_else(missing)
    }

    /// How to begin a handshake now.
    ///
    /// # Errors
    /// There is nobody to believe.
    pub fn client(&self) -> Result<Arc<ClientConfig>, Error> {
        let missing = || {
            Error::Settings(
                "no trusted CA: none is named, and the operating system has none".to_owned(),
            )
        };
        self.current().client.ok_or_else(missing)
    }

    fn current(&self) -> Configs {
        let mut state = self.state.lock();
        let same = state
            .stamps
            .as_ref()
            .is_some_and(|stamps| files::are_same(&self.options, stamps));
        if !same && let Err(error) = self.reload(&mut state) {
            if state.told.as_ref() != Some(&error) {
                tracing::warn!(%error, "TLS files changed and cannot be used; the old ones stay");
            }
            state.told = Some(error);
        }
        state.configs.clone()
    }

    fn reload(&self, state: &mut State) -> Result<(), Error> {
        let stamps = files::stamps(&self.options);
        let contents = Contents::read(&self.options)?;
        if contents != state.contents {
            state.configs = Configs::build(&self.options, &contents, &self.system, &self.provider)?;
            state.contents = contents;
            tracing::info!(
                "cert-file" = %self.options.cert_file.display(),
                "trusted-ca-file" = %self.options.trusted_ca_file.display(),
                "crl-file" = %self.options.crl_file.display(),
                "TLS files changed and were read again"
            );
        }
        state.stamps = stamps;
        state.told = None;
        Ok(())
    }
}

impl Configs {
    fn build(
        options: &Options,
        contents: &Contents,
        system: &[CertificateDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let material = Material::parse(options, contents, provider)?;
        let authorities = match material.authorities.is_empty() {
            true => system.to_vec(),
            false => material.authorities.clone(),
        };
        Ok(Self {
            client: client(options, &material, authorities.clone(), provider)?,
            server: server(options, material, authorities, provider)?,
        })
    }
}

fn server(
    options: &Options,
    material: Material,
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<ServerConfig>>, Error> {
    let Some(certified) = material.server else {
        return Ok(None);
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&suites::versions(options))
        .map_err(|error| Error::Settings(error.to_string()))?;
    let builder = if options.callers_need_certificate() {
        let allowed = options.allowed.clone();
        let provider = Arc::clone(provider);
        let callers = Callers::new(authorities, allowed, material.revoked, provider)?;
        builder.with_client_cert_verifier(Arc::new(callers))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A session that goes on where another ended would skip the judgement of its certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Some(Arc::new(config)))
}

fn client(
    options: &Options,
    material: &Material,
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<ClientConfig>>, Error> {
    let servers = match options.skip_verify {
        true => Servers::unseen(Arc::clone(provider)),
        false if authorities.is_empty() => return Ok(None),
        false => Servers::new(authorities, options.allowed.clone(), Arc::clone(provider))?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&suites::versions(options))
        .map_err(|error| Error::Settings(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let mut config = match &material.client {
        Some(certified) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified.clone())))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match options.calls_http1 {
        true => vec![b"http/1.1".to_vec()],
        false => vec![b"h2".to_vec()],
    };
    Ok(Some(Arc::new(config)))
}
