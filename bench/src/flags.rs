//! What to measure, and how long.

use anyhow::Result;
use quorate_e2e::binaries::Kind;
use std::path::PathBuf;
use std::time::Duration;

/// Quorate beside the real etcd: rates, latencies, CPU an operation, memory, restart times.
#[derive(clap::Parser, Debug)]
#[command(name = "quorate-bench")]
pub struct Flags {
    /// One short round, for a first look; its figures prove nothing.
    #[arg(long)]
    pub quick: bool,

    /// Only these rows: put, get, sget, txn, put-one, watch, tls, million, save, restore
    /// (comma separated).
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,

    /// Only this server: etcd or quorate.
    #[arg(long, value_parser = parse_kind)]
    pub server: Option<Kind>,

    /// Cluster sizes.
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    pub members: Vec<usize>,

    /// Rounds whose median counts.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,

    /// Seconds a row runs in a round, after a warm-up of a quarter of it.
    #[arg(long, default_value_t = 6)]
    pub seconds: u64,

    /// Keys in the store for the rates.
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,

    /// Keys in the store for memory, restart and counting.
    #[arg(long, default_value_t = 1_000_000)]
    pub million_keys: u64,

    /// Keys in a store whose restart is measured too, such as 10000000; 0 leaves that row out.
    #[arg(long, default_value_t = 0)]
    pub restart_keys: u64,

    /// Keys in the store that the row `save` saves.
    #[arg(long, default_value_t = 1_000_000)]
    pub save_keys: u64,

    /// Callers at once.
    #[arg(long, default_value_t = 256)]
    pub clients: usize,

    /// Connections that they share.
    #[arg(long, default_value_t = 16)]
    pub connections: usize,

    /// Where the servers keep their data: the filesystem that is measured.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,

    /// Writes the page with the table and the machine's description here; `-` for nowhere.
    /// A run of a subset writes nothing unless told to.
    #[arg(long)]
    pub write: Option<PathBuf>,
}

/// Bytes of every value.
pub const VALUE_BYTES: usize = 256;

fn parse_kind(name: &str) -> Result<Kind> {
    Kind::parse(name)
}

impl Flags {
    /// Whether a row is asked for.
    pub fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == row)
    }

    /// Where the page goes, if anywhere.
    pub fn page(&self) -> Option<PathBuf> {
        let subset = self.quick || self.server.is_some() || !self.only.is_empty();
        match &self.write {
            Some(path) if path.as_os_str() == "-" => None,
            Some(path) => Some(path.clone()),
            None if subset => None,
            None => Some(PathBuf::from("docs/benchmarks.md")),
        }
    }

    /// The servers to measure, the yardstick first.
    pub fn servers(&self) -> Vec<Kind> {
        match self.server {
            Some(kind) => vec![kind],
            None => vec![Kind::Etcd, Kind::Quorate],
        }
    }

    /// How many rounds.
    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds }
    }

    /// How long a row is measured.
    pub fn measure(&self) -> Duration {
        Duration::from_secs(if self.quick { 2 } else { self.seconds })
    }

    /// How long it runs before.
    pub fn warm_up(&self) -> Duration {
        self.measure() / 4
    }
}
