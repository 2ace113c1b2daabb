//! The same wrong changes of the members to the real etcd and to Quorate: the same code and text.

use anyhow::{Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::members::{self, once_healthy};
use quorate_proto::etcdserverpb as pb;
use tonic::{Response, Status};

type Seen = Vec<(String, String)>;

/// An answer without what differs from run to run.
fn shown<T>(outcome: Result<Response<T>, Status>, show: impl Fn(T) -> String) -> String {
    match outcome {
        Ok(answer) => show(answer.into_inner()),
        Err(status) => format!("{:?} {}", status.code(), status.message()),
    }
}

fn members_shown(header: Option<pb::ResponseHeader>, members: &[pb::Member]) -> String {
    let header = header.unwrap_or_default();
    let set = (
        header.cluster_id != 0,
        header.member_id != 0,
        header.raft_term != 0,
    );
    let sorted = members.is_sorted_by_key(|member| member.id);
    let mut shown: Vec<String> = members
        .iter()
        .map(|member| {
            let urls = (member.peer_ur_ls.len(), member.client_ur_ls.len());
            format!("{:?} {urls:?} {}", member.name, member.is_learner)
        })
        .collect();
    shown.sort();
    format!(
        "{set:?} revision {} sorted {sorted} {shown:?}",
        header.revision
    )
}

async fn add(port: u16, urls: &[&str], is_learner: bool) -> Result<String> {
    let mut client = members::client(port)?;
    let added = once_healthy(async || {
        let request = pb::MemberAddRequest {
            peer_ur_ls: urls.iter().map(|url| (*url).to_owned()).collect(),
            is_learner,
        };
        client.member_add(request).await
    });
    Ok(shown(added.await?, |answer| {
        let member = answer.member.unwrap_or_default();
        let added = (
            member.name,
            member.peer_ur_ls,
            member.client_ur_ls,
            member.is_learner,
        );
        format!(
            "{added:?} {}",
            members_shown(answer.header, &answer.members)
        )
    }))
}

async fn remove(port: u16, id: u64) -> Result<String> {
    let mut client = members::client(port)?;
    let removed = once_healthy(async || client.member_remove(pb::MemberRemoveRequest { id }).await);
    let show = |answer: pb::MemberRemoveResponse| members_shown(answer.header, &answer.members);
    Ok(shown(removed.await?, show))
}

async fn promote(port: u16, id: u64) -> Result<String> {
    let request = pb::MemberPromoteRequest { id };
    let promoted = members::client(port)?.member_promote(request).await;
    let show = |answer: pb::MemberPromoteResponse| members_shown(answer.header, &answer.members);
    Ok(shown(promoted, show))
}

async fn update(port: u16, id: u64, urls: &[&str]) -> Result<String> {
    let request = pb::MemberUpdateRequest {
        id,
        peer_ur_ls: urls.iter().map(|url| (*url).to_owned()).collect(),
    };
    let updated = members::client(port)?.member_update(request).await;
    let show = |answer: pb::MemberUpdateResponse| members_shown(answer.header, &answer.members);
    Ok(shown(updated, show))
}

/// The members with a learner that is not there.
async fn learner(port: u16) -> Result<u64> {
    let members = members::list(port).await?;
    let learner = members.iter().find(|member| member.is_learner);
    Ok(learner.map_or(0, |member| member.id))
}

/// Peer URLs that are none.
const BAD_URLS: [&[&str]; 6] = [
    &[],
    &["127.0.0.1:1"],
    &["ftp://127.0.0.1:1"],
    &["http://127.0.0.1"],
    &["http://127.0.0.1:1/path"],
    &["http://127.0.0.1:1", "nonsense"],
];

async fn play(kind: Kind, size: usize) -> Result<Seen> {
    let cluster = Cluster::start(&Options::new(kind, size)).await?;
    let leader = cluster.leader().await?;
    // Asked at the leader, or at another member.
    let ports = cluster.ports();
    let (at, other) = (ports[leader], ports[(leader + 1) % size]);
    let own = members::id(at).await?;
    let own_url = format!(
        "http://127.0.0.1:{}",
        cluster.members[leader].spec.peer_port
    );
    let mut seen = Seen::new();
    let mut note = |what: &str, answer: String| seen.push((what.to_owned(), answer));
    for bad in BAD_URLS {
        note(&format!("add {bad:?}"), add(at, bad, false).await?);
    }
    note("add a known URL", add(at, &[&own_url], false).await?);
    note(
        "add a known URL as a learner",
        add(other, &[&own_url], true).await?,
    );
    note("promote a stranger", promote(at, 12345).await?);
    note("promote a stranger elsewhere", promote(other, 12345).await?);
    note("remove a stranger", remove(at, 12345).await?);
    note(
        "update a stranger",
        update(at, 12345, &["http://127.0.0.1:1"]).await?,
    );
    let two = ["http://127.0.0.1:3", "http://127.0.0.1:2"];
    note("add a learner", add(other, &two, true).await?);
    note(
        "add it again",
        add(at, &["http://127.0.0.1:3"], true).await?,
    );
    note(
        "add a second learner",
        add(at, &["http://127.0.0.1:4"], true).await?,
    );
    let ghost = learner(at).await?;
    note("promote it too early", promote(at, ghost).await?);
    note(
        "promote it too early elsewhere",
        promote(other, ghost).await?,
    );
    note(
        "update to a known URL",
        update(other, ghost, &[&own_url]).await?,
    );
    note(
        "update",
        update(other, ghost, &["http://127.0.0.1:5"]).await?,
    );
    note("promote a voter", promote(at, own).await?);
    note("remove the learner", remove(other, ghost).await?);
    note("remove it again", remove(at, ghost).await?);
    note("promote it afterwards", promote(at, ghost).await?);
    note(
        "update it afterwards",
        update(at, ghost, &["http://127.0.0.1:6"]).await?,
    );
    if size == 1 {
        note("remove the last one", remove(at, own).await?);
    }
    Ok(seen)
}

async fn same(size: usize) -> Result<()> {
    let expected = play(Kind::Etcd, size).await?;
    let found = play(Kind::under_test()?, size).await?;
    let mut faults = Vec::new();
    for (expected, found) in expected.iter().zip(&found) {
        if expected != found {
            faults.push(format!("expected {expected:?}\n   found {found:?}"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    ensure!(expected.len() == found.len());
    Ok(())
}

#[tokio::test]
async fn one_member_refuses_like_etcd() -> Result<()> {
    same(1).await
}

#[tokio::test]
async fn three_members_refuse_like_etcd() -> Result<()> {
    same(3).await
}
