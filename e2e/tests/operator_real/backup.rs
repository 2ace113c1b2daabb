//! Backups by schedule to a real S3 server, and clusters that begin with one.

use anyhow::{Context, Result, ensure};
use quorate_e2e::kubernetes::real::Real;
use quorate_e2e::kubernetes::real::node::is_ready;
use quorate_e2e::kubernetes::real::space::{CONVERGE_DEADLINE, Space};
use serde_json::{Value, json};
use std::time::Duration;

const S3: &str = include_str!("s3.yaml");

/// A run each minute, and time for the machine to be busy.
const BACKUP_DEADLINE: Duration = Duration::from_secs(400);

fn is_verified(backup: &Value) -> bool {
    backup["status"]["phase"] == "Verified"
}

fn verified(list: &Value) -> Vec<&Value> {
    let all = list["items"].as_array();
    all.map_or_else(Vec::new, |all| {
        all.iter().filter(|one| is_verified(one)).collect()
    })
}

/// Where backups lie.
fn store() -> Value {
    json!({"s3": {
        "bucket": "backups",
        "endpoint": "http://s3.backup.svc:7070",
        "credentialsSecret": "s3",
    }})
}

fn storage() -> Value {
    json!({"size": "1Gi", "reclaim": "Delete"})
}

pub async fn backups_each_minute_start_new_clusters(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "backup").await?;
    let args = ["-n", "backup", "apply", "--server-side", "-f", "-"];
    real.kube.kubectl(&args, S3).await?;
    space
        .until("an S3 server", CONVERGE_DEADLINE, &["pod", "s3"], is_ready)
        .await?;
    let spec = json!({
        "replicas": 3,
        "storage": storage(),
        "backup": {
            "schedule": "* * * * *",
            "store": store(),
            "retention": {"keepLast": 2},
            "verify": {"mode": "Hash", "testRestoreEvery": 2},
        },
    });
    space.cluster("main", &spec).await?;
    space.settled("main", 3).await?;
    by_hand(&space).await?;
    another_cluster(&space).await?;
    retention(&space).await?;
    space.remove().await
}

/// By hand, so that it is after the writes; the schedule runs beside it.
async fn by_hand(space: &Space) -> Result<()> {
    for number in 0..20 {
        let key = format!("key-{number}");
        let words = ["quoratectl", "put", &key, "before"];
        space.ctl("main", &words).await?;
    }
    let object = json!({"apiVersion": "quorate.dev/v1alpha1", "spec": {"cluster": "main"}});
    space.apply("QuorateBackup", "by-hand", &object).await?;
    let args = ["quoratebackup", "by-hand"];
    let backup = space.until("a backup", BACKUP_DEADLINE, &args, is_verified);
    let backup = backup.await?;
    let artifact = &backup["status"]["artifact"];
    ensure!(artifact["sizeBytes"].as_u64() > Some(0), "{backup:#}");
    let uri = artifact["uri"].as_str().context("a URI")?;
    ensure!(uri.starts_with("s3://"), "{uri}");
    Ok(())
}

/// It begins with what was there at the backup, and not with what came later.
async fn another_cluster(space: &Space) -> Result<()> {
    let words = ["quoratectl", "del", "key-", "--prefix"];
    space.ctl("main", &words).await?;
    let spec = json!({
        "replicas": 3,
        "storage": storage(),
        "bootstrap": {"fromBackup": {"backup": "by-hand"}},
    });
    space.cluster("again", &spec).await?;
    let again = space.settled("again", 3).await?;
    let words = ["quoratectl", "get", "key-", "--prefix", "-w", "json"];
    let count: Value = serde_json::from_str(&space.ctl("again", &words).await?)?;
    ensure!(count["count"] == 20, "{count}");
    let main = space.settled("main", 3).await?;
    let id = |cluster: &Value| cluster["status"]["clusterId"].clone();
    ensure!(id(&main) != id(&again), "it is a cluster of its own");
    Ok(())
}

/// Of three runs of the schedule the oldest goes.
async fn retention(space: &Space) -> Result<()> {
    let args = ["quoratecluster", "main"];
    let what = "three runs of the schedule";
    space
        .until(what, BACKUP_DEADLINE, &args, |cluster| {
            cluster["status"]["scheduledBackups"].as_i64() >= Some(3)
        })
        .await?;
    let list = space.until("retention", BACKUP_DEADLINE, &["quoratebackups"], |list| {
        let scheduled = verified(list);
        let scheduled = scheduled
            .iter()
            .filter(|one| one["metadata"]["name"] != "by-hand");
        (1..=2).contains(&scheduled.count())
    });
    let kept = verified(&list.await?).len();
    let cluster = space.get(&args).await?;
    let when = cluster["status"]["lastVerifiedBackup"].as_str();
    when.context("when the last verified backup was")?;
    eprintln!("{kept} verified backups are kept; one by hand began a new cluster");
    Ok(())
}
