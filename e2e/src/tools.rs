//! Command line tools that run to their end, and what the tests of snapshots do with them.

use crate::binaries::Kind;
use crate::cluster::{Cluster, Options, specs};
use crate::process::{Process, Spec};
use anyhow::{Context, Result, ensure};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Errors
/// When it cannot be run.
pub fn run(mut command: Command, stdin: &[u8]) -> Result<Ended> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("standard input")?;
    input.write_all(stdin)?;
    drop(input);
    let output = child.wait_with_output()?;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// etcdctl or quoratectl, which must succeed; what it printed.
///
/// # Errors
/// When it fails.
pub fn ctl(kind: Kind, port: u16, words: &[&str], stdin: &[u8]) -> Result<String> {
    let mut command = Command::new(kind.ctl()?);
    command.arg(format!("--endpoints=127.0.0.1:{port}"));
    command.args(words);
    let ended = run(command, stdin)?;
    ensure!(ended.code == Some(0), "{words:?}: {ended:?}");
    Ok(ended.stdout)
}

/// etcdutl, the real one or ours under that name.
///
/// # Errors
/// When it cannot be run.
pub fn utl(kind: Kind, words: &[&str]) -> Result<Ended> {
    let mut command = match kind {
        Kind::Etcd => Command::new(kind.ctl()?.with_file_name("etcdutl")),
        Kind::Quorate => Command::new(kind.ctl()?),
    };
    command.arg0("etcdutl").args(words);
    run(command, b"")
}

/// Fills a store with what snapshots have to carry.
///
/// # Errors
/// When a command fails.
pub fn fill(kind: Kind, port: u16) -> Result<()> {
    let run = |words: &[&str]| ctl(kind, port, words, b"");
    for number in 0..40 {
        run(&[
            "put",
            &format!("key-{}", number % 17),
            &format!("value-{number}"),
        ])?;
    }
    run(&["del", "key-3"])?;
    run(&["del", "key-1", "key-2"])?;
    ctl(
        kind,
        port,
        &["txn"],
        b"\n\nput t1 x\nput t2 z\ndel key-5\n\n\n",
    )?;
    let large = vec![b'v'; 1_500_000];
    ctl(kind, port, &["put", "large"], &large)?;
    let granted = run(&["lease", "grant", "3000"])?;
    let lease = granted.split(' ').nth(1).context("a lease")?;
    run(&["put", "leased-1", "a", "--lease", lease])?;
    run(&["put", "leased-2", "b", "--lease", lease])?;
    run(&["put", "leased-1", "c"])?;
    run(&["lease", "grant", "4000"])?;
    run(&["compact", "30"])?;
    run(&["del", "key-4"])?;
    Ok(())
}

/// What must be the same after a move.
///
/// # Errors
/// When a command fails.
pub fn content(port: u16) -> Result<String> {
    let run = |words: &[&str]| ctl(Kind::Etcd, port, words, b"");
    let hash = run(&["endpoint", "hashkv"])?;
    let (_, hash) = hash.split_once(", ").context("a hash")?;
    let keys = run(&["get", "", "--prefix", "-w", "fields"])?;
    let old = run(&["get", "", "--prefix", "--rev", "35", "-w", "fields"])?;
    let without_header = |text: &str| {
        let lines = text.lines();
        let lines = lines.filter(|line| !line.contains("ID\" :") && !line.contains("RaftTerm"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let leases = run(&["lease", "list"])?;
    let mut attached = String::new();
    for id in leases.lines().skip(1) {
        let lease = run(&["lease", "timetolive", id, "--keys", "-w", "json"])?;
        let lease: serde_json::Value = serde_json::from_str(&lease)?;
        attached.push_str(&format!(
            "{id} {} {}\n",
            lease["granted-ttl"], lease["keys"]
        ));
    }
    let (keys, old) = (without_header(&keys), without_header(&old));
    Ok(format!("{hash}\n{leases}\n{attached}\n{keys}\n{old}"))
}

/// Saves a snapshot of the first member.
///
/// # Errors
/// When the tool fails, or says something else than etcdctl.
pub fn save(tool: Kind, cluster: &Cluster, path: &Path) -> Result<()> {
    let port = cluster.members[0].spec.client_port;
    let path = path.to_str().context("a path")?;
    let said = ctl(tool, port, &["snapshot", "save", path], b"")?;
    let expected = format!("Snapshot saved at {path}\nServer version 3.7.0\n");
    ensure!(said == expected, "{said}");
    Ok(())
}

/// Restores `file` for every member of a new cluster with `tool`, and starts it.
///
/// # Errors
/// When the tool fails, or a member does not serve in time.
pub async fn restore(tool: Kind, file: &Path, options: &Options, more: &[&str]) -> Result<Cluster> {
    let (specs, dir) = specs(options)?;
    for spec in &specs {
        let ended = utl(tool, &restore_words(file, spec, more)?)?;
        ensure!(ended.code == Some(0), "{ended:?}");
    }
    let members = specs.into_iter().map(Process::start);
    let mut cluster = Cluster::from_parts(members.collect::<Result<_>>()?, dir);
    cluster.ready().await?;
    Ok(cluster)
}

/// The words with which etcdutl restores `file` for one member.
///
/// # Errors
/// When a path is no text.
pub fn restore_words<'a>(file: &'a Path, spec: &Spec, more: &[&'a str]) -> Result<Vec<&'a str>> {
    let flags = [
        format!("--name={}", spec.name),
        format!("--data-dir={}", spec.data_dir.display()),
        format!("--initial-cluster={}", spec.initial_cluster),
        "--initial-cluster-token=e2e".to_owned(),
        format!(
            "--initial-advertise-peer-urls=http://127.0.0.1:{}",
            spec.advertised_peer_port
        ),
    ];
    let mut words = vec!["snapshot", "restore", file.to_str().context("a path")?];
    words.extend(flags.map(String::leak).map(|flag| &*flag));
    words.extend(more);
    Ok(words)
}
