//! Leases over restarts and changes of the leader: their keys go once, together, and never early.
//!
//! Only lower bounds of time are asserted: that a lease lived as long as was promised.

use anyhow::{Context, Result, ensure};
use quorate_client::{Client, ClientConfig};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::history::is_delete;
use quorate_e2e::rpc::{self, LeaseClient};
use quorate_e2e::watcher::{Stream, full_log};
use quorate_e2e::{verify, wait};
use quorate_proto::etcdserverpb as pb;
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const TTL_SECONDS: i64 = 4;
const KEYS: usize = 5;
const DEADLINE: Duration = Duration::from_secs(60);

fn ttl() -> Duration {
    Duration::from_secs(TTL_SECONDS as u64)
}

/// Grants a lease and puts keys under it; returns it and when it was asked for.
async fn lease_with_keys(port: u16) -> Result<(i64, Instant)> {
    let channel = rpc::channel(port, DEADLINE)?;
    let asked = Instant::now();
    let grant = pb::LeaseGrantRequest {
        ttl: TTL_SECONDS,
        id: 0,
    };
    let lease = LeaseClient::new(channel.clone())
        .lease_grant(grant)
        .await?
        .into_inner();
    ensure!(lease.ttl == TTL_SECONDS && lease.id > 0, "{lease:?}");
    for number in 0..KEYS {
        let put = pb::PutRequest {
            key: format!("leased/{number}").into(),
            lease: lease.id,
            ..Default::default()
        };
        rpc::kv(channel.clone()).put(put).await?;
    }
    Ok((lease.id, asked))
}

/// Waits until all keys are gone, one of the ports answering.
async fn gone(port: u16) -> Result<()> {
    let mut kv = rpc::kv(rpc::channel(port, Duration::from_secs(2))?);
    wait::until("the end of a lease", DEADLINE, async || {
        let range = pb::RangeRequest {
            key: "leased/".into(),
            range_end: "leased0".into(),
            ..Default::default()
        };
        let Ok(answer) = kv.range(range).await else {
            return Ok(None);
        };
        let count = answer.into_inner().count;
        ensure!(
            count == 0 || count == KEYS as i64,
            "{count} keys: they go together"
        );
        Ok((count == 0).then_some(()))
    })
    .await
}

/// The keys went once, in one revision, in key order, and on all members.
async fn went_once(cluster: &Cluster, lease: i64) -> Result<()> {
    let revision = rpc::linearizable_read(cluster.ports()[0]).await?;
    let log = full_log(cluster.ports()[0], revision).await?;
    let deleted: Vec<_> = log
        .iter()
        .filter(|event| is_delete(event))
        .filter(|event| event.prev_kv.as_ref().is_some_and(|kv| kv.lease == lease))
        .filter_map(|event| event.kv.as_ref())
        .collect();
    ensure!(deleted.len() == KEYS, "{deleted:?}");
    let same = deleted
        .windows(2)
        .all(|pair| pair[0].mod_revision == pair[1].mod_revision && pair[0].key < pair[1].key);
    ensure!(same, "they went apart or out of order: {deleted:?}");
    for port in cluster.ports() {
        rpc::linearizable_read(port).await?;
        let query = pb::LeaseTimeToLiveRequest {
            id: lease,
            keys: true,
        };
        let mut client = LeaseClient::new(rpc::channel(port, DEADLINE)?);
        let left = client.lease_time_to_live(query).await?.into_inner();
        ensure!(left.ttl == -1 && left.keys.is_empty(), "{left:?}");
    }
    quorate_e2e::check::hashes(&verify::hashes(cluster, revision).await?).into_result()
}

async fn start(size: usize) -> Result<Cluster> {
    Cluster::start(&Options::new(Kind::under_test()?, size)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_not_renewed_ends() -> Result<()> {
    let cluster = start(3).await?;
    for port in cluster.ports() {
        let (lease, asked) = lease_with_keys(port).await?;
        gone(port).await?;
        ensure!(
            asked.elapsed() >= ttl(),
            "early: after {:?}",
            asked.elapsed()
        );
        went_once(&cluster, lease).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_after_a_change_of_leader_and_not_early() -> Result<()> {
    let mut cluster = start(3).await?;
    let leader = cluster.leader().await?;
    let other = cluster.ports()[(leader + 1) % 3];
    let (lease, asked) = lease_with_keys(other).await?;
    cluster.members[leader].kill()?;
    gone(other).await?;
    ensure!(
        asked.elapsed() >= ttl(),
        "early: after {:?}",
        asked.elapsed()
    );
    cluster.members[leader].restart()?;
    cluster.ready().await?;
    went_once(&cluster, lease).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_after_a_restart_and_not_early() -> Result<()> {
    for size in [1, 3] {
        let mut cluster = start(size).await?;
        let port = cluster.ports()[0];
        let (lease, asked) = lease_with_keys(port).await?;
        for member in &mut cluster.members {
            member.kill()?;
        }
        for member in &mut cluster.members {
            member.restart()?;
        }
        cluster.ready().await?;
        gone(port).await?;
        ensure!(
            asked.elapsed() >= ttl(),
            "early: after {:?}",
            asked.elapsed()
        );
        went_once(&cluster, lease).await?;
    }
    Ok(())
}

/// Renewed through another member, a lease outlives its leader; left alone, it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_renewed_survives_its_leader() -> Result<()> {
    let mut cluster = start(3).await?;
    let leader = cluster.leader().await?;
    let other = cluster.ports()[(leader + 1) % 3];
    let (lease, _) = lease_with_keys(other).await?;
    let create = pb::WatchCreateRequest {
        key: "leased/".into(),
        range_end: "leased0".into(),
        ..Default::default()
    };
    let mut watch = Stream::open(other, create).await?;
    let created = watch.answers.message().await?.context("a created answer")?;
    ensure!(created.created, "{created:?}");
    let endpoints = cluster.endpoints();
    let client = Client::connect(ClientConfig::new(endpoints.split(','))).await?;
    let keep_alive = client.keep_alive(lease).await?;
    let renewing = Instant::now();
    cluster.members[leader].kill()?;
    cluster.members[leader].restart()?;
    cluster.ready().await?;
    wait::until("three lives of the lease", DEADLINE, async || {
        Ok((renewing.elapsed() > ttl() * 3).then_some(()))
    })
    .await?;
    let told = tokio::time::timeout(Duration::ZERO, watch.answers.message()).await;
    ensure!(told.is_err(), "the keys of a renewed lease went: {told:?}");
    drop(keep_alive);
    gone(other).await?;
    went_once(&cluster, lease).await
}

/// A process that holds, or waits for, the lock.
async fn lock(endpoints: &str) -> Result<Child> {
    let child = Command::new(Kind::under_test()?.ctl()?)
        .args([
            &format!("--endpoints={endpoints}"),
            "lock",
            "mutex",
            "--ttl=3",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

async fn acquired(child: &mut Child) -> Result<String> {
    let stdout = child.stdout.take().context("standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(DEADLINE, lines.next_line());
    line.await
        .context("a lock that is acquired")??
        .context("a line")
}

async fn one_in(port: u16, prefix: &str, range_end: &str) -> Result<i64> {
    let range = pb::RangeRequest {
        key: prefix.to_owned().into(),
        range_end: range_end.to_owned().into(),
        count_only: true,
        ..Default::default()
    };
    let mut kv = rpc::kv(rpc::channel(port, DEADLINE)?);
    Ok(kv.range(range).await?.into_inner().count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_frees_its_lock_when_its_lease_ends() -> Result<()> {
    let cluster = start(3).await?;
    let endpoints = cluster.endpoints();
    let mut holder = lock(&endpoints).await?;
    let held = acquired(&mut holder).await?;
    ensure!(held.starts_with("mutex/"), "{held}");
    let mut second = lock(&endpoints).await?;
    let port = cluster.ports()[0];
    wait::until("a second one in the queue", DEADLINE, async || {
        Ok((one_in(port, "mutex/", "mutex0").await? == 2).then_some(()))
    })
    .await?;
    let killed = Instant::now();
    holder.kill().await?;
    let next = acquired(&mut second).await?;
    ensure!(next != held, "{next} twice");
    ensure!(
        killed.elapsed() > Duration::from_secs(1),
        "freed before its lease ended"
    );
    let pid = i32::try_from(second.id().context("a running process")?)?;
    kill_process(Pid::from_raw(pid).context("not zero")?, Signal::INT)?;
    second.wait().await?;
    wait::until("a lock that is given up", DEADLINE, async || {
        Ok((one_in(port, "mutex/", "mutex0").await? == 0).then_some(()))
    })
    .await
}
