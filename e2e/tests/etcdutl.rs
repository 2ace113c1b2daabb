//! What etcdutl does with the files of an etcd that does not run: the real one and ours say the
//! same of the same directory, leave the same content, and a real etcd starts on what is left.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::{Kind, bbolt_pages};
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::tools::{Ended, content, ctl, fill, restore, run, save, utl};
use std::path::{Path, PathBuf};
use std::process::Command;

const FORMATS: [&str; 6] = ["simple", "table", "json", "fields", "protobuf", "nonsense"];

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

/// A directory of a real etcd that was stopped, and what was in it.
async fn stopped_etcd() -> Result<(Cluster, PathBuf, String)> {
    let mut etcd = Cluster::start(&Options::new(Kind::Etcd, 1)).await?;
    let port = etcd.members[0].spec.client_port;
    fill(Kind::Etcd, port)?;
    let content = content(port)?;
    etcd.members[0].terminate().await?;
    let directory = etcd.members[0].spec.data_dir.clone();
    Ok((etcd, directory, content))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.arg("-a").arg(from).arg(to);
    let ended = run(command, b"")?;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(())
}

/// The line with which a tool ends, without its log and the path of the directory.
fn last_word(ended: &Ended, directory: &Path) -> Result<(Option<i32>, String, String)> {
    let lines = ended.stderr.lines();
    let lines = lines.filter(|line| line.starts_with("Error: "));
    let errors = lines.collect::<Vec<_>>().join("\n");
    let errors = errors.replace(text(directory)?, "DIRECTORY");
    Ok((ended.code, ended.stdout.clone(), errors))
}

#[tokio::test]
async fn the_hash_of_a_file_is_etcdutls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for from in [Kind::Quorate, Kind::Etcd] {
        let source = Cluster::start(&Options::new(from, 1)).await?;
        let port = source.members[0].spec.client_port;
        let empty = folder.path().join(format!("{}-empty", from.name()));
        save(from, &source, &empty)?;
        fill(from, port)?;
        let full = folder.path().join(from.name());
        save(from, &source, &full)?;
        // No key is left, and the last change is the compacted one.
        ctl(from, port, &["del", "", "--prefix"], b"")?;
        let bare = folder.path().join(format!("{}-bare", from.name()));
        save(from, &source, &bare)?;
        for (file, revisions) in [
            (&empty, &["0", "1", "2", "-1"][..]),
            (&full, &["0", "29", "30", "31", "40", "1000"]),
            (&bare, &["0", "40"]),
        ] {
            for revision in revisions {
                same(&["hashkv", text(file)?, "--rev", revision])?;
            }
        }
        for format in FORMATS {
            same(&["hashkv", text(&full)?, "-w", format])?;
        }
    }
    for words in [
        &["hashkv"][..],
        &["hashkv", "one", "two"],
        &["hashkv", "/nowhere/file"],
        &["hashkv", "/nowhere/file", "-w", "nonsense"],
        &["nonsense"],
        &["hashkv", "--nonsense"],
        &["defrag"],
        &["defrag", "--data-dir=/nowhere"],
        &["migrate", "--target-version=3.6"],
        &["migrate"],
        &["migrate", "--data-dir=/nowhere", "--target-version=3"],
        &["migrate", "--data-dir=/nowhere", "--target-version=3.x"],
        &["migrate", "--data-dir=/nowhere", "--target-version=3.4"],
        &["migrate", "--data-dir=/nowhere", "--target-version=4.0"],
    ] {
        same(words)?;
    }
    Ok(())
}

/// Both tools print the same to the byte.
fn same(words: &[&str]) -> Result<()> {
    let theirs = utl(Kind::Etcd, words)?;
    let ours = utl(Kind::Quorate, words)?;
    ensure!(
        ours == theirs,
        "{words:?}: {ours:?}, etcdutl says {theirs:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_defragmented_directory_holds_the_same() -> Result<()> {
    let (mut etcd, directory, expected) = stopped_etcd().await?;
    let folder = tempfile::tempdir()?;
    let database = |directory: &Path| directory.join("member/snap/db");
    let theirs = folder.path().join("theirs");
    copy(&directory, &theirs)?;
    let flag = |directory: &Path| format!("--data-dir={}", directory.display());
    let said = utl(Kind::Quorate, &["defrag", &flag(&directory)])?;
    let said_by_etcds = utl(Kind::Etcd, &["defrag", &flag(&theirs)])?;
    let (ours, etcds) = (
        last_word(&said, &directory)?,
        last_word(&said_by_etcds, &theirs)?,
    );
    ensure!(ours == etcds && ours.0 == Some(0), "{said:?}");
    let size = |directory: &Path| std::fs::metadata(database(directory)).map(|it| it.len());
    let (ours, etcds) = (size(&directory)?, size(&theirs)?);
    ensure!(
        ours <= etcds + etcds / 4,
        "ours takes {ours} bytes, etcd's {etcds}"
    );
    for words in [&["hashkv"][..], &["snapshot", "status"]] {
        let of = |directory: &Path| -> Result<Ended> {
            let database = database(directory);
            let words = [words, &[text(&database)?]].concat();
            utl(Kind::Etcd, &words)
        };
        let hash = |ended: Ended| {
            // Of a status, what is not the file's size.
            let parts: Vec<&str> = ended.stdout.trim().split(", ").collect();
            parts[..3].join(", ")
        };
        let (ours, etcds) = (hash(of(&directory)?), hash(of(&theirs)?));
        ensure!(ours == etcds, "{words:?}: {ours} and {etcds}");
    }
    etcd.members[0].restart()?;
    etcd.ready().await?;
    let found = content(etcd.ports()[0])?;
    ensure!(found == expected, "{found}\n{expected}");
    // An etcd runs on it.
    let words = ["defrag", &flag(&directory), "--timeout=100ms"];
    let locked = utl(Kind::Quorate, &words)?;
    ensure!(
        locked.code == Some(1) && locked.stderr.contains("another program has locked it"),
        "{locked:?}"
    );
    let quorate = Cluster::start(&Options::new(Kind::Quorate, 1)).await?;
    let live = flag(&quorate.members[0].spec.data_dir);
    for words in [
        &["defrag", &live][..],
        &["migrate", &live, "--target-version=3.6"],
    ] {
        let refused = utl(Kind::Quorate, words)?;
        ensure!(
            refused.code == Some(1) && refused.stderr.contains("belongs to a member of quorate"),
            "{refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_directory_migrates_as_by_etcdutl() -> Result<()> {
    let (mut etcd, directory, expected) = stopped_etcd().await?;
    let folder = tempfile::tempdir()?;
    let theirs = folder.path().join("theirs");
    copy(&directory, &theirs)?;
    for more in [
        &["--target-version=3.7"][..],
        &["--target-version=3.6"],
        &["--target-version=3.6"],
        &["--target-version=3.5"],
        &["--target-version=3.6"],
        &["--target-version=3.8"],
        &["--target-version=4.0"],
        &["--target-version=3.8", "--force"],
        &["--target-version=3.7"],
        &["--target-version=3.7", "--force"],
    ] {
        let mut said = Vec::new();
        for (tool, directory) in [(Kind::Quorate, &directory), (Kind::Etcd, &theirs)] {
            let flag = format!("--data-dir={}", directory.display());
            let words = [&["migrate", &flag], more].concat();
            let ended = utl(tool, &words)?;
            let database = directory.join("member/snap/db");
            let status = utl(
                Kind::Etcd,
                &["snapshot", "status", text(&database)?, "-w", "json"],
            )?;
            let status: serde_json::Value = serde_json::from_str(&status.stdout)?;
            said.push((
                last_word(&ended, directory)?,
                status["hash"].clone(),
                status["version"].clone(),
            ));
        }
        ensure!(said[0] == said[1], "{more:?}: {said:?}");
    }
    etcd.members[0].restart()?;
    etcd.ready().await?;
    let found = content(etcd.ports()[0])?;
    ensure!(found == expected, "{found}\n{expected}");
    Ok(())
}

#[tokio::test]
async fn pages_of_every_size_are_read() -> Result<()> {
    let source = Cluster::start(&Options::new(Kind::Etcd, 1)).await?;
    let port = source.members[0].spec.client_port;
    fill(Kind::Etcd, port)?;
    let expected = content(port)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("snapshot");
    save(Kind::Etcd, &source, &file)?;
    for page_bytes in ["4096", "8192", "16384", "65536"] {
        let other = folder.path().join(page_bytes);
        let mut command = Command::new(bbolt_pages()?);
        command.arg(&file).arg(&other).arg(page_bytes);
        let ended = run(command, b"")?;
        ensure!(ended.code == Some(0), "{ended:?}");
        // etcdutl's hashkv begins to write to the file that it reads.
        let copied = folder.path().join(format!("{page_bytes}-copied"));
        copy(&other, &copied)?;
        for words in [
            &["snapshot", "status", text(&other)?, "-w", "json"][..],
            &["hashkv", text(&copied)?],
        ] {
            same(words)?;
        }
        let options = Options::new(Kind::Quorate, 1);
        let moved = restore(Kind::Quorate, &other, &options, &["--skip-hash-check"]).await?;
        let found = content(moved.ports()[0])?;
        ensure!(found == expected, "{page_bytes}:\n{found}\n{expected}");
    }
    Ok(())
}
