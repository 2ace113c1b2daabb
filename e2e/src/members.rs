//! Changes of the members of a running cluster, by the Cluster service and real processes.

use crate::cluster::Cluster;
use crate::process::{Process, Spec, free_port};
use crate::rpc::{self, ClusterClient};
use crate::{process::START_DEADLINE, wait};
use anyhow::{Context, Result};
use quorate_proto::etcdserverpb as pb;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A client of the Cluster service.
///
/// # Errors
/// When the address is no URI.
pub fn client(port: u16) -> Result<ClusterClient<Channel>> {
    Ok(ClusterClient::new(rpc::channel(port, CALL_TIMEOUT)?))
}

/// The members, after a read barrier.
///
/// # Errors
/// When the member does not answer.
pub async fn list(port: u16) -> Result<Vec<pb::Member>> {
    let request = pb::MemberListRequest { linearizable: true };
    Ok(client(port)?
        .member_list(request)
        .await?
        .into_inner()
        .members)
}

/// The ID of the member at a client port.
///
/// # Errors
/// When the member does not answer.
pub async fn id(port: u16) -> Result<u64> {
    let status = rpc::status(port).await?;
    Ok(status.header.context("a header")?.member_id)
}

/// Calls again for as long as the cluster says that it is unhealthy: etcd does so for five seconds
/// after members have met.
///
/// # Errors
/// When that does not end.
pub async fn once_healthy<T>(
    mut call: impl AsyncFnMut() -> Result<T, Status>,
) -> Result<Result<T, Status>> {
    wait::until("a healthy cluster", START_DEADLINE, async || {
        let outcome = call().await;
        let unhealthy = |status: &Status| status.message() == "etcdserver: unhealthy cluster";
        let wait = outcome.as_ref().err().is_some_and(unhealthy);
        Ok((!wait).then_some(outcome))
    })
    .await
}

/// Adds a member and returns it with the flags to start it; it is not started.
///
/// # Errors
/// When it is refused.
pub async fn add(
    cluster: &Cluster,
    at: u16,
    name: &str,
    is_learner: bool,
) -> Result<(pb::Member, Spec)> {
    let like = &cluster.members.first().context("a member")?.spec;
    let mut spec = Spec {
        name: name.to_owned(),
        data_dir: cluster.dir().join(format!("{name}.data")),
        log: cluster.dir().join(format!("{name}.log")),
        client_port: free_port()?,
        peer_port: free_port()?,
        ..like.clone()
    };
    spec.advertised_peer_port = spec.peer_port;
    let member = add_as(at, &mut spec, is_learner).await?;
    Ok((member, spec))
}

/// Adds a member that is to be started with `spec`, which learns of the other members.
///
/// # Errors
/// When it is refused.
pub async fn add_as(at: u16, spec: &mut Spec, is_learner: bool) -> Result<pb::Member> {
    let url = format!("http://127.0.0.1:{}", spec.advertised_peer_port);
    let mut client = client(at)?;
    let added = once_healthy(async || {
        let request = pb::MemberAddRequest {
            peer_ur_ls: vec![url.clone()],
            is_learner,
        };
        client.member_add(request).await
    });
    let added = added.await??.into_inner();
    let member = added.member.context("the added member")?;
    let entries = added.members.iter().flat_map(|other| {
        let name = if other.id == member.id {
            &spec.name
        } else {
            &other.name
        };
        other
            .peer_ur_ls
            .iter()
            .map(move |url| format!("{name}={url}"))
    });
    spec.initial_cluster = entries.collect::<Vec<_>>().join(",");
    spec.extra_flags
        .retain(|flag| !flag.starts_with("--initial-cluster-state"));
    spec.extra_flags
        .push("--initial-cluster-state=existing".to_owned());
    Ok(member)
}

/// Adds a voter, starts it, and waits until it serves.
///
/// # Errors
/// When one of that fails.
pub async fn grow(cluster: &mut Cluster, at: u16, name: &str) -> Result<u64> {
    let (member, spec) = add(cluster, at, name, false).await?;
    let mut process = Process::start(spec)?;
    process.ready().await?;
    cluster.members.push(process);
    Ok(member.id)
}

/// Removes a member by its ID.
///
/// # Errors
/// What the server said, but for that it is unhealthy.
pub async fn remove(at: u16, id: u64) -> Result<Vec<pb::Member>> {
    let mut client = client(at)?;
    let removed = once_healthy(async || client.member_remove(pb::MemberRemoveRequest { id }).await);
    Ok(removed.await??.into_inner().members)
}

/// Promotes a learner as soon as it is in sync.
///
/// # Errors
/// What the server said, but for that it is not.
pub async fn promote(at: u16, id: u64) -> Result<Vec<pb::Member>> {
    let mut client = client(at)?;
    wait::until("a learner in sync", START_DEADLINE, async || {
        let request = pb::MemberPromoteRequest { id };
        match client.member_promote(request).await {
            Ok(answer) => Ok(Some(answer.into_inner().members)),
            Err(status) if status.message().contains("in sync with leader") => Ok(None),
            Err(status) => Err(status.into()),
        }
    })
    .await
}

/// The code and text of a refusal, which have to be those of etcd.
///
/// # Errors
/// When it was none.
pub fn refusal<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Result<(Code, String)> {
    match outcome {
        Ok(answer) => anyhow::bail!("it was not refused: {answer:?}"),
        Err(status) => Ok((status.code(), status.message().to_owned())),
    }
}
