//! Before the member's start: whether it may, and what it starts from.
//!
//! ```text
//! data directory ── probe ──> names of peers ──> is it a member still? ──> restore, if told to
//!      40, 42                      44                40, 41, 42                 43
//! ```
//! A member with data is not held back by names that do not resolve: a peer that is gone for good
//! would else keep the others from coming back. One without data needs those it starts with.

mod data;
mod membership;
mod names;
mod restore;

use std::io::Write as _;
use std::path::Path;

use quorate_sidecar::wire::{RestoreRequest, exit};
use quorate_snapshot::InitialCluster;

use self::data::Data;
use crate::config::{ClusterState, GateFlags};

/// Why the member may not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// One of [`exit`], or 1 for what no operator needs to tell apart.
    pub code: i32,
    pub line: String,
}

impl Stop {
    fn new(code: i32, line: impl Into<String>) -> Self {
        Self {
            code,
            line: line.into(),
        }
    }

    /// What was said on the command line cannot be.
    fn usage(line: impl Into<String>) -> Self {
        Self::new(1, line)
    }
}

/// Decides, and restores. The exit code.
pub async fn run(flags: &GateFlags) -> i32 {
    match pass(flags).await {
        Ok(()) => {
            tracing::info!(name = flags.name, "the member may start");
            0
        }
        Err(stop) => {
            tracing::error!(name = flags.name, code = stop.code, "{}", stop.line);
            if let Err(error) = tell(&flags.termination_log, &stop.line) {
                let path = flags.termination_log.display();
                tracing::warn!(%path, %error, "the last words cannot be left");
            }
            stop.code
        }
    }
}

/// Writes the line to where Kubernetes looks, when that is there.
fn tell(path: &Path, line: &str) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path);
    match file {
        Ok(mut file) => writeln!(file, "{line}"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

async fn pass(flags: &GateFlags) -> Result<(), Stop> {
    let cluster = InitialCluster::parse(&flags.initial_cluster, &flags.initial_cluster_token);
    let cluster = cluster.map_err(|error| Stop::usage(format!("--initial-cluster: {error}")))?;
    let request = flags.restore.as_deref().filter(|text| !text.is_empty());
    let request = request.map(serde_json::from_str::<RestoreRequest>);
    let request = request.transpose().map_err(|error| {
        Stop::new(
            exit::RESTORE_FAILED,
            format!("QUORATE_RESTORE is no request: {error}"),
        )
    })?;
    restore::remove_unfinished(&flags.data_dir)?;
    let data = data::probe(&flags.quorate_binary, &flags.data_dir).await?;
    if let Data::Of(owner) = &data {
        owner.check(flags, &cluster)?;
    }
    names::resolve(flags, &cluster, data == Data::Empty).await?;
    if let Data::Of(owner) = &data {
        return membership::check(flags, owner).await;
    }
    membership::check_newcomer(flags, &cluster).await?;
    match request {
        Some(request) if flags.initial_cluster_state == ClusterState::New => {
            restore::run(flags, cluster, request).await
        }
        Some(_) => Err(Stop::usage(
            "QUORATE_RESTORE is for the first member of a new cluster, not for one that joins",
        )),
        None => Ok(()),
    }
}
