//! Backups by hand and by schedule, and clusters that begin with one.

use crate::spec;
use anyhow::{Context, Result, ensure};
use quorate_e2e::kubelet::lab::Lab;
use quorate_e2e::kubelet::space::Space;
use serde_json::{Value, json};

/// HashKV of a member's store at a revision.
async fn hash(space: &Space<'_>, cluster: &str, revision: i64) -> Result<Value> {
    let member = space.members(cluster).await?.pop().context("a member")?;
    let rev = format!("--rev={revision}");
    let said = space
        .ctl(&member, &["endpoint", "hashkv", &rev, "-w", "json"])
        .await?;
    let answer: Value = serde_json::from_str(&said)?;
    Ok(answer[0]["HashKV"]["hash"].clone())
}

/// A claim that all members mount.
async fn shared_claim(space: &Space<'_>) -> Result<()> {
    let claim = json!({"spec": {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
    }});
    space
        .create("persistentvolumeclaims", "backups", &claim)
        .await?;
    Ok(())
}

/// Writes, takes a backup by hand, writes more, and begins a new cluster with it.
async fn round(space: &Space<'_>, store: &Value) -> Result<()> {
    let mut main = spec(3);
    main["backup"] = json!({"store": store, "verify": {"mode": "TestRestore"}});
    space.cluster("main", &main).await?;
    space.settled("main", 3).await?;
    let member = space.members("main").await?[0].clone();
    for number in 0..20 {
        space
            .ctl(&member, &["put", &format!("key-{}", number % 7), "before"])
            .await?;
    }
    let backup = json!({"spec": {"cluster": "main", "reclaim": "Delete"}});
    space.create("quoratebackups", "by-hand", &backup).await?;
    let is_over = |backup: &Value| backup["status"]["phase"] == "Verified";
    let backup = space
        .until("a backup", "quoratebackups/by-hand", is_over)
        .await?;
    let artifact = &backup["status"]["artifact"];
    let revision = artifact["revision"].as_i64().context("a revision")?;
    ensure!(
        artifact["sha256"]
            .as_str()
            .is_some_and(|sum| sum.len() == 64),
        "{artifact:#}"
    );
    let wanted = hash(space, "main", revision).await?;
    ensure!(wanted == artifact["hash"], "{wanted}: {artifact:#}");
    space.ctl(&member, &["del", "key-", "--prefix"]).await?;
    let mut again = spec(3);
    again["bootstrap"] = json!({"fromBackup": {"backup": "by-hand"}});
    space.cluster("again", &again).await?;
    space.settled("again", 3).await?;
    let other = space.members("again").await?[0].clone();
    let said = space.ctl(
        &other,
        &["get", "key-", "--prefix", "--keys-only", "-w", "json"],
    );
    let count: Value = serde_json::from_str(&said.await?)?;
    ensure!(count["count"] == 7, "{count}");
    let found = hash(space, "again", revision).await?;
    ensure!(found == wanted, "{found}, not {wanted}");
    Ok(())
}

#[test]
fn a_backup_in_a_volume_begins_a_new_cluster() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "backup-pvc").await?;
        shared_claim(&space).await?;
        round(&space, &json!({"pvc": {"claimName": "backups"}})).await?;
        // What goes with the object is gone from the store.
        let folder = lab
            .kubelet
            .claim_folder(&space.name, "backups")
            .context("a folder")?;
        let count = || -> Result<usize> {
            let mut folders = vec![folder.clone()];
            let mut files = 0;
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder)? {
                    let entry = entry?;
                    match entry.file_type()?.is_dir() {
                        true => folders.push(entry.path()),
                        false => files += 1,
                    }
                }
            }
            Ok(files)
        };
        ensure!(
            count()? == 2,
            "a snapshot and its manifest, not {}",
            count()?
        );
        space.delete("quoratebackups/by-hand").await?;
        space
            .until("no backup", "quoratebackups/by-hand", Value::is_null)
            .await?;
        ensure!(count()? == 0, "{} files are left", count()?);
        space.remove().await
    })
}

#[test]
fn the_schedule_makes_backups_and_keeps_few() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "schedule").await?;
        shared_claim(&space).await?;
        let mut main = spec(1);
        main["backup"] = json!({
            "schedule": "* * * * *",
            "store": {"pvc": {"claimName": "backups"}},
            "retention": {"keepLast": 1},
        });
        space.cluster("main", &main).await?;
        space.settled("main", 1).await?;
        let verified = |list: &Value| {
            let all = list["items"].as_array();
            let all = all.into_iter().flatten();
            all.filter(|backup| backup["status"]["phase"] == "Verified")
                .count()
        };
        let is_one = |list: &Value| verified(list) == 1;
        space
            .until("a scheduled backup", "quoratebackups", is_one)
            .await?;
        let is_told = |cluster: &Value| cluster["status"]["lastVerifiedBackup"].is_string();
        space.cluster_until("when it was", "main", is_told).await?;
        space.remove().await
    })
}

#[test]
fn a_backup_in_a_bucket_begins_a_new_cluster() -> Result<()> {
    Lab::with_operator(async |lab| {
        let space = Space::new(lab, "backup-s3").await?;
        let server = S3::start(lab).await?;
        let secret = json!({"stringData": {"AWS_ACCESS_KEY_ID": S3::USER,
            "AWS_SECRET_ACCESS_KEY": S3::SECRET}});
        space.create("secrets", "s3", &secret).await?;
        let store = json!({"prefix": "here", "s3": {
            "bucket": S3::BUCKET,
            "endpoint": format!("http://{}:{}", S3::HOST, server.port),
            "credentialsSecret": "s3",
        }});
        round(&space, &store).await?;
        space.remove().await
    })
}

/// versitygw on a folder, under a name that Pods know.
struct S3 {
    child: std::process::Child,
    port: u16,
    #[expect(dead_code, reason = "the folder goes with it")]
    dir: tempfile::TempDir,
}

impl S3 {
    const USER: &str = "quorate";
    const SECRET: &str = "not-a-secret";
    const BUCKET: &str = "backups";
    const HOST: &str = "s3.example.test";

    async fn start(lab: &Lab) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join(Self::BUCKET))?;
        let port = quorate_e2e::process::free_port()?;
        lab.kubelet
            .name(Self::HOST, std::net::Ipv4Addr::LOCALHOST)?;
        let child = std::process::Command::new(quorate_e2e::binaries::s3_program()?)
            .args(["--access", Self::USER, "--secret", Self::SECRET])
            .args(["--port", &format!("127.0.0.1:{port}"), "posix"])
            .arg(dir.path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        let server = Self { child, port, dir };
        let deadline = quorate_e2e::kubelet::lab::DEADLINE;
        quorate_e2e::wait::until("an S3 server", deadline, async || {
            Ok(tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .ok()
                .map(drop))
        })
        .await?;
        Ok(server)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}
