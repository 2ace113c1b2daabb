//! A large snapshot is imported at a first start: all of it arrives, whatever happens on the way.
//!
//! `QUORATE_ROUND_TRIP_KEYS` sets how many keys make the round trip (`make e2e`: 5,000,000).

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options, specs};
use quorate_e2e::large::Shape;
use quorate_e2e::process::{Process, Spec};
use quorate_e2e::tools::{ctl, restore_words, save, utl};
use quorate_e2e::wait;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ROUND_TRIP_KEYS: u64 = 100_000;
/// Enough for an import that takes long enough to be hit in its midst.
const CRASH_KEYS: u64 = 250_000;
const VALUE_BYTES: usize = 200;
/// A member with five million keys on a busy machine.
const IMPORT_DEADLINE: Duration = Duration::from_secs(600);

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

/// The hash of a file, by the real etcdutl, and the revisions that belong to it.
fn hash_of_file(kind: Kind, path: &Path) -> Result<String> {
    let ended = utl(kind, &["hashkv", text(path)?])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(ended.stdout)
}

fn hash_of_member(port: u16) -> Result<String> {
    // Millions of records take a while to hash.
    let words = ["endpoint", "hashkv", "-w", "json", "--command-timeout=120s"];
    let line = ctl(Kind::Etcd, port, &words, b"")?;
    let answer: serde_json::Value = serde_json::from_str(&line)?;
    let hash = &answer[0]["HashKV"];
    let revision = &hash["header"]["revision"];
    Ok(format!(
        "{}, {revision}, {}\n",
        hash["hash"], hash["compact_revision"]
    ))
}

/// A file of `keys` keys, and the directory of a member that was restored from it.
fn restored(keys: u64, kind: Kind) -> Result<(Shape, Spec, TempDir)> {
    let (mut specs, folder) = specs(&Options::new(kind, 1))?;
    let spec = specs.remove(0);
    let shape = Shape {
        keys,
        value_bytes: VALUE_BYTES,
    };
    let file = folder.path().join("snapshot");
    shape.write(&file)?;
    let ended = utl(Kind::Quorate, &restore_words(&file, &spec, &[])?)?;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok((shape, spec, folder))
}

/// What must be there after an import.
fn check(shape: &Shape, port: u16, file: &Path) -> Result<()> {
    let count = ctl(
        Kind::Etcd,
        port,
        &[
            "get",
            "",
            "--prefix",
            "--count-only",
            "-w=fields",
            "--command-timeout=60s",
        ],
        b"",
    )?;
    let expected = format!("\"Count\" : {}\n", shape.live_keys());
    ensure!(count.contains(&expected), "{count}, not {expected}");
    let leased = ctl(
        Kind::Etcd,
        port,
        &["lease", "timetolive", "1", "--keys", "-w", "json"],
        b"",
    )?;
    let leased: serde_json::Value = serde_json::from_str(&leased)?;
    let leased = leased["keys"].as_array().map_or(0, Vec::len) as u64;
    // One of a hundred leases, on which hangs one key in twenty.
    ensure!(
        leased.abs_diff(shape.keys / 20 / 100) <= 1,
        "{leased} keys hang on the lease"
    );
    let (ours, files) = (hash_of_member(port)?, hash_of_file(Kind::Quorate, file)?);
    ensure!(ours == files, "the member says {ours}, the file {files}");
    Ok(())
}

#[tokio::test]
async fn a_large_snapshot_makes_the_round_trip() -> Result<()> {
    let keys = match std::env::var("QUORATE_ROUND_TRIP_KEYS") {
        Ok(keys) => keys.parse().context("QUORATE_ROUND_TRIP_KEYS")?,
        Err(_) => ROUND_TRIP_KEYS,
    };
    let start = Instant::now();
    let (shape, spec, folder) = restored(keys, Kind::Quorate)?;
    let file = folder.path().join("snapshot");
    let made = start.elapsed();
    let mut member = Process::start(spec)?;
    member.ready_within(IMPORT_DEADLINE).await?;
    let imported = start.elapsed() - made;
    let port = member.spec.client_port;
    check(&shape, port, &file)?;
    let saved = folder.path().join("saved");
    let cluster = Cluster::from_parts(vec![member], folder);
    save(Kind::Etcd, &cluster, &saved)?;
    let first = hash_of_file(Kind::Etcd, &file)?;
    let again = hash_of_file(Kind::Etcd, &saved)?;
    ensure!(first == again, "{first} became {again}");
    println!("{keys} keys: written and restored in {made:?}, imported in {imported:?}");
    Ok(())
}

/// Bytes of all files below `path`; files may go while they are counted.
fn size(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[tokio::test]
async fn an_import_survives_being_killed_again_and_again() -> Result<()> {
    let (shape, spec, folder) = restored(CRASH_KEYS, Kind::Quorate)?;
    let file = folder.path().join("snapshot");
    let data_dir = spec.data_dir.clone();
    let (building, current) = (data_dir.join("incoming-0"), data_dir.join("CURRENT"));
    let whole = size(&file);
    let mut member = Process::start(spec)?;
    let mut interrupted = 0;
    // At its first file, and when so many hundredths of the content are there.
    for hundredths in [0, 5, 20, 40, 60, 75] {
        let least = (whole / 100 * hundredths).max(1);
        wait::until("an import at work", IMPORT_DEADLINE, async || {
            let done = current.exists();
            Ok((done || size(&building) >= least).then_some(()))
        })
        .await?;
        member.kill()?;
        interrupted += usize::from(!current.exists());
        member.restart()?;
    }
    ensure!(interrupted >= 4, "only {interrupted} imports were hit");
    // And around its end, when the new state takes its place.
    wait::until("an import that is done", IMPORT_DEADLINE, async || {
        Ok(current.exists().then_some(()))
    })
    .await?;
    member.kill()?;
    member.restart()?;
    member.ready_within(IMPORT_DEADLINE).await?;
    check(&shape, member.spec.client_port, &file)?;
    ensure!(!building.exists(), "what was built beside is left");
    ensure!(!data_dir.join("member").exists(), "the file is left");
    Ok(())
}
