//! Our own wires between members: each can be cut, made to swallow, or slowed, in one direction.
//!
//! Before every member's peer port stands a proxy whose port the member advertises. Who calls is
//! told by the kernel's table of sockets, because a TCP connection does not carry a name.

use crate::cluster::Options;
use crate::process::{Spec, free_port};
use crate::{cluster, process::Process};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What a wire does with what is sent over it in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Pass,
    /// Holds each piece back for so long.
    Delay(Duration),
    /// Nothing arrives, and nobody is told; what was sent arrives when it passes again.
    Swallow,
    /// Connections are closed, and new ones too.
    Cut,
}

type Wires = Vec<Vec<Wire>>;

/// All wires of a cluster. They end with it.
#[derive(Debug)]
pub struct Net {
    wires: watch::Sender<Wires>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Net {
    /// Lays out a cluster whose members reach each other through these wires only, and starts it.
    ///
    /// # Errors
    /// When a program is missing or a member does not come up.
    pub async fn start(options: &Options) -> Result<(Self, cluster::Cluster)> {
        let (mut specs, dir) = cluster::specs(options)?;
        for spec in &mut specs {
            spec.advertised_peer_port = free_port()?;
        }
        cluster::set_initial_cluster(&mut specs);
        let net = Self::new(&specs).await?;
        let cluster = Self::processes(specs, dir).await?;
        Ok((net, cluster))
    }

    async fn processes(specs: Vec<Spec>, dir: TempDir) -> Result<cluster::Cluster> {
        let members = specs.into_iter().map(Process::start);
        let mut cluster = cluster::Cluster::from_parts(members.collect::<Result<_>>()?, dir);
        cluster.ready().await?;
        Ok(cluster)
    }

    async fn new(specs: &[Spec]) -> Result<Self> {
        let count = specs.len();
        let (wires, receiver) = watch::channel(vec![vec![Wire::Pass; count]; count]);
        let data_dirs: Arc<[PathBuf]> = specs.iter().map(|s| s.data_dir.clone()).collect();
        let mut tasks = Vec::new();
        for (to, spec) in specs.iter().enumerate() {
            let listener = TcpListener::bind(("127.0.0.1", spec.advertised_peer_port)).await?;
            let door = Door {
                to,
                peer_port: spec.peer_port,
                data_dirs: data_dirs.clone(),
                wires: receiver.clone(),
            };
            tasks.push(tokio::spawn(door.run(listener)));
        }
        Ok(Self { wires, tasks })
    }

    /// Sets what is sent from one member to another.
    pub fn set(&self, from: usize, to: usize, wire: Wire) {
        self.wires.send_modify(|wires| wires[from][to] = wire);
    }

    /// Sets both directions between one member and all others.
    pub fn isolate(&self, member: usize, wire: Wire) {
        self.wires.send_modify(|wires| {
            for other in (0..wires.len()).filter(|other| *other != member) {
                wires[member][other] = wire;
                wires[other][member] = wire;
            }
        });
    }

    /// Lets everything pass.
    pub fn heal(&self) {
        self.wires.send_modify(|wires| {
            for wire in wires.iter_mut().flatten() {
                *wire = Wire::Pass;
            }
        });
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The proxy before one member.
struct Door {
    to: usize,
    peer_port: u16,
    data_dirs: Arc<[PathBuf]>,
    wires: watch::Receiver<Wires>,
}

impl Door {
    async fn run(self, listener: TcpListener) {
        let door = Arc::new(self);
        while let Ok((caller, address)) = listener.accept().await {
            let door = Arc::clone(&door);
            tokio::spawn(async move { door.connect(caller, address.port()).await });
        }
    }

    /// Joins a caller to the member behind this door, or hangs up.
    async fn connect(&self, caller: TcpStream, port: u16) {
        // Looking through all processes takes a while, and the wires must go on meanwhile.
        let data_dirs = Arc::clone(&self.data_dirs);
        let from = tokio::task::spawn_blocking(move || owner(port, &data_dirs)).await;
        // A caller that nobody knows gets no wire.
        let Ok(Some(from)) = from else {
            return;
        };
        if self.wires.borrow()[from][self.to] == Wire::Cut {
            return;
        }
        let Ok(member) = TcpStream::connect(("127.0.0.1", self.peer_port)).await else {
            return;
        };
        if caller.set_nodelay(true).is_err() || member.set_nodelay(true).is_err() {
            return;
        }
        let (caller_read, caller_write) = caller.into_split();
        let (member_read, member_write) = member.into_split();
        let wires = self.wires.clone();
        let (there, back) = ((from, self.to), (self.to, from));
        tokio::spawn(pump(caller_read, member_write, there, wires.clone()));
        tokio::spawn(pump(member_read, caller_write, back, wires));
    }
}

/// Carries bytes in one direction until either side ends or the wire is cut.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    ends: (usize, usize),
    mut wires: watch::Receiver<Wires>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = wires.changed() => {
                if changed.is_err() || wires.borrow()[ends.0][ends.1] == Wire::Cut {
                    return;
                }
                continue;
            }
        };
        let Ok(count @ 1..) = read else {
            return;
        };
        loop {
            let wire = wires.borrow_and_update()[ends.0][ends.1];
            match wire {
                Wire::Pass => break,
                Wire::Cut => return,
                Wire::Delay(delay) => {
                    tokio::time::sleep(delay).await;
                    break;
                }
                Wire::Swallow => {
                    if wires.changed().await.is_err() {
                        return;
                    }
                }
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Which member holds the socket with this local port.
fn owner(port: u16, data_dirs: &[PathBuf]) -> Option<usize> {
    let inode = socket_inode(port).ok()?;
    let link = format!("socket:[{inode}]");
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let command = String::from_utf8_lossy(&command).into_owned();
        let runs = |dir: &PathBuf| command.contains(&format!("--data-dir={}", dir.display()));
        if let Some(member) = data_dirs.iter().position(runs)
            && holds(&entry.path().join("fd"), &link)
        {
            return Some(member);
        }
    }
    None
}

fn holds(descriptors: &Path, link: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(descriptors) else {
        return false;
    };
    let mut targets = entries.flatten().map(|e| std::fs::read_link(e.path()));
    targets.any(|target| target.is_ok_and(|target| target.as_os_str() == link))
}

/// The inode of the established socket of this machine with this local port.
fn socket_inode(port: u16) -> Result<String> {
    let local = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let table6 = std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let lines = table.lines().chain(table6.lines());
    for line in lines.skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields
            .get(1)
            .is_some_and(|address| address.ends_with(&local))
        {
            return Ok((*fields.get(9).context("an inode")?).to_owned());
        }
    }
    anyhow::bail!("no socket has the port {port}")
}
