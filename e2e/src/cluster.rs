//! A cluster of one or three processes in a directory of its own, which goes with it.

use crate::binaries::Kind;
use crate::process::{Process, START_DEADLINE, Spec, free_port};
use crate::{rpc, wait};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    pub kind: Kind,
    pub size: usize,
    /// Flags beyond names, URLs and directories, for all members.
    pub extra_flags: Vec<String>,
    /// Where the members keep their data, instead of the system's temporary directory.
    pub parent: Option<PathBuf>,
}

impl Options {
    /// A cluster of `size` members with etcd's default settings.
    pub fn new(kind: Kind, size: usize) -> Self {
        Self {
            kind,
            size,
            extra_flags: Vec::new(),
            parent: None,
        }
    }

    /// Adds a flag.
    pub fn flag(mut self, flag: &str) -> Self {
        self.extra_flags.push(flag.to_owned());
        self
    }
}

/// Running members. Processes are killed and files removed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Process>,
    dir: TempDir,
}

impl Cluster {
    /// Starts all members and waits until each serves linearizable reads.
    ///
    /// # Errors
    /// When a program is missing or a member does not come up.
    pub async fn start(options: &Options) -> Result<Self> {
        let mut cluster = Self::spawn(options)?;
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Starts the members and does not wait.
    ///
    /// # Errors
    /// When a program is missing.
    pub fn spawn(options: &Options) -> Result<Self> {
        let (specs, dir) = specs(options)?;
        let members = specs.into_iter().map(Process::start);
        Ok(Self {
            members: members.collect::<Result<_>>()?,
            dir,
        })
    }

    /// Takes members that were started elsewhere, and the directory that they live in.
    pub fn from_parts(members: Vec<Process>, dir: TempDir) -> Self {
        Self { members, dir }
    }

    /// Waits until every running member serves.
    ///
    /// # Errors
    /// When one does not in time.
    pub async fn ready(&mut self) -> Result<()> {
        for member in &mut self.members {
            if member.pid().is_some() {
                member.ready().await?;
            }
        }
        Ok(())
    }

    /// The client ports of all members.
    pub fn ports(&self) -> Vec<u16> {
        self.members.iter().map(|m| m.spec.client_port).collect()
    }

    /// `host:port,…` as the command line tools take it.
    pub fn endpoints(&self) -> String {
        let addresses = self.ports().into_iter().map(|p| format!("127.0.0.1:{p}"));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The directory that holds the data directories and logs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Which member leads, as one that runs says; waits while there is none.
    ///
    /// # Errors
    /// When no leader appears in time.
    pub async fn leader(&self) -> Result<usize> {
        wait::until("a leader", START_DEADLINE, async || {
            for (index, member) in self.members.iter().enumerate() {
                if member.pid().is_none() {
                    continue;
                }
                if let Ok(status) = rpc::status(member.spec.client_port).await {
                    let id = status.header.as_ref().context("a header")?.member_id;
                    if status.leader == id {
                        return Ok(Some(index));
                    }
                }
            }
            Ok(None)
        })
        .await
    }
}

/// Lays out directories and ports for the members of a cluster.
///
/// # Errors
/// When there is no free port, or no directory can be made.
pub fn specs(options: &Options) -> Result<(Vec<Spec>, TempDir)> {
    ensure!(options.size > 0, "a cluster has members");
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("quorate-e2e-");
    let dir = match &options.parent {
        Some(parent) => builder.tempdir_in(parent)?,
        None => builder.tempdir()?,
    };
    let mut specs = Vec::new();
    for number in 1..=options.size {
        let name = format!("m{number}");
        let peer_port = free_port()?;
        specs.push(Spec {
            kind: options.kind,
            data_dir: dir.path().join(format!("{name}.data")),
            log: dir.path().join(format!("{name}.log")),
            name,
            client_port: free_port()?,
            peer_port,
            advertised_peer_port: peer_port,
            initial_cluster: String::new(),
            extra_flags: options.extra_flags.clone(),
        });
    }
    set_initial_cluster(&mut specs);
    Ok((specs, dir))
}

/// Tells every member of every other, by their advertised ports.
pub fn set_initial_cluster(specs: &mut [Spec]) {
    let entries = specs.iter().map(|spec| {
        format!(
            "{}=http://127.0.0.1:{}",
            spec.name, spec.advertised_peer_port
        )
    });
    let initial_cluster = entries.collect::<Vec<_>>().join(",");
    for spec in specs {
        spec.initial_cluster = initial_cluster.clone();
    }
}
