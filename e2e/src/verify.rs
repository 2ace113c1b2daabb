//! The verdict over a whole cluster: every member's log and hash, all calls, all watchers.

use crate::check;
use crate::check_watch;
use crate::cluster::Cluster;
use crate::history::{History, MemberHash};
use crate::rpc::{self, MaintenanceClient};
use crate::wait;
use crate::watcher::{Watcher, full_log};
use anyhow::{Context, Result, ensure};
use quorate_proto::etcdserverpb as pb;
use std::time::Duration;

/// What was judged, for a line in the test's output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    pub calls: usize,
    pub acknowledged: usize,
    pub revision: i64,
    pub watch_streams: usize,
}

/// Judges everything, once all members run and no call is under way.
///
/// # Errors
/// When any promise was broken; the message names the first ones.
pub async fn all(cluster: &Cluster, history: &History, watchers: Vec<Watcher>) -> Result<Judged> {
    let mut revision = 0;
    for port in cluster.ports() {
        // After a linearizable read every member has applied what was acknowledged.
        let read = wait::until("a linearizable read", Duration::from_secs(30), async || {
            Ok(rpc::linearizable_read(port).await.ok())
        });
        revision = revision.max(read.await?);
    }
    let mut logs = Vec::new();
    for port in cluster.ports() {
        logs.push(full_log(port, revision).await?);
    }
    let log = logs.first().context("a cluster has members")?;
    for (member, other) in cluster.members.iter().zip(&logs) {
        ensure!(
            log == other,
            "the event log of {} differs",
            member.spec.name
        );
    }
    let records = history.records();
    check::calls(&records, log).into_result()?;
    let mut watch_streams = 0;
    for watcher in watchers {
        let watched = watcher.finish(revision).await?;
        watch_streams += watched.streams.len();
        check_watch::watcher(&watched, log, revision).into_result()?;
    }
    check::hashes(&hashes(cluster, revision).await?).into_result()?;
    Ok(Judged {
        calls: records.len(),
        acknowledged: history.acknowledged(),
        revision,
        watch_streams,
    })
}

/// HashKV of every member at one revision.
///
/// # Errors
/// When a member does not answer.
pub async fn hashes(cluster: &Cluster, revision: i64) -> Result<Vec<MemberHash>> {
    let mut hashes = Vec::new();
    for member in &cluster.members {
        let channel = rpc::channel(member.spec.client_port, Duration::from_secs(10))?;
        let request = pb::HashKvRequest { revision };
        let answer = MaintenanceClient::new(channel).hash_kv(request).await?;
        let answer = answer.into_inner();
        hashes.push(MemberHash::of(&member.spec.name, &answer));
    }
    Ok(hashes)
}
