//! `lease grant|revoke|timetolive|list|keep-alive`.

use super::holding::keep_alive;
use super::setup::Setup;
use super::{group, lease_id};
use crate::cli::{Call, Command, Flag};
use crate::go;
use crate::outcome::{Exit, code};
use crate::print::{Answer, Format, emit_line};
use crate::rpc::{Effect, Rpc, RpcError};
use quorate_proto::etcdserverpb as pb;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// How long the first answer to a keep-alive may take.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// `lease`.
pub static LEASE: Command = Command {
    usage: "lease <subcommand>",
    short: "Lease related commands. Use `{program} lease --help` to see subcommands",
    long: "Lease related commands",
    group: group::KV,
    children: &[&GRANT, &KEEP_ALIVE, &LIST, &REVOKE, &TIME_TO_LIVE],
    ..Command::EMPTY
};

static GRANT: Command = Command {
    usage: "grant <ttl>",
    short: "Creates leases",
    run: Some(|call| Box::pin(grant(call))),
    ..Command::EMPTY
};

static REVOKE: Command = Command {
    usage: "revoke <leaseID>",
    short: "Revokes leases",
    run: Some(|call| Box::pin(revoke(call))),
    ..Command::EMPTY
};

static TIME_TO_LIVE: Command = Command {
    usage: "timetolive <leaseID> [options]",
    short: "Get lease information",
    flags: &[Flag::off("keys", "Get keys attached to this lease")],
    run: Some(|call| Box::pin(time_to_live(call))),
    ..Command::EMPTY
};

static LIST: Command = Command {
    usage: "list",
    short: "List all active leases",
    run: Some(|call| Box::pin(list(call))),
    ..Command::EMPTY
};

static KEEP_ALIVE: Command = Command {
    usage: "keep-alive [options] <leaseID>",
    short: "Keeps leases alive (renew)",
    flags: &[Flag::off(
        "once",
        "Resets the keep-alive time to its original value and cobrautl.Exits immediately",
    )],
    run: Some(|call| Box::pin(renew(call))),
    ..Command::EMPTY
};

async fn grant(mut call: Call) -> Result<(), Exit> {
    let [ttl] = call.arguments.as_slice() else {
        return Err(Exit::bad_arguments(
            "lease grant command needs TTL argument",
        ));
    };
    let ttl = go::parse_int(ttl, 10)
        .map_err(|reason| Exit::bad_arguments(format!("bad TTL ({reason})")))?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let response = grant_lease(&rpc, setup.deadline(), ttl)
        .await
        .map_err(|error| Exit::error(format!("failed to grant lease ({error})")))?;
    setup.display.show(Answer::Grant(&response))
}

/// Asks for a lease of `ttl_s` seconds.
///
/// # Errors
/// What the server said.
pub async fn grant_lease(
    rpc: &Rpc,
    deadline: Option<Instant>,
    ttl_s: i64,
) -> Result<pb::LeaseGrantResponse, RpcError> {
    let request = pb::LeaseGrantRequest { ttl: ttl_s, id: 0 };
    let method = "/etcdserverpb.Lease/LeaseGrant";
    rpc.call(
        Effect::Write,
        method,
        deadline,
        request,
        async |client, request| client.lease_raw().lease_grant(request).await,
    )
    .await
}

async fn revoke(mut call: Call) -> Result<(), Exit> {
    let [id] = call.arguments.as_slice() else {
        return Err(Exit::bad_arguments("lease revoke command needs 1 argument"));
    };
    let id = lease_id(id)?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Lease/LeaseRevoke";
    let answer = rpc.call(
        Effect::Write,
        method,
        setup.deadline(),
        pb::LeaseRevokeRequest { id },
        async |client, request| client.lease_raw().lease_revoke(request).await,
    );
    let response = answer
        .await
        .map_err(|error| Exit::error(format!("failed to revoke lease ({error})")))?;
    setup.display.show(Answer::Revoke(id, &response))
}

async fn time_to_live(mut call: Call) -> Result<(), Exit> {
    let [id] = call.arguments.as_slice() else {
        let text = "lease timetolive command needs lease ID as argument";
        return Err(Exit::bad_arguments(text));
    };
    let id = id.clone();
    let keys = call.flags.bool("keys");
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let request = pb::LeaseTimeToLiveRequest {
        id: lease_id(&id)?,
        keys,
    };
    let method = "/etcdserverpb.Lease/LeaseTimeToLive";
    let answer = rpc.call(
        Effect::Read,
        method,
        None,
        request,
        async |client, request| client.lease_raw().lease_time_to_live(request).await,
    );
    let response = answer
        .await
        .map_err(|error| Exit::new(code::BAD_CONNECTION, error))?;
    setup.display.show(Answer::TimeToLive(&response, keys))
}

async fn list(mut call: Call) -> Result<(), Exit> {
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.Lease/LeaseLeases";
    let answer = rpc.call(
        Effect::Read,
        method,
        None,
        pb::LeaseLeasesRequest {},
        async |client, request| client.lease_raw().lease_leases(request).await,
    );
    let response = answer
        .await
        .map_err(|error| Exit::new(code::BAD_CONNECTION, error))?;
    setup.display.show(Answer::Leases(&response))
}

async fn renew(mut call: Call) -> Result<(), Exit> {
    let [id] = call.arguments.as_slice() else {
        let text = "lease keep-alive command needs lease ID as argument";
        return Err(Exit::bad_arguments(text));
    };
    let id = lease_id(id)?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    if call.flags.bool("once") {
        let response = renew_once(&rpc, id)
            .await
            .map_err(|error| Exit::new(code::BAD_CONNECTION, error))?;
        return setup.display.show(Answer::KeepAlive(&response));
    }
    let first_answer = call.flags.duration("dial-timeout") + FIRST_ANSWER;
    keep_alive(&rpc, id, first_answer, |response| {
        setup.display.show(Answer::KeepAlive(response))
    })
    .await?;
    if setup.display.format == Format::Simple {
        emit_line(&format!("lease {id:016x} expired or revoked."))?;
    }
    Ok(())
}

async fn renew_once(rpc: &Rpc, id: i64) -> Result<pb::LeaseKeepAliveResponse, RpcError> {
    let method = "/etcdserverpb.Lease/LeaseKeepAlive";
    let answer = rpc.call(
        Effect::Read,
        method,
        None,
        pb::LeaseKeepAliveRequest { id },
        async |client, request| {
            let (metadata, extensions, message) = request.into_parts();
            let request = futures::stream::iter([message]);
            let request = tonic::Request::from_parts(metadata, extensions, request);
            let mut stream = client
                .lease_raw()
                .lease_keep_alive(request)
                .await?
                .into_inner();
            match stream.message().await? {
                Some(response) => Ok(tonic::Response::new(response)),
                None => Err(Status::unavailable("the stream ended without an answer")),
            }
        },
    );
    let response = answer.await?;
    if response.ttl <= 0 {
        let gone = Status::not_found("etcdserver: requested lease not found");
        return Err(RpcError::from_status(&gone));
    }
    Ok(response)
}
