//! The operator's flags.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The operator of Quorate on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "quorate-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep clusters as they should be.
    Run(Box<RunArgs>),
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// A namespace to look after; may be given more than once. Without any: all of them.
    #[arg(
        long = "watch-namespace",
        env = "QUORATE_WATCH_NAMESPACES",
        value_delimiter = ','
    )]
    pub watch_namespaces: Vec<String>,
    /// The members' image when a cluster names none: registry and name, without a tag.
    #[arg(
        long,
        env = "QUORATE_MEMBER_IMAGE",
        default_value = "ghcr.io/quorate/quorate"
    )]
    pub member_image: String,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "QUORATE_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// The name of this process among its replicas.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// The operator's own namespace, where its lease lies.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub pod_namespace: String,
    /// The DNS domain of the Kubernetes cluster.
    #[arg(long, env = "QUORATE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// A directory for certificates, which should lie in memory; made if it is missing.
    #[arg(long, env = "QUORATE_RUN_DIR", default_value = "/tmp/quorate-operator")]
    pub run_dir: PathBuf,
    /// How many clusters are worked on at once.
    #[arg(long, env = "QUORATE_CONCURRENCY", default_value_t = 16)]
    pub concurrency: u16,
    /// After how many seconds without renewal another replica takes over.
    #[arg(long, env = "QUORATE_LEASE_SECONDS", default_value_t = 15)]
    #[arg(value_parser = clap::value_parser!(u64).range(3..=300))]
    pub lease_seconds: u64,
    /// How many seconds a new authority is trusted everywhere before anything is issued by it:
    /// kubelets bring changed Secrets to Pods within a minute or two.
    #[arg(long, env = "QUORATE_CA_PROPAGATION_SECONDS", default_value_t = 300)]
    pub ca_propagation_seconds: i64,
    /// For how many seconds an authority that issues nothing any more is still trusted.
    #[arg(long, env = "QUORATE_CA_RETIREMENT_SECONDS", default_value_t = 3600)]
    pub ca_retirement_seconds: i64,
    /// How much is logged, in the words of RUST_LOG.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log: String,
}
