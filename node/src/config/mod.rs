//! Flags, environment and configuration file: read and checked once, then passed down.
//!
//! `table` says which flags there are; `source` and `file` read values; this file makes one
//! checked [`Config`] of them. Nothing below knows a flag by name.

pub mod checks;
pub mod duration;
pub mod file;
pub mod gates;
pub mod help;
pub mod parts;
pub mod security;
pub mod source;
pub mod table;
pub mod urls;

use std::path::PathBuf;
use std::time::Duration;

pub use checks::Checks;
pub use parts::{Cluster, Compaction, Http, Limits, Listen, Log, Retention};
use security::Security;
use source::Values;
pub use source::{Error, Notice};
use table::Effect;
use urls::Url;

/// etcd: server/embed/config.go.
const ELECTION_MS_MAX: u64 = 50_000;

/// What to do with the command line.
#[derive(Debug)]
pub enum Action {
    Run(Box<Config>),
    Help,
    Version,
}

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub listen: Listen,
    pub cluster: Cluster,
    pub limits: Limits,
    pub compaction: Compaction,
    pub checks: Checks,
    pub watch_progress_interval: Duration,
    pub slow_request: Duration,
    pub http: Http,
    pub security: Security,
    pub log: Log,
    pub metrics_extensive: bool,
    /// To be told once logs are set up.
    pub notices: Vec<Notice>,
}

/// Reads command line, environment and file.
pub fn read(
    arguments: &[String],
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Action, Error> {
    let mut values = source::arguments(arguments)?;
    if values.help {
        return Ok(Action::Help);
    }
    if values.bool("version") {
        return Ok(Action::Version);
    }
    let environment: Vec<(String, String)> = environment.collect();
    let in_environment = || {
        environment
            .iter()
            .find(|(name, _)| name == "ETCD_CONFIG_FILE")
            .map(|(_, value)| value.clone())
    };
    let path = match values.text("config-file") {
        "" => in_environment().unwrap_or_default(),
        path => path.to_owned(),
    };
    if path.is_empty() {
        source::environment(&mut values, environment.into_iter())?;
    } else {
        values = file::read(&path)?;
    }
    Ok(Action::Run(Box::new(Config::from_values(values)?)))
}

impl Config {
    fn from_values(mut values: Values) -> Result<Self, Error> {
        refuse_and_warn(&mut values)?;
        let gates = gates::check(&mut values)?;
        let name = values.text("name").to_owned();
        let data_dir = match values.text("data-dir") {
            "" => format!("{name}.etcd"),
            path => path.to_owned(),
        };
        let config = Self {
            data_dir: PathBuf::from(data_dir),
            listen: Listen::from_values(&values)?,
            cluster: Cluster::from_values(&values, &name)?,
            limits: Limits::from_values(&values)?,
            compaction: Compaction::from_values(&values)?,
            checks: Checks::from_values(&values, &gates)?,
            watch_progress_interval: values.duration("watch-progress-notify-interval"),
            slow_request: values.duration("warning-unary-request-duration"),
            http: Http::from_values(&values),
            security: Security::from_values(&mut values)?,
            log: Log::from_values(&values),
            metrics_extensive: values.text("metrics") == "extensive",
            notices: std::mem::take(&mut values.notices),
            name,
        };
        config.check()?;
        Ok(config)
    }

    /// etcd: server/embed/config.go, Validate.
    fn check(&self) -> Result<(), Error> {
        let listen = &self.listen;
        let bound = [
            &listen.peer,
            &listen.client,
            &listen.client_http,
            &listen.metrics,
        ];
        for url in bound.into_iter().flatten() {
            url.check_bind().map_err(Error::Invalid)?;
        }
        self.security.check(listen)?;
        let advertised = |flag, form, urls: &[Url]| {
            urls.iter().try_for_each(Url::check_host).map_err(|error| {
                let urls = urls::texts(urls).join(",");
                Error::Invalid(format!("--{flag} {urls:?} must be {form} ({error})"))
            })
        };
        let cluster = &self.cluster;
        advertised(
            "initial-advertise-peer-urls",
            "\"host:port\"",
            &cluster.advertise_peer,
        )?;
        advertised(
            "advertise-client-urls",
            "in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\"",
            &cluster.advertise_client,
        )?;
        let (heartbeat, election) = (cluster.heartbeat_ms, cluster.election_ms);
        let wrong = match (heartbeat, election) {
            (0, _) => "--heartbeat-interval must be >0 (set to 0ms)".to_owned(),
            (_, 0) => "--election-timeout must be >0 (set to 0ms)".to_owned(),
            _ if heartbeat.saturating_mul(5) > election => format!(
                "--election-timeout[{election}ms] should be at least as 5 times as \
                 --heartbeat-interval[{heartbeat}ms]"
            ),
            _ if election > ELECTION_MS_MAX => format!(
                "--election-timeout[{election}ms] is too long, and should be set less than \
                 {ELECTION_MS_MAX}ms"
            ),
            _ if !listen.client.is_empty() && cluster.advertise_client.is_empty() => {
                "--advertise-client-urls is required when --listen-client-urls is set explicitly"
                    .to_owned()
            }
            _ => return Ok(()),
        };
        Err(Error::Invalid(wrong))
    }
}

/// Refuses what cannot be had, and notes what has no effect.
fn refuse_and_warn(values: &mut Values) -> Result<(), Error> {
    for flag in table::all() {
        let value = values.text(flag.name).to_owned();
        let differs = value != flag.default
            && source::parse_bool(&value)
                .is_none_or(|is| Some(is) != source::parse_bool(flag.default));
        match flag.effect {
            Effect::Refused(reason) if differs => {
                return Err(Error::Invalid(format!("--{}={value}: {reason}", flag.name)));
            }
            Effect::Idle(reason) if differs => values.notices.push(Notice {
                flag: flag.name.to_owned(),
                value,
                text: format!("this flag has no effect: {reason}"),
            }),
            Effect::Works | Effect::Idle(_) | Effect::Refused(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
