//! From a snapshot to the first answer, and a restart with very many keys.

use crate::flags::{Flags, VALUE_BYTES};
use crate::load;
use crate::million::{median, restart_ms};
use crate::report::{Line, Report};
use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options, specs};
use quorate_e2e::large::Shape;
use quorate_e2e::process::Process;
use quorate_e2e::tools::{restore_words, utl};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The name of the row for `--only`.
pub const NAME: &str = "restore";

const REPEATS: usize = 3;
/// The longest that a start with very many keys may take.
const START_DEADLINE: Duration = Duration::from_secs(1800);

/// A snapshot that both servers restore.
fn snapshot(flags: &Flags, keys: u64) -> Result<TempDir> {
    let folder = match &flags.data_dir {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let shape = Shape {
        keys,
        value_bytes: VALUE_BYTES,
    };
    shape.write(&folder.path().join("snapshot"))?;
    Ok(folder)
}

/// Restores with the server's own tool and starts the server; how long it took until it answered,
/// in seconds.
async fn restore(flags: &Flags, kind: Kind, file: &Path) -> Result<(f64, Cluster)> {
    let mut options = Options::new(kind, 1);
    options.parent.clone_from(&flags.data_dir);
    let (mut specs, folder) = specs(&options.flag("--quota-backend-bytes=-1"))?;
    let spec = specs.remove(0);
    let start = Instant::now();
    let ended = utl(kind, &restore_words(file, &spec, &[])?)?;
    ensure!(ended.code == Some(0), "{ended:?}");
    let mut member = Process::start(spec)?;
    member.ready_within(START_DEADLINE).await?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((seconds, Cluster::from_parts(vec![member], folder)))
}

/// Measures each server in turn, alone on the machine.
///
/// # Errors
/// When a server does not start or a call fails.
pub async fn run(flags: &Flags, report: &mut Report) -> Result<()> {
    let keys = flags.million_keys;
    let folder = snapshot(flags, keys)?;
    let file = folder.path().join("snapshot");
    let mut measured = [None, None];
    for kind in flags.servers() {
        let mut times = Vec::new();
        for _ in 0..REPEATS {
            let (seconds, _cluster) = restore(flags, kind, &file)
                .await
                .with_context(|| format!("restore into {}", kind.name()))?;
            report.told(kind, &format!("restore  {seconds:.2} s"))?;
            times.push(seconds);
        }
        measured[usize::from(kind == Kind::Quorate)] = Some(median(times));
    }
    let title = format!("restore to the first answer, {keys} keys");
    let line = Line::new("≤ 1/4").figure(0.25);
    report.add_plain(&title, "s", measured[0], measured[1], line);
    Ok(())
}

/// Measures restarts with `--restart-keys` keys.
///
/// # Errors
/// When a server does not start or a call fails.
pub async fn run_restart(flags: &Flags, report: &mut Report) -> Result<()> {
    let keys = flags.restart_keys;
    let folder = snapshot(flags, keys)?;
    let file = folder.path().join("snapshot");
    let (mut terminated, mut killed) = ([None, None], [None, None]);
    for kind in flags.servers() {
        let (_, mut cluster) = restore(flags, kind, &file).await?;
        let (mut after_term, mut after_kill) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            load::fill((&cluster).into(), keys / 1000).await?;
            cluster.members[0].terminate().await?;
            after_term.push(restart_ms(&mut cluster).await?);
            load::fill((&cluster).into(), keys / 1000).await?;
            cluster.members[0].kill()?;
            after_kill.push(restart_ms(&mut cluster).await?);
            report.told(
                kind,
                &format!("restart  {after_term:.0?} {after_kill:.0?} ms"),
            )?;
        }
        terminated[usize::from(kind == Kind::Quorate)] = Some(median(after_term));
        killed[usize::from(kind == Kind::Quorate)] = Some(median(after_kill));
    }
    for (what, [etcd, ours]) in [("SIGTERM", terminated), ("kill -9", killed)] {
        let title = format!("restart, {keys} keys, after {what}");
        let line = Line::new("≤ 1/3").figure(1.0 / 3.0);
        report.add_plain(&title, "ms", etcd, ours, line);
    }
    Ok(())
}
