//! Starts that must fail with a clear message and exit code, and disks that are full or read-only.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{self, Cluster, Options};
use quorate_e2e::process::{Process, Spec, free_port};
use quorate_e2e::{rpc, wait};
use quorate_proto::etcdserverpb as pb;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

/// Starts it, waits for its end, and checks that it failed and said why.
async fn fails(spec: Spec, says: &[&str]) -> Result<()> {
    let mut process = Process::start(spec)?;
    let status = process.ended(DEADLINE).await?;
    let log = process.log()?;
    ensure!(!status.success(), "it ended well: {log}");
    ensure!(
        status.code().is_some(),
        "a signal ended it ({status}): {log}"
    );
    ensure!(!log.contains("panicked at"), "it panicked: {log}");
    let said = says.iter().any(|text| log.contains(text));
    ensure!(said, "it does not say {says:?}: {log}");
    Ok(())
}

fn one_spec() -> Result<(Spec, TempDir)> {
    let (mut specs, dir) = cluster::specs(&Options::new(Kind::under_test()?, 1))?;
    Ok((specs.pop().context("one member")?, dir))
}

/// The same data directory with ports of its own.
fn beside(spec: &Spec) -> Result<Spec> {
    let mut other = spec.clone();
    other.client_port = free_port()?;
    other.peer_port = free_port()?;
    other.log = spec.log.with_extension("second.log");
    Ok(other)
}

#[tokio::test]
async fn an_unknown_flag_is_refused() -> Result<()> {
    let (mut spec, _dir) = one_spec()?;
    spec.extra_flags.push("--no-such-flag=1".to_owned());
    fails(spec, &["no-such-flag"]).await
}

#[tokio::test]
async fn a_flag_with_nonsense_is_refused() -> Result<()> {
    let (mut spec, _dir) = one_spec()?;
    spec.extra_flags
        .push("--heartbeat-interval=soon".to_owned());
    fails(spec, &["heartbeat-interval"]).await
}

#[tokio::test]
async fn a_port_in_use_is_refused() -> Result<()> {
    for peer in [false, true] {
        let (spec, _dir) = one_spec()?;
        let port = if peer {
            spec.peer_port
        } else {
            spec.client_port
        };
        let _taken = std::net::TcpListener::bind(("127.0.0.1", port))?;
        fails(spec, &["ddress already in use"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn two_processes_do_not_share_a_data_directory() -> Result<()> {
    let kind = Kind::under_test()?;
    let mut cluster = Cluster::start(&Options::new(kind, 1)).await?;
    let second = beside(&cluster.members[0].spec)?;
    match kind {
        Kind::Quorate => fails(second, &["data directory", "data-dir", "lock"]).await?,
        // The real etcd waits for the lock for ever.
        Kind::Etcd => {
            let mut process = Process::start(second)?;
            let said = wait::until("a line on the lock", DEADLINE, async || {
                ensure!(process.exit_status()?.is_none(), "{}", process.log_tail()?);
                Ok(process.log()?.contains("flocked").then_some(()))
            });
            said.await?;
            ensure!(
                rpc::linearizable_read(process.spec.client_port)
                    .await
                    .is_err()
            );
        }
    }
    ensure!(
        cluster.members[0].exit_status()?.is_none(),
        "the first one ended"
    );
    rpc::linearizable_read(cluster.ports()[0]).await?;
    Ok(())
}

/// Quorate binds a data directory to its member and cluster; etcd trusts what it finds there.
#[tokio::test]
async fn a_data_directory_of_another_member_is_refused() -> Result<()> {
    let kind = Kind::Quorate;
    let mut cluster = Cluster::start(&Options::new(kind, 3)).await?;
    for member in &mut cluster.members {
        member.terminate().await?;
    }
    let mut impostor = cluster.members[0].spec.clone();
    impostor
        .data_dir
        .clone_from(&cluster.members[1].spec.data_dir);
    fails(impostor, &["member"]).await
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_is_refused() -> Result<()> {
    let kind = Kind::Quorate;
    let mut cluster = Cluster::start(&Options::new(kind, 1)).await?;
    cluster.members[0].terminate().await?;
    let mut impostor = cluster.members[0].spec.clone();
    impostor
        .extra_flags
        .push("--initial-cluster-token=another".to_owned());
    fails(impostor, &["cluster", "member"]).await
}

/// A filesystem in memory that is gone at the end.
struct Tmpfs {
    folder: TempDir,
}

impl Tmpfs {
    fn mount(options: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("quorate-e2e-fs-")
            .tempdir()?;
        let tmpfs = Self { folder };
        tmpfs.call(&["-t", "tmpfs", "-o", options, "tmpfs"])?;
        Ok(tmpfs)
    }

    fn remount(&self, options: &str) -> Result<()> {
        self.call(&["-o", &format!("remount,{options}")])
    }

    fn call(&self, args: &[&str]) -> Result<()> {
        let output = Command::new("mount")
            .args(args)
            .arg(self.folder.path())
            .output()?;
        ensure!(
            output.status.success(),
            "this test mounts a tmpfs and has to run as root: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, because a process that was just killed may still hold it.
        let unmounted = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.folder.path().display());
        }
    }
}

#[tokio::test]
async fn a_read_only_disk_is_refused() -> Result<()> {
    let tmpfs = Tmpfs::mount("size=16m")?;
    let (mut spec, _dir) = one_spec()?;
    spec.data_dir = tmpfs.path().join("data");
    tmpfs.remount("ro")?;
    fails(spec, &["ead-only file system"]).await
}

/// Writes until the disk is full; what was acknowledged is there when there is room again.
#[tokio::test]
async fn a_full_disk_loses_nothing_acknowledged() -> Result<()> {
    let tmpfs = Tmpfs::mount("size=300m")?;
    let mut options = Options::new(Kind::under_test()?, 1);
    options.parent = Some(tmpfs.path());
    let mut cluster = Cluster::start(&options).await?;
    let port = cluster.ports()[0];
    let mut kv = rpc::kv(rpc::channel(port, Duration::from_secs(10))?);
    let mut acknowledged = 0;
    let refused = loop {
        let put = pb::PutRequest {
            key: format!("full/{acknowledged}").into(),
            value: vec![(acknowledged % 251) as u8; 256 << 10].into(),
            ..Default::default()
        };
        match kv.put(put).await {
            Ok(_) => acknowledged += 1,
            Err(status) => break status,
        }
        ensure!(acknowledged < 4_000, "the disk is never full");
    };
    eprintln!(
        "{acknowledged} values, then {:?}: {}",
        refused.code(),
        refused.message()
    );
    ensure!(
        acknowledged > 50,
        "the disk was full too early: {refused:?}"
    );
    let member = &mut cluster.members[0];
    ensure!(
        !member.log()?.contains("panicked at"),
        "it panicked: {}",
        member.log_tail()?
    );
    // Whether it ended itself or refuses writes: after a kill and with more room it has all of it.
    match member.exit_status()? {
        Some(_) => member.ended(DEADLINE).await.map(drop)?,
        None => member.kill()?,
    }
    tmpfs.remount("size=1g")?;
    cluster.members[0].restart()?;
    cluster.ready().await?;
    for number in 0..acknowledged {
        let range = pb::RangeRequest {
            key: format!("full/{number}").into(),
            ..Default::default()
        };
        let found = kv.range(range).await?.into_inner().kvs;
        let value = found.first().map(|kv| kv.value.as_ref());
        let expected = vec![(number % 251) as u8; 256 << 10];
        ensure!(
            value == Some(&expected[..]),
            "full/{number} of {acknowledged} is lost"
        );
    }
    Ok(())
}
