//! From global flags to a client and a way of printing.

use crate::cli::{Call, apply_environment};
use crate::log::write_error;
use crate::outcome::{Exit, code};
use crate::print::{Display, Format};
use crate::rpc::{Effect, Rpc};
use quorate_client::{Client, ClientConfig, TlsConfig, limits};
use quorate_proto::etcdserverpb as pb;
use std::time::Duration;
use tokio::time::Instant;

/// A client's pings are at least this far apart, as in grpc-go.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// What a command needs to talk to a cluster.
#[derive(Debug)]
pub struct Setup {
    /// How answers are printed.
    pub display: Display,
    /// How clients are made.
    pub config: ClientConfig,
    user: Option<Access>,
    timeout: Duration,
}

/// Who calls.
#[derive(Debug, Clone)]
enum Access {
    Password { user: String, password: String },
    Token(String),
}

impl Setup {
    /// Reads the environment and the global flags.
    ///
    /// # Errors
    /// For flags that contradict or make no sense.
    pub fn new(call: &mut Call) -> Result<Self, Exit> {
        let is_watch = call.path.command().name() == "watch";
        apply_environment(&mut call.flags, is_watch)?;
        let flags = &call.flags;
        if flags.bool("debug") {
            for slot in flags.slots().iter().filter(|slot| slot.inherited) {
                let name = crate::cli::variable(slot.flag.name);
                write_error(&format!("{name}={}\n", slot.value.show()));
            }
        }
        if !flags.text("discovery-srv").is_empty() {
            return Err(Exit::error("--discovery-srv is not supported yet"));
        }
        let tls = tls(call)?;
        let user = access(call)?;
        let format = Format::parse(&flags.text("write-out"))
            .ok_or_else(|| Exit::new(code::BAD_FEATURE, "unsupported output format"))?;
        Ok(Self {
            display: Display {
                format,
                hex: flags.bool("hex"),
                value_only: false,
            },
            config: config(call, tls),
            user,
            timeout: flags.duration("command-timeout"),
        })
    }

    /// Connects to all endpoints.
    ///
    /// # Errors
    /// When there is no endpoint, or the user is refused.
    pub async fn connect(&self) -> Result<Rpc, Exit> {
        self.connect_as("etcd-client", self.config.clone()).await
    }

    /// Connects to one endpoint alone.
    ///
    /// # Errors
    /// When it is no endpoint, or the user is refused.
    pub async fn connect_to(&self, endpoint: &str, logger: &'static str) -> Result<Rpc, Exit> {
        let mut config = self.config.clone();
        config.endpoints = vec![endpoint.to_owned()];
        self.connect_as(logger, config).await
    }

    async fn connect_as(&self, logger: &'static str, config: ClientConfig) -> Result<Rpc, Exit> {
        let bad = |error: &dyn std::fmt::Display| Exit::new(code::BAD_CONNECTION, error);
        if config.endpoints.is_empty() {
            return Err(bad(&"etcdclient: no available endpoints"));
        }
        let client = Client::connect_lazy(config).map_err(|error| bad(&error))?;
        let rpc = Rpc::new(client, logger);
        let token = match &self.user {
            None => return Ok(rpc),
            Some(Access::Token(token)) => token.clone(),
            Some(Access::Password { user, password }) => {
                let request = pb::AuthenticateRequest {
                    name: user.clone(),
                    password: password.clone(),
                };
                let method = "/etcdserverpb.Auth/Authenticate";
                let answer = rpc.call(
                    Effect::Read,
                    method,
                    self.deadline(),
                    request,
                    async |client, request| client.auth().authenticate(request).await,
                );
                match answer.await {
                    Ok(response) => response.token,
                    // Authentication is off: etcd's client goes on without a token.
                    Err(error) if error.text() == "etcdserver: authentication is not enabled" => {
                        return Ok(rpc);
                    }
                    Err(error) => return Err(bad(&error)),
                }
            }
        };
        rpc.with_token(&token).map_err(|error| bad(&error))
    }

    /// When a short call must have ended.
    pub fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.timeout)
    }
}

fn config(call: &Call, tls: Option<TlsConfig>) -> ClientConfig {
    let flags = &call.flags;
    let limit = |name: &str, default: usize| match usize::try_from(flags.int(name)) {
        Ok(0) | Err(_) => default,
        Ok(bytes) => bytes,
    };
    let endpoints = flags.list("endpoints").iter();
    let endpoints = endpoints
        .map(|endpoint| endpoint.trim().to_owned())
        .collect();
    ClientConfig {
        endpoints,
        dial_timeout: flags.duration("dial-timeout"),
        keepalive_time: flags.duration("keepalive-time").max(KEEPALIVE_TIME_MIN),
        keepalive_timeout: flags.duration("keepalive-timeout"),
        max_request_bytes: limit("max-request-bytes", limits::REQUEST_BYTES_MAX),
        max_recv_bytes: limit("max-recv-bytes", limits::RECEIVE_BYTES_MAX),
        tls,
        ..ClientConfig::default()
    }
}

/// What makes a connection secure; none when endpoints without a scheme are plaintext.
///
/// etcd: etcdctl/ctlv3/command/global.go (secureCfgFromCmd), client/v3/config.go (newTLSConfig).
fn tls(call: &Call) -> Result<Option<TlsConfig>, Exit> {
    let flags = &call.flags;
    let file = |name: &str| match flags.text(name) {
        path if !path.is_empty() => Ok(Some(path.into())),
        _ if flags.changed(name) => Err(Exit::bad_arguments(format!(
            "empty string is passed to --{name} option"
        ))),
        _ => Ok(None),
    };
    let config = TlsConfig {
        cert_file: file("cert")?,
        key_file: file("key")?,
        trusted_ca_file: file("cacert")?,
        server_name: None,
        insecure_skip_verify: flags.bool("insecure-skip-tls-verify"),
    };
    if config == TlsConfig::default() && flags.bool("insecure-transport") {
        return Ok(None);
    }
    config.check().map_err(Exit::bad_arguments)?;
    Ok(Some(config))
}

fn access(call: &Call) -> Result<Option<Access>, Exit> {
    let flags = &call.flags;
    let (user, token) = (flags.text("user"), flags.text("auth-jwt-token"));
    if !token.is_empty() {
        return Ok(Some(Access::Token(token)));
    }
    if user.is_empty() {
        return Ok(None);
    }
    let given = flags.text("password");
    let (user, password) = if given.is_empty() {
        match user.split_once(':') {
            Some((user, password)) => (user.to_owned(), password.to_owned()),
            None => {
                let password = super::password::ask("Password: ").map_err(Exit::error)?;
                (user, password)
            }
        }
    } else {
        (user, given)
    };
    Ok(Some(Access::Password { user, password }))
}
