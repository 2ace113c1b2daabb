//! The alerts of etcd's mixin, judged by promtool on real scrapes: on a healthy cluster none fires,
//! on a broken one those that should and no other.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::monitoring::{Gauges, Scrape, judge};
use quorate_e2e::rpc::{self, MaintenanceClient, channel};
use quorate_e2e::wait;
use quorate_proto::etcdserverpb as pb;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
/// Writes that fail at once when there is no quorum: enough for more than 5 a second.
const FAILING_WRITES: usize = 400;
/// Bytes of a value with which a store is filled.
const FILL_BYTES: usize = 200_000;

fn rules() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&package).join("../docs/alerts/etcd.yml")
}

fn put(number: usize, bytes: usize) -> pb::PutRequest {
    // Not to be compressed.
    let noise = (0..bytes).map(|at| (((at * 7 + number) * 2_654_435_761) >> 13) as u8);
    pb::PutRequest {
        key: format!("key-{}", number % 1000).into(),
        value: noise.collect::<Vec<_>>().into(),
        ..Default::default()
    }
}

/// Writes and reads at each of the ports.
async fn work(ports: &[u16]) -> Result<()> {
    for port in ports {
        let mut kv = rpc::kv(channel(*port, SOON)?);
        for number in 0..200 {
            kv.put(put(number, 100)).await?;
            let request = pb::RangeRequest {
                key: format!("key-{number}").into(),
                ..Default::default()
            };
            kv.range(request).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_broken_is_told_and_nothing_else() -> Result<()> {
    let options = Options::new(Kind::under_test()?, 3).flag("--metrics=extensive");
    let mut cluster = Cluster::start(&options).await?;
    let ports = cluster.ports();
    work(&ports).await?;
    let first = Scrape::of(&cluster).await?;
    work(&ports).await?;
    let second = Scrape::of(&cluster).await?;
    judge(&rules(), (&first, &second), Gauges::Stay, &[]).context("a healthy cluster")?;
    for series in [
        "etcd_server_range_duration_seconds_count{success=\"true\"}",
        "etcd_server_feature_enabled{name=\"InitialCorruptCheck\",stage=\"ALPHA\"}",
    ] {
        ensure!(second.value("m1", series).is_some(), "no {series}");
    }
    let known = second.series("m1", "etcd_network_known_peers{");
    ensure!(known == 3, "{known} known peers");

    slow_disks_and_wires(&first, &second).context("slow disks and wires")?;
    leaders_that_change(&cluster)
        .await
        .context("leaders that change")?;

    let leader = cluster.leader().await?;
    let (gone, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.members[gone].kill()?;
    let alive = [ports[leader], ports[other]];
    work(&alive).await?;
    let first = Scrape::of(&cluster).await?;
    work(&alive).await?;
    let second = Scrape::of(&cluster).await?;
    let told = ["etcdMembersDown"];
    judge(&rules(), (&first, &second), Gauges::Stay, &told).context("one member is down")?;

    cluster.members[other].kill()?;
    without_a_quorum(&cluster, leader)
        .await
        .context("two members are down")
}

async fn leaders_that_change(cluster: &Cluster) -> Result<()> {
    let first = Scrape::of(cluster).await?;
    for _ in 0..5 {
        let leader = cluster.leader().await?;
        let port = cluster.ports()[leader];
        let next = rpc::status(cluster.ports()[(leader + 1) % 3]).await?;
        let target_id = next.header.context("a header")?.member_id;
        let mut maintenance = MaintenanceClient::new(channel(port, SOON)?);
        maintenance
            .move_leader(pb::MoveLeaderRequest { target_id })
            .await?;
    }
    let second = Scrape::of(cluster).await?;
    let told = ["etcdHighNumberOfLeaderChanges"];
    judge(&rules(), (&first, &second), Gauges::Stay, &told)
}

/// Real series, but for what they tell of durations and sizes.
fn slow_disks_and_wires(first: &Scrape, second: &Scrape) -> Result<()> {
    for (histogram, alert) in [
        (
            "etcd_disk_wal_fsync_duration_seconds",
            "etcdHighFsyncDurations",
        ),
        (
            "etcd_disk_backend_commit_duration_seconds",
            "etcdHighCommitDurations",
        ),
        (
            "etcd_network_peer_round_trip_time_seconds",
            "etcdMemberCommunicationSlow",
        ),
    ] {
        let mut slow = second.clone();
        let mut altered = 0;
        slow.alter(|series, value| {
            // A hundred thousand that took two seconds.
            let bound = series.strip_prefix(histogram);
            let bound = bound.and_then(|rest| rest.strip_prefix("_bucket{"));
            let bound = bound.and_then(|rest| rest.split("le=\"").nth(1)?.split('"').next());
            let bound = bound.map(|bound| bound.parse().unwrap_or(f64::INFINITY));
            if bound.is_some_and(|bound| bound >= 2.0) {
                *value += 100_000.0;
                altered += 1;
            }
        });
        ensure!(altered > 0, "there are buckets of {histogram}");
        judge(&rules(), (first, &slow), Gauges::Stay, &[alert]).context(histogram)?;
    }
    Ok(())
}

async fn without_a_quorum(cluster: &Cluster, survivor: usize) -> Result<()> {
    let name = &cluster.members[survivor].spec.name;
    wait::until("a member that knows no leader", SOON, async || {
        let scrape = Scrape::of(cluster).await?;
        let has_leader = scrape.value(name, "etcd_server_has_leader");
        Ok((has_leader == Some(0.0)).then_some(()))
    })
    .await?;
    let first = Scrape::of(cluster).await?;
    let port = cluster.ports()[survivor];
    let writes = (0..FAILING_WRITES).map(|number| async move {
        let mut kv = rpc::kv(channel(port, SOON)?);
        ensure!(
            kv.put(put(number, 100)).await.is_err(),
            "there is no quorum"
        );
        Ok(())
    });
    futures::future::try_join_all(writes).await?;
    let second = Scrape::of(cluster).await?;
    let told = [
        "etcdGRPCRequestsSlow",
        "etcdHighNumberOfFailedGRPCRequests",
        "etcdHighNumberOfFailedProposals",
        "etcdInsufficientMembers",
        "etcdMembersDown",
        "etcdNoLeader",
    ];
    judge(&rules(), (&first, &second), Gauges::Stay, &told)
}

#[tokio::test]
async fn a_store_that_fills_up_is_told() -> Result<()> {
    let options = Options::new(Kind::under_test()?, 1).flag("--quota-backend-bytes=33554432");
    let cluster = Cluster::start(&options).await?;
    let port = cluster.ports()[0];
    let first = Scrape::of(&cluster).await?;
    let mut kv = rpc::kv(channel(port, SOON)?);
    let mut growing = None;
    for number in 0.. {
        if let Err(full) = kv.put(put(number, FILL_BYTES)).await {
            ensure!(full.message().contains("database space exceeded"), "{full}");
            break;
        }
        if number == 60 {
            growing = Some(Scrape::of(&cluster).await?);
        }
    }
    let full = Scrape::of(&cluster).await?;
    let growing = growing.context("room for a few")?;
    let told = ["etcdBackendQuotaLowSpace", "etcdExcessiveDatabaseGrowth"];
    judge(&rules(), (&first, &growing), Gauges::GoOn, &told).context("a store that grows")?;
    let told = ["etcdBackendQuotaLowSpace", "etcdExcessiveDatabaseGrowth"];
    judge(&rules(), (&first, &full), Gauges::Stay, &told).context("a store that is full")
}
