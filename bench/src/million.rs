//! A store of a million keys on one member: memory, counting, and the time of a restart.

use crate::flags::Flags;
use crate::load;
use crate::report::{Line, Report};
use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::rpc;
use quorate_proto::etcdserverpb as pb;
use std::time::{Duration, Instant};

/// The name of these rows for `--only`.
pub const NAME: &str = "million";

/// Keys of the page that is read with its count.
const PAGE_KEYS: i64 = 500;

/// Times each of the reads and restarts is done.
const REPEATS: usize = 3;

#[derive(Default, Clone, Copy)]
struct Figures {
    resident_bytes: f64,
    count_ms: f64,
    page_ms: f64,
    restart_term_ms: f64,
    restart_kill_ms: f64,
    resident_restarted_bytes: f64,
}

/// Measures each server in turn, alone on the machine.
///
/// # Errors
/// When a server does not start or a call fails.
pub async fn run(flags: &Flags, report: &mut Report) -> Result<()> {
    let mut figures = Vec::new();
    for kind in flags.servers() {
        let measured = measure(flags, kind)
            .await
            .with_context(|| format!("a million keys in {}", kind.name()))?;
        figures.push((kind, measured));
    }
    let of = |kind: Kind| figures.iter().find(|f| f.0 == kind).map(|f| f.1);
    let (etcd, ours) = (of(Kind::Etcd), of(Kind::Quorate));
    let mut add = |title: &str, unit, figure: fn(&Figures) -> f64, line| {
        report.add_plain(
            title,
            unit,
            etcd.as_ref().map(figure),
            ours.as_ref().map(figure),
            line,
        );
    };
    let half = Line::new("≤ 1/2").figure(0.5);
    let third = || Line::new("≤ 1/3").figure(1.0 / 3.0);
    let same = || Line::new("≤ 1x").figure(1.0);
    add(
        "memory, 1M keys, after filling",
        "MB",
        |f| f.resident_bytes / 1e6,
        half,
    );
    add(
        "memory, 1M keys, after a restart",
        "MB",
        |f| f.resident_restarted_bytes / 1e6,
        half,
    );
    add("count_only over 1M keys", "ms", |f| f.count_ms, same());
    add(
        "500-key page of 1M with its count",
        "ms",
        |f| f.page_ms,
        same(),
    );
    add(
        "restart, 1M keys, after SIGTERM",
        "ms",
        |f| f.restart_term_ms,
        third(),
    );
    add(
        "restart, 1M keys, after kill -9",
        "ms",
        |f| f.restart_kill_ms,
        third(),
    );
    Ok(())
}

async fn measure(flags: &Flags, kind: Kind) -> Result<Figures> {
    let mut options = Options::new(kind, 1);
    options.parent.clone_from(&flags.data_dir);
    let mut cluster = Cluster::start(&options).await?;
    let keys = flags.million_keys;
    load::fill((&cluster).into(), keys).await?;
    let mut figures = Figures {
        resident_bytes: load::resident_bytes_max(&cluster)?,
        ..Figures::default()
    };
    let port = cluster.ports()[0];
    figures.count_ms = median_ms(port, keys, count_only()).await?;
    figures.page_ms = median_ms(port, keys, page()).await?;
    let mut terminated = Vec::new();
    let mut killed = Vec::new();
    for _ in 0..REPEATS {
        cluster.members[0].terminate().await?;
        terminated.push(restart_ms(&mut cluster).await?);
        // What a kill leaves behind depends on what was written since: the same for both.
        load::fill((&cluster).into(), keys / 100).await?;
        cluster.members[0].kill()?;
        killed.push(restart_ms(&mut cluster).await?);
    }
    figures.restart_term_ms = median(terminated);
    figures.restart_kill_ms = median(killed);
    figures.resident_restarted_bytes = load::resident_bytes_max(&cluster)?;
    Ok(figures)
}

/// From the start of a process that is down to the first linearizable read that works.
///
/// # Errors
/// When it ends, or does not serve in five minutes.
pub async fn restart_ms(cluster: &mut Cluster) -> Result<f64> {
    let start = Instant::now();
    cluster.members[0].restart()?;
    let port = cluster.ports()[0];
    while rpc::linearizable_read(port).await.is_err() {
        let member = &mut cluster.members[0];
        ensure!(
            member.exit_status()?.is_none(),
            "it ended: {}",
            member.log_tail()?
        );
        ensure!(
            start.elapsed() < Duration::from_secs(300),
            "it never serves"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn all_keys() -> pb::RangeRequest {
    pb::RangeRequest {
        key: bytes::Bytes::from_static(b"key-"),
        range_end: bytes::Bytes::from_static(b"key."),
        serializable: true,
        ..Default::default()
    }
}

fn count_only() -> pb::RangeRequest {
    pb::RangeRequest {
        count_only: true,
        ..all_keys()
    }
}

fn page() -> pb::RangeRequest {
    pb::RangeRequest {
        limit: PAGE_KEYS,
        ..all_keys()
    }
}

async fn median_ms(port: u16, keys: u64, request: pb::RangeRequest) -> Result<f64> {
    let mut kv = rpc::kv(rpc::channel(port, Duration::from_secs(60))?);
    let mut times = Vec::new();
    for _ in 0..REPEATS * 5 {
        let start = Instant::now();
        let answer = kv.range(request.clone()).await?.into_inner();
        times.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(
            u64::try_from(answer.count)? == keys,
            "the count is {}",
            answer.count
        );
    }
    Ok(median(times))
}

/// The middle one.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
