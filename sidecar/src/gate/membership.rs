//! Whether the cluster still counts this member in. Nobody may answer: all may be starting.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quorate_client::proto::etcdserverpb as pb;
use quorate_sidecar::wire::exit;
use quorate_snapshot::InitialCluster;

use super::Stop;
use super::data::Owner;
use crate::config::{ClusterState, GateFlags};
use crate::member::{Members, list};

/// How long all others together may take to answer.
const ASK_LIMIT: Duration = Duration::from_secs(6);

/// Refuses a member that was removed, and data of another cluster.
pub async fn check(flags: &GateFlags, owner: &Owner) -> Result<(), Stop> {
    match who_belongs(flags).await {
        Some(answer) => judge(flags, owner, &answer),
        None => Ok(()),
    }
}

/// Refuses a member without data that has had some, and one that the cluster does not expect.
pub async fn check_newcomer(flags: &GateFlags, cluster: &InitialCluster) -> Result<(), Stop> {
    let Some(answer) = who_belongs(flags).await else {
        return Ok(());
    };
    let urls = cluster.urls_of(&flags.name);
    let urls = urls.map_err(|error| Stop::usage(error.to_string()))?;
    let is_own = |member: &&pb::Member| member.peer_ur_ls.iter().any(|url| urls.contains(url));
    let name = &flags.name;
    match answer.members.iter().find(is_own) {
        // It publishes them at its first start.
        Some(member) if !member.client_ur_ls.is_empty() => {
            let line = format!(
                "the data of member {:016x} ({name}) are gone from {}: it must be replaced",
                member.id,
                flags.data_dir.display()
            );
            Err(Stop::new(exit::DATA_CORRUPT, line))
        }
        Some(_) => Ok(()),
        None if flags.initial_cluster_state == ClusterState::New => Ok(()),
        None => {
            let line = format!("the cluster has no member with the peer URLs of {name}");
            Err(Stop::new(exit::REMOVED, line))
        }
    }
}

async fn who_belongs(flags: &GateFlags) -> Option<pb::MemberListResponse> {
    let members = flags.member.members();
    let asked = tokio::time::timeout(ASK_LIMIT, ask(&members, &flags.cluster_endpoints)).await;
    let answer = asked.ok().flatten();
    if answer.is_none() {
        tracing::info!("no other member says who belongs to the cluster");
    }
    answer
}

/// The first answer of any. It is linearizable, so that it is not one of the past.
async fn ask(members: &Members, urls: &[String]) -> Option<pb::MemberListResponse> {
    let calls = urls
        .iter()
        .filter(|url| !url.is_empty())
        .map(|url| async move {
            match members.at(url) {
                Ok(client) => list(&client, true).await,
                Err(failure) => Err(failure),
            }
        });
    let mut calls: FuturesUnordered<_> = calls.collect();
    while let Some(answer) = calls.next().await {
        match answer {
            Ok(answer) => return Some(answer),
            Err(failure) => tracing::debug!(%failure, "a member does not answer"),
        }
    }
    None
}

fn judge(flags: &GateFlags, owner: &Owner, answer: &pb::MemberListResponse) -> Result<(), Stop> {
    let cluster = answer.header.as_ref().map_or(0, |header| header.cluster_id);
    if cluster != owner.cluster {
        let text = format!("the cluster that runs is {cluster:016x}");
        return Err(owner.foreign(flags, &text));
    }
    match answer
        .members
        .iter()
        .find(|member| member.id == owner.member)
    {
        None => {
            let line = format!(
                "member {:016x} ({}) was removed from cluster {cluster:016x}; its data must go",
                owner.member, flags.name
            );
            Err(Stop::new(exit::REMOVED, line))
        }
        // One that was not started yet has no name.
        Some(member) if member.name.is_empty() || member.name == flags.name => Ok(()),
        Some(member) => Err(owner.foreign(flags, &format!("the cluster calls it {}", member.name))),
    }
}
