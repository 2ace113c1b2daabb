//! Flags, each with a variable of the environment: read once, then passed down.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use quorate_client::TlsConfig;
use quorate_tls::{Allowed, Options};

use crate::member::Members;
use crate::store::Mounts;

/// Beside a member of a Quorate cluster: the gate before its start, leader hand-off before its
/// stop, backups and their proof.
#[derive(Debug, Parser)]
#[command(name = "quorate-sidecar", version)]
pub struct Flags {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Decides whether the member may start; restores a backup first if it is told to.
    ///
    /// Exit codes: 40 data directory damaged, 41 member removed from the cluster, 42 data of
    /// another member or cluster, 43 restore failed, 44 names of peers do not resolve.
    Gate(Box<GateFlags>),
    /// Hands leadership to another voter if the member leads. Always exits with 0.
    Handoff(HandoffFlags),
    /// Serves the operator's requests until SIGTERM.
    Serve(Box<ServeFlags>),
}

/// How members are reached.
#[derive(Debug, Clone, Args)]
pub struct MemberFlags {
    /// Client URL of the own member
    #[arg(
        long,
        env = "QUORATE_ENDPOINT",
        default_value = "https://localhost:2379"
    )]
    endpoint: String,
    /// Certificate shown to members
    #[arg(long, env = "QUORATE_CERT_FILE")]
    cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "QUORATE_KEY_FILE")]
    key_file: Option<PathBuf>,
    /// Who may have signed the certificates of members
    #[arg(long, env = "QUORATE_CA_FILE")]
    ca_file: Option<PathBuf>,
}

impl MemberFlags {
    pub fn members(&self) -> Members {
        let given = [&self.cert_file, &self.key_file, &self.ca_file];
        let tls = given.iter().any(|file| file.is_some());
        Members {
            own: self.endpoint.clone(),
            tls: tls.then(|| TlsConfig {
                trusted_ca_file: self.ca_file.clone(),
                cert_file: self.cert_file.clone(),
                key_file: self.key_file.clone(),
                ..TlsConfig::default()
            }),
        }
    }
}

/// Whether the cluster is being formed or runs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    New,
    Existing,
}

#[derive(Debug, Args)]
pub struct GateFlags {
    #[command(flatten)]
    pub member: MemberFlags,
    /// Name of the member
    #[arg(long, env = "QUORATE_NAME")]
    pub name: String,
    /// Data directory of the member
    #[arg(
        long,
        env = "QUORATE_DATA_DIR",
        default_value = "/var/lib/quorate/data"
    )]
    pub data_dir: PathBuf,
    /// Peer URLs of all members, `name=url,name=url`
    #[arg(long, env = "QUORATE_INITIAL_CLUSTER")]
    pub initial_cluster: String,
    /// Whether the cluster is being formed or runs already
    #[arg(long, env = "QUORATE_INITIAL_CLUSTER_STATE", default_value = "new")]
    pub initial_cluster_state: ClusterState,
    /// Token of the cluster
    #[arg(
        long,
        env = "QUORATE_INITIAL_CLUSTER_TOKEN",
        default_value = "etcd-cluster"
    )]
    pub initial_cluster_token: String,
    /// Client URLs of the other members, parted by commas
    #[arg(long, env = "QUORATE_CLUSTER_ENDPOINTS", value_delimiter = ',')]
    pub cluster_endpoints: Vec<String>,
    /// How long the names of peers may take to resolve
    #[arg(long, env = "QUORATE_RESOLVE_TIMEOUT", default_value = "60s", value_parser = duration)]
    pub resolve_timeout: Duration,
    /// The backup to start from, as JSON
    #[arg(long, env = quorate_sidecar::wire::RESTORE_VARIABLE)]
    pub restore: Option<String>,
    /// How much to increase the revision of what is restored, which is then marked as compacted:
    /// for clients whose caches are ahead of the backup
    #[arg(long, env = "QUORATE_RESTORE_BUMP_REVISION", default_value_t = 0)]
    pub restore_bump_revision: u64,
    /// Where the credentials of the store of that backup are mounted
    #[arg(long, env = "QUORATE_RESTORE_CREDENTIALS_DIR")]
    restore_credentials_dir: Option<PathBuf>,
    /// Where the volume of that backup is mounted
    #[arg(long, env = "QUORATE_RESTORE_VOLUME", default_value = "/restore")]
    restore_volume: PathBuf,
    /// The node's program
    #[arg(long, env = "QUORATE_BINARY", default_value = "/usr/bin/quorate")]
    pub quorate_binary: PathBuf,
    /// Where Kubernetes takes a container's last words from, if it is there
    #[arg(
        long,
        env = "QUORATE_TERMINATION_LOG",
        default_value = "/dev/termination-log"
    )]
    pub termination_log: PathBuf,
}

impl GateFlags {
    pub fn mounts(&self) -> Mounts {
        Mounts {
            credentials: self.restore_credentials_dir.clone(),
            volume: self.restore_volume.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub struct HandoffFlags {
    #[command(flatten)]
    pub member: MemberFlags,
    /// Names of members that are about to stop too, parted by commas
    #[arg(long, env = "QUORATE_LEAVING", value_delimiter = ',')]
    pub leaving: Vec<String>,
    /// How long it may take
    #[arg(long, env = "QUORATE_HANDOFF_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
}

#[derive(Debug, Args)]
pub struct ServeFlags {
    #[command(flatten)]
    pub member: MemberFlags,
    /// Name of the member
    #[arg(long, env = "QUORATE_NAME")]
    pub name: String,
    /// Data directory of the member
    #[arg(
        long,
        env = "QUORATE_DATA_DIR",
        default_value = "/var/lib/quorate/data"
    )]
    pub data_dir: PathBuf,
    /// Where the member serves /livez over plain HTTP
    #[arg(
        long,
        env = "QUORATE_HEALTH_URL",
        default_value = "http://127.0.0.1:2381"
    )]
    pub health_url: String,
    /// Where the API is served
    #[arg(long, env = "QUORATE_LISTEN", default_value = "0.0.0.0:2382")]
    pub listen: SocketAddr,
    /// Where /metrics and /healthz are served over plain HTTP too
    #[arg(long, env = "QUORATE_LISTEN_METRICS")]
    pub listen_metrics: Option<SocketAddr>,
    /// Serves the API over plain HTTP to everybody: for clusters without TLS
    #[arg(long, env = "QUORATE_INSECURE_HTTP", value_parser = BoolishValueParser::new())]
    pub insecure_http: bool,
    /// Certificate of the API
    #[arg(
        long,
        env = "QUORATE_SERVER_CERT_FILE",
        required_unless_present = "insecure_http"
    )]
    server_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(
        long,
        env = "QUORATE_SERVER_KEY_FILE",
        required_unless_present = "insecure_http"
    )]
    server_key_file: Option<PathBuf>,
    /// Who may have signed the certificates of callers
    #[arg(
        long,
        env = "QUORATE_SERVER_CA_FILE",
        required_unless_present = "insecure_http"
    )]
    server_ca_file: Option<PathBuf>,
    /// Common name of the one caller that is let in
    #[arg(
        long,
        env = "QUORATE_ALLOWED_CLIENT_NAME",
        default_value = "quorate-operator"
    )]
    allowed_client_name: String,
    /// Where the credentials of the store of backups are mounted
    #[arg(long, env = "QUORATE_BACKUP_CREDENTIALS_DIR")]
    backup_credentials_dir: Option<PathBuf>,
    /// Where the volume of backups is mounted
    #[arg(long, env = "QUORATE_BACKUP_VOLUME", default_value = "/backup")]
    backup_volume: PathBuf,
    /// Where backups are unpacked to be proved
    #[arg(long, env = "QUORATE_SCRATCH_DIR", default_value = "/tmp")]
    pub scratch_dir: PathBuf,
    /// The node's program
    #[arg(long, env = "QUORATE_BINARY", default_value = "/usr/bin/quorate")]
    pub quorate_binary: PathBuf,
}

impl ServeFlags {
    pub fn mounts(&self) -> Mounts {
        Mounts {
            credentials: self.backup_credentials_dir.clone(),
            volume: self.backup_volume.clone(),
        }
    }

    /// The API's side of TLS; none over plain HTTP.
    pub fn tls(&self) -> Option<Options> {
        let file = |file: &Option<PathBuf>| file.clone().unwrap_or_default();
        (!self.insecure_http).then(|| Options {
            cert_file: file(&self.server_cert_file),
            key_file: file(&self.server_key_file),
            trusted_ca_file: file(&self.server_ca_file),
            client_cert_auth: true,
            allowed: Allowed::CommonNames(vec![self.allowed_client_name.clone()]),
            ..Options::default()
        })
    }
}

/// `10s`, `500ms`, `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 10s, 500ms or 1m");
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_well_formed_and_durations_are_read() {
        Flags::command().debug_assert();
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("10").is_err() && duration("s").is_err() && duration("1h").is_err());
    }
}
