//! The clock of the leader jumps an hour ahead, and back: leases are counted by another clock and
//! end neither early nor never. Certificates that change while members are killed.

use anyhow::{Context, Result, ensure};
use quorate_e2e::authority::Subject;
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options, specs};
use quorate_e2e::history::History;
use quorate_e2e::monitoring::Scrape;
use quorate_e2e::process::Process;
use quorate_e2e::rpc::{self, LeaseClient, channel};
use quorate_e2e::secure::{Files, Sides, start};
use quorate_e2e::traffic::Traffic;
use quorate_e2e::{verify, wait};
use quorate_proto::etcdserverpb as pb;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SOON: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(8);
/// Certificates are changed, and members killed, so many times.
const ROUNDS: u64 = 9;

/// Where Debian keeps the library that lies about the time.
fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?;
    let mut paths = folders
        .flatten()
        .map(|it| it.path().join("faketime/libfaketime.so.1"));
    paths
        .find(|path| path.is_file())
        .context("libfaketime.so.1, which `make test` installs")
}

/// Starts a server whose clock is what a file says, such as `+3600`; only the time of day.
fn launcher(clock: &Path) -> Result<Vec<String>> {
    Ok(vec![
        "env".to_owned(),
        format!("LD_PRELOAD={}", library()?.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_do_not_follow_a_clock_that_jumps() -> Result<()> {
    let (mut specs, folder) = specs(&Options::new(Kind::Quorate, 3))?;
    let clock = |number: usize| folder.path().join(format!("clock-{number}"));
    for (number, spec) in specs.iter_mut().enumerate() {
        std::fs::write(clock(number), "+0")?;
        spec.launcher = launcher(&clock(number))?;
    }
    let clocks: Vec<PathBuf> = (0..3).map(clock).collect();
    let members = specs.into_iter().map(Process::start);
    let mut cluster = Cluster::from_parts(members.collect::<Result<_>>()?, folder);
    cluster.ready().await?;
    for jump in ["+3600", "-3600"] {
        let leader = cluster.leader().await?;
        let granted = Instant::now();
        let id = grant(&cluster).await?;
        std::fs::write(&clocks[leader], jump)?;
        has_jumped(&cluster, leader).await?;
        lives_its_time(&cluster, id, granted)
            .await
            .with_context(|| format!("the leader's clock jumped {jump} s"))?;
        std::fs::write(&clocks[leader], "+0")?;
    }
    Ok(())
}

/// The member itself sees another time: it says when it compacted last.
async fn has_jumped(cluster: &Cluster, member: usize) -> Result<()> {
    let revision = rpc::linearizable_read(cluster.ports()[member]).await?;
    let port = cluster.ports()[member];
    let request = pb::CompactionRequest {
        revision,
        physical: false,
    };
    rpc::kv(channel(port, SOON)?).compact(request).await?;
    let name = &cluster.members[member].spec.name;
    wait::until("a clock that has jumped", SOON, async || {
        let scrape = Scrape::of(cluster).await?;
        let at = scrape.value(name, "etcd_debugging_mvcc_db_compaction_last");
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let at = at.context("the time of the last compaction")?;
        Ok((at > 0.0 && (at - now).abs() > 3_000.0).then_some(()))
    })
    .await
}

async fn grant(cluster: &Cluster) -> Result<i64> {
    let port = cluster.ports()[0];
    let request = pb::LeaseGrantRequest {
        ttl: TTL.as_secs() as i64,
        id: 0,
    };
    let mut leases = LeaseClient::new(channel(port, SOON)?);
    let id = leases.lease_grant(request).await?.into_inner().id;
    let request = pb::PutRequest {
        key: "leased".into(),
        lease: id,
        ..Default::default()
    };
    rpc::kv(channel(port, SOON)?).put(request).await?;
    Ok(id)
}

/// The key stays until the lease has had its time, and then goes.
async fn lives_its_time(cluster: &Cluster, id: i64, granted: Instant) -> Result<()> {
    let port = cluster.ports()[1];
    let mut kv = rpc::kv(channel(port, SOON)?);
    let gone = wait::until("the end of the lease", SOON, async || {
        let request = pb::RangeRequest {
            key: "leased".into(),
            ..Default::default()
        };
        let found = kv.range(request).await?.into_inner().count;
        Ok((found == 0).then(|| granted.elapsed()))
    })
    .await?;
    ensure!(
        gone >= TTL,
        "lease {id:x} ended after {gone:?}, not {TTL:?}"
    );
    ensure!(gone < 3 * TTL, "lease {id:x} ended only after {gone:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_while_members_are_killed() -> Result<()> {
    let files = Files::new()?;
    let flags = files.flags(Sides::PEER);
    let mut cluster = start(Kind::Quorate, 3, Sides::PEER, flags, None).await?;
    let history = Arc::new(History::default());
    let traffic = Traffic::start(&history, &cluster.ports(), 6, "rotated", 11)?;
    let more = async |count: usize| {
        let target = history.acknowledged() + count;
        wait::until("acknowledged calls", SOON, async || {
            Ok((history.acknowledged() >= target).then_some(()))
        })
        .await
    };
    for round in 0..ROUNDS {
        let victim = match round % 3 {
            0 => cluster.leader().await?,
            _ => round as usize % 3,
        };
        cluster.members[victim].kill()?;
        // The certificate and then the key, as most tools do; members shake hands meanwhile.
        let subject = Subject::here("server", 100 + round);
        files.authority.issue("server", &subject)?;
        more(30).await?;
        cluster.members[victim].restart()?;
        cluster.ready().await?;
        more(30).await?;
    }
    traffic.stop().await?;
    verify::all(&cluster, &history, Vec::new()).await?;
    Ok(())
}
