//! Whether the cluster still counts this member in. Nobody may answer: all may be starting.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quorate_client::proto::etcdserverpb as pb;
use quorate_sidecar::wire::exit;

use super::Stop;
use super::data::Owner;
use crate::config::GateFlags;
use crate::member::{Members, list};

/// How long all others together may take to answer.
const ASK_LIMIT: Duration = Duration::from_secs(6);

/// Refuses a member that was removed, and data of another cluster.
pub async fn check(flags: &GateFlags, owner: &Owner) -> Result<(), Stop> {
    let members = flags.member.members();
    let asked = tokio::time::timeout(ASK_LIMIT, ask(&members, &flags.cluster_endpoints)).await;
    match asked {
        Ok(Some(answer)) => judge(flags, owner, &answer),
        Ok(None) | Err(_) => {
            tracing::info!("no other member says who belongs to the cluster");
            Ok(())
        }
    }
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
