//! A snapshot that is saved while clients put: how fast it comes, what the puts notice of it, and
//! how much memory it takes.

use crate::flags::Flags;
use crate::load::{self, Work};
use crate::million::median;
use crate::report::{Line, Report};
use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::process::usage;
use quorate_e2e::rpc::{MaintenanceClient, stream_channel};
use quorate_proto::etcdserverpb::SnapshotRequest;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The name of these rows for `--only`.
pub const NAME: &str = "save";

/// Callers that put meanwhile: enough that there is always one on its way, too few to fill the
/// machine by themselves.
const CLIENTS: usize = 8;
const MEMORY_INTERVAL: Duration = Duration::from_millis(10);
const REPEATS: usize = 3;

#[derive(Default, Clone, Copy)]
struct Figures {
    megabytes_a_second: f64,
    first_byte_ms: f64,
    p99_before_ms: f64,
    p99_during_ms: f64,
    memory_added_mb: f64,
}

/// Measures each server in turn, alone on the machine.
///
/// # Errors
/// When a server does not start or a call fails.
pub async fn run(flags: &Flags, report: &mut Report) -> Result<()> {
    let mut measured = Vec::new();
    for kind in flags.servers() {
        let figures = measure(flags, kind, report)
            .await
            .with_context(|| format!("a save from {}", kind.name()))?;
        measured.push((kind, figures));
    }
    let of = |kind: Kind| measured.iter().find(|it| it.0 == kind).map(|it| it.1);
    let (etcd, ours) = (of(Kind::Etcd), of(Kind::Quorate));
    let keys = flags.save_keys;
    let mut add = |title: &str, unit, figure: fn(&Figures) -> f64, line| {
        let title = format!("save, {keys} keys, {CLIENTS} clients put: {title}");
        let (etcd, ours) = (etcd.as_ref().map(figure), ours.as_ref().map(figure));
        report.add_plain(&title, unit, etcd, ours, line);
    };
    let none = || Line::new("");
    add("speed", "MB/s", |it| it.megabytes_a_second, none());
    add(
        "first bytes after",
        "ms",
        |it| it.first_byte_ms,
        Line::new("≤ 1000 ms").ours(1000.0),
    );
    add("p99 of puts before", "ms", |it| it.p99_before_ms, none());
    add("p99 of puts during", "ms", |it| it.p99_during_ms, none());
    add(
        "p99 during / before",
        "x",
        |it| it.p99_during_ms / it.p99_before_ms,
        Line::new("≤ 2").ours(2.0),
    );
    add(
        "memory added",
        "MB",
        |it| it.memory_added_mb,
        Line::new("≤ 64 MB").ours(64.0),
    );
    Ok(())
}

async fn measure(flags: &Flags, kind: Kind, report: &Report) -> Result<Figures> {
    let mut options = Options::new(kind, 1);
    options.parent.clone_from(&flags.data_dir);
    let cluster = Cluster::start(&options.flag("--quota-backend-bytes=-1")).await?;
    load::fill((&cluster).into(), flags.save_keys).await?;
    let mut all = Vec::new();
    for _ in 0..REPEATS {
        let figures = once(flags, &cluster).await?;
        let Figures {
            megabytes_a_second: speed,
            first_byte_ms: first,
            p99_before_ms: before,
            p99_during_ms: during,
            memory_added_mb: added,
        } = figures;
        report.told(
            kind,
            &format!(
                "save  {speed:.0} MB/s · first bytes after {first:.0} ms · p99 of puts {before:.2}, \
                 then {during:.2} ms · memory +{added:.0} MB"
            ),
        )?;
        all.push(figures);
    }
    let middle = |figure: fn(&Figures) -> f64| median(all.iter().map(figure).collect());
    Ok(Figures {
        megabytes_a_second: middle(|it| it.megabytes_a_second),
        first_byte_ms: middle(|it| it.first_byte_ms),
        p99_before_ms: middle(|it| it.p99_before_ms),
        p99_during_ms: middle(|it| it.p99_during_ms),
        memory_added_mb: middle(|it| it.memory_added_mb),
    })
}

/// Puts alone, then puts while one save after the other runs, for the same time.
async fn once(flags: &Flags, cluster: &Cluster) -> Result<Figures> {
    let puts = || {
        let times = (flags.warm_up(), flags.measure());
        let keys = flags.save_keys;
        load::run(cluster.into(), Work::Put, CLIENTS, CLIENTS, keys, times)
    };
    let before = puts().await?;
    let memory = Memory::watch(cluster)?;
    let stop = Arc::new(AtomicBool::new(false));
    let saving = tokio::spawn(save_until(cluster.ports()[0], Arc::clone(&stop)));
    let during = puts().await?;
    stop.store(true, Ordering::Relaxed);
    let saved = saving.await??;
    Ok(Figures {
        megabytes_a_second: saved.bytes as f64 / 1e6 / saved.elapsed.as_secs_f64(),
        first_byte_ms: saved.first_byte.as_secs_f64() * 1e3,
        p99_before_ms: before.p99_us / 1e3,
        p99_during_ms: during.p99_us / 1e3,
        memory_added_mb: memory.added_bytes().await? as f64 / 1e6,
    })
}

/// What came of the saves.
struct Saved {
    bytes: u64,
    elapsed: Duration,
    /// The longest that a save took to begin.
    first_byte: Duration,
}

/// Saves again and again to nowhere, so that no disk is measured but the server's; ends with the
/// save that is on its way when it is told to stop.
async fn save_until(port: u16, stop: Arc<AtomicBool>) -> Result<Saved> {
    let start = Instant::now();
    let (mut bytes, mut first_byte) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let mut client = MaintenanceClient::new(stream_channel(port)?);
        let mut answers = client.snapshot(SnapshotRequest {}).await?.into_inner();
        let mut came = 0;
        while let Some(answer) = answers.message().await? {
            if came == 0 {
                first_byte = first_byte.max(began.elapsed());
            }
            came += answer.blob.len() as u64;
        }
        ensure!(came > 0, "a snapshot is not empty");
        bytes += came;
    }
    Ok(Saved {
        bytes,
        elapsed: start.elapsed(),
        first_byte,
    })
}

/// Samples a member's resident memory until it is asked what was the most.
struct Memory {
    before: u64,
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Memory {
    fn watch(cluster: &Cluster) -> Result<Self> {
        let member = cluster.members.first().context("a member")?;
        let pid = member.pid().context("a running member")?;
        let before = usage(pid)?.resident_bytes;
        let (most, stop) = (
            Arc::new(AtomicU64::new(before)),
            Arc::new(AtomicBool::new(false)),
        );
        let (kept, ended) = (Arc::clone(&most), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                kept.fetch_max(usage(pid)?.resident_bytes, Ordering::Relaxed);
                tokio::time::sleep(MEMORY_INTERVAL).await;
            }
            Ok(())
        });
        Ok(Self {
            before,
            most,
            stop,
            task,
        })
    }

    async fn added_bytes(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.most.load(Ordering::Relaxed) - self.before)
    }
}
