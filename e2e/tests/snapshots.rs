//! Snapshots move between etcd and Quorate, both ways and with each other's tools, and nothing that
//! is damaged is taken.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options, specs};
use quorate_e2e::rpc::{MaintenanceClient, channel};
use quorate_e2e::tools::{Ended, content, ctl, fill, restore, restore_words, run, save, utl};
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::{AlarmRequest, AlarmType};
use std::process::Command;
use std::time::Duration;

/// How long a call may take.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_snapshot_moves_between_the_stores() -> Result<()> {
    use Kind::{Etcd, Quorate};
    let folder = tempfile::tempdir()?;
    for from in [Quorate, Etcd] {
        let source = Cluster::start(&Options::new(from, 1)).await?;
        let port = source.members[0].spec.client_port;
        fill(from, port)?;
        let expected = content(port)?;
        let file = folder.path().join(from.name());
        save(if from == Etcd { Quorate } else { Etcd }, &source, &file)?;
        for (tool, to, size) in [
            (Etcd, Etcd, 1),
            (Etcd, Quorate, 1),
            (Quorate, Quorate, 1),
            (Quorate, Quorate, 3),
        ] {
            let case = format!("from {from:?} with {tool:?}'s tool to {size} {to:?}");
            let mut moved = restore(tool, &file, &Options::new(to, size), &[]).await?;
            for port in moved.ports() {
                let found = content(port)?;
                ensure!(found == expected, "{case}:\n{found}\n{expected}");
            }
            ctl(to, moved.ports()[0], &["put", "new", "1"], b"")?;
            // What was imported is there after a crash, and is not imported again.
            let member = &mut moved.members[0];
            member.kill()?;
            member.restart()?;
            member.ready().await?;
            let value = ctl(
                to,
                moved.ports()[0],
                &["get", "new", "--print-value-only"],
                b"",
            )?;
            ensure!(value == "1\n", "{case}: {value:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn alarms_move_between_the_stores() -> Result<()> {
    use Kind::{Etcd, Quorate};
    let folder = tempfile::tempdir()?;
    for (from, to) in [(Quorate, Etcd), (Etcd, Quorate), (Quorate, Quorate)] {
        let source = Cluster::start(&Options::new(from, 1)).await?;
        let port = source.members[0].spec.client_port;
        let mut maintenance = MaintenanceClient::new(channel(port, SOON)?);
        for (member_id, alarm) in [(7, AlarmType::Nospace), (1 << 63, AlarmType::Corrupt)] {
            let request = AlarmRequest {
                action: AlarmAction::Activate as i32,
                member_id,
                alarm: alarm as i32,
            };
            maintenance.alarm(request).await?;
        }
        let listed = |port| ctl(Etcd, port, &["alarm", "list"], b"");
        let sorted = |text: String| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let expected = sorted(listed(port)?);
        ensure!(expected.len() == 2, "{expected:?}");
        let file = folder.path().join(format!("{from:?}-{to:?}"));
        save(Quorate, &source, &file)?;
        let moved = restore(to, &file, &Options::new(to, 1), &[]).await?;
        let found = sorted(listed(moved.ports()[0])?);
        ensure!(
            found == expected,
            "{from:?} to {to:?}: {found:?}, {expected:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_stopped_etcd_is_taken_over() -> Result<()> {
    let mut etcd = Cluster::start(&Options::new(Kind::Etcd, 1)).await?;
    let port = etcd.members[0].spec.client_port;
    fill(Kind::Etcd, port)?;
    let expected = content(port)?;
    etcd.members[0].terminate().await?;
    etcd.members[0].spec.kind = Kind::Quorate;
    etcd.members[0].restart()?;
    etcd.ready().await?;
    let found = content(port)?;
    ensure!(found == expected, "{found}\n{expected}");
    Ok(())
}

#[tokio::test]
async fn an_etcd_whose_file_lags_behind_its_log_is_refused() -> Result<()> {
    let mut etcd = Cluster::start(&Options::new(Kind::Etcd, 1)).await?;
    let member = &mut etcd.members[0];
    for number in 0..50 {
        let key = format!("key-{number}");
        ctl(
            Kind::Etcd,
            member.spec.client_port,
            &["put", &key, "v"],
            b"",
        )?;
    }
    // etcd writes its file every 100 ms and when it stops.
    ctl(
        Kind::Etcd,
        member.spec.client_port,
        &["put", "last", "v"],
        b"",
    )?;
    member.kill()?;
    member.spec.kind = Kind::Quorate;
    member.restart()?;
    let status = member.ended(Duration::from_secs(30)).await?;
    ensure!(!status.success());
    let log = member.log()?;
    ensure!(
        log.contains("the write-ahead log beside it goes on to entry"),
        "{log}"
    );
    ensure!(!member.spec.data_dir.join("incoming-0").exists());
    Ok(())
}

#[tokio::test]
async fn the_status_of_a_file_is_etcdutls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for from in [Kind::Quorate, Kind::Etcd] {
        let source = Cluster::start(&Options::new(from, 1)).await?;
        let port = source.members[0].spec.client_port;
        let empty = folder.path().join(format!("{}-empty", from.name()));
        save(from, &source, &empty)?;
        fill(from, port)?;
        let full = folder.path().join(from.name());
        save(from, &source, &full)?;
        for file in [&empty, &full] {
            for format in ["simple", "table", "json", "fields", "protobuf", "nonsense"] {
                let words = [
                    "snapshot",
                    "status",
                    file.to_str().context("a path")?,
                    "-w",
                    format,
                ];
                let theirs = utl(Kind::Etcd, &words)?;
                let ours = utl(Kind::Quorate, &words)?;
                ensure!(
                    ours == theirs,
                    "{words:?}: {ours:?}, etcdutl says {theirs:?}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_bumped_revision_is_compacted() -> Result<()> {
    let source = Cluster::start(&Options::new(Kind::Etcd, 1)).await?;
    fill(Kind::Etcd, source.members[0].spec.client_port)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("snapshot");
    save(Kind::Etcd, &source, &file)?;
    let more = ["--bump-revision=1000", "--mark-compacted"];
    for tool in [Kind::Etcd, Kind::Quorate] {
        let options = Options::new(Kind::Quorate, 1);
        let moved = restore(tool, &file, &options, &more).await?;
        let port = moved.members[0].spec.client_port;
        let last = ctl(
            Kind::Etcd,
            port,
            &["get", "large", "--keys-only", "-w", "json"],
            b"",
        )?;
        let last: serde_json::Value = serde_json::from_str(&last)?;
        let revision = last["header"]["revision"].as_u64().context("a revision")?;
        ensure!(revision > 1000, "{revision}");
        let mut old = Command::new(Kind::Etcd.ctl()?);
        old.arg(format!("--endpoints=127.0.0.1:{port}"));
        old.args(["get", "large", "--rev", &(revision - 1).to_string()]);
        let refused = run(old, b"")?;
        ensure!(refused.stderr.contains("has been compacted"), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_file_is_refused_and_leaves_nothing() -> Result<()> {
    let source = Cluster::start(&Options::new(Kind::Quorate, 1)).await?;
    fill(Kind::Quorate, source.members[0].spec.client_port)?;
    let folder = tempfile::tempdir()?;
    let good = folder.path().join("snapshot");
    save(Kind::Quorate, &source, &good)?;
    let bytes = std::fs::read(&good)?;
    let (specs, _dir) = specs(&Options::new(Kind::Quorate, 1))?;
    let try_file = |name: &str, content: &[u8], more: &[&str]| -> Result<Ended> {
        let path = folder.path().join(name);
        std::fs::write(&path, content)?;
        let ended = utl(Kind::Quorate, &restore_words(&path, &specs[0], more)?)?;
        ensure!(ended.code == Some(1), "{name}: {ended:?}");
        ensure!(!specs[0].data_dir.exists(), "{name} left something behind");
        Ok(ended)
    };
    let mut flipped = bytes.clone();
    flipped[3 * 4096 + 100] ^= 1;
    let mut newer = bytes.clone();
    let at = newer
        .windows(19)
        .rposition(|it| it == b"storageVersion3.7.0");
    newer[at.context("a storage version")? + 16] = b'9';
    for (name, content, more, expected) in [
        (
            "text",
            &b"no snapshot\n"[..],
            &[][..],
            "this is no snapshot of etcd's",
        ),
        ("cut", &bytes[..bytes.len() / 2], &[], "it ends here"),
        (
            "no-hash",
            &bytes[..bytes.len() - 32],
            &[],
            "snapshot missing hash but",
        ),
        ("flipped", &flipped, &[], "expected sha256 ["),
        (
            "newer",
            &newer,
            &["--skip-hash-check"],
            "storage version 3.9.0 is newer than 3.7",
        ),
    ] {
        let ended = try_file(name, content, more)?;
        ensure!(ended.stderr.contains(expected), "{name}: {ended:?}");
    }
    std::fs::create_dir_all(specs[0].data_dir.join("other"))?;
    let ended = utl(Kind::Quorate, &restore_words(&good, &specs[0], &[])?)?;
    ensure!(
        ended.stderr.contains("not empty or could not be read"),
        "{ended:?}"
    );
    Ok(())
}
