//! `endpoint health|status|hashkv`.

use super::setup::Setup;
use super::{get, group, member};
use crate::cli::{Call, Command, Flag};
use crate::go::format_duration;
use crate::log::write_error;
use crate::outcome::{Exit, code};
use crate::print::{Answer, Health};
use crate::rpc::{Effect, Rpc, RpcError};
use futures::stream::{FuturesUnordered, StreamExt as _};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use tokio::time::Instant;

/// `--cluster`.
pub const CLUSTER: Flag = Flag::off("cluster", "use all endpoints from the cluster member list");

/// `endpoint`.
pub static ENDPOINT: Command = Command {
    usage: "endpoint <subcommand>",
    short: "Endpoint related commands. Use `{program} endpoint --help` to see subcommands",
    long: "Endpoint related commands",
    group: group::CLUSTER,
    persistent: &[CLUSTER],
    children: &[&HASH_KV, &HEALTH, &STATUS],
    ..Command::EMPTY
};

static HEALTH: Command = Command {
    usage: "health",
    short: "Checks the healthiness of endpoints specified in `--endpoints` flag",
    run: Some(|call| Box::pin(health(call))),
    ..Command::EMPTY
};

static STATUS: Command = Command {
    usage: "status",
    short: "Prints out the status of endpoints specified in `--endpoints` flag",
    long: "In the simple format, every endpoint is one line of values separated by commas: \
           endpoint, ID, version, storage version, db size, in use, percentage not in use, quota, \
           is leader, is learner, raft term, raft index, raft applied index, errors, downgrade \
           target version, downgrade enabled.",
    run: Some(|call| Box::pin(status(call))),
    ..Command::EMPTY
};

static HASH_KV: Command = Command {
    usage: "hashkv",
    short: "Prints the KV history hash for each endpoint in --endpoints",
    persistent: &[Flag::int(
        "rev",
        "maximum revision to hash (default: latest revision)",
    )],
    run: Some(|call| Box::pin(hash_kv(call))),
    ..Command::EMPTY
};

/// The endpoints a command goes through: those given, or with `--cluster` those of all members.
///
/// # Errors
/// When the members cannot be asked for.
pub async fn targets(call: &Call, setup: &Setup) -> Result<Vec<String>, Exit> {
    if !call.flags.bool("cluster") {
        return Ok(call.flags.list("endpoints").to_vec());
    }
    let rpc = setup.connect().await.map_err(|exit| Exit {
        code: code::ERROR,
        ..exit
    })?;
    let members = member::list_members(&rpc, setup.deadline(), true).await;
    let members = members.map_err(|error| {
        let text = "failed to fetch endpoints from etcd cluster member list";
        Exit::error(format!("{text}: {error}"))
    })?;
    let urls = members
        .members
        .into_iter()
        .flat_map(|member| member.client_ur_ls);
    Ok(urls.collect())
}

async fn health(mut call: Call) -> Result<(), Exit> {
    let setup = Setup::new(&mut call)?;
    let targets = targets(&call, &setup).await?;
    let checks: FuturesUnordered<_> = targets.iter().map(|target| check(&setup, target)).collect();
    let list: Vec<Health> = checks.collect().await;
    setup.display.show(Answer::Health(&list))?;
    if list.iter().any(|health| !health.error.is_empty()) {
        return Err(Exit::error("unhealthy cluster"));
    }
    Ok(())
}

/// A linearizable read, then a look for alarms.
async fn check(setup: &Setup, endpoint: &str) -> Health {
    let mut health = Health {
        endpoint: endpoint.to_owned(),
        health: false,
        took: String::new(),
        error: String::new(),
    };
    let rpc = match setup.connect_to(endpoint, "client").await {
        Ok(rpc) => rpc,
        Err(exit) => {
            health.error = exit.message.unwrap_or_default();
            return health;
        }
    };
    let started = Instant::now();
    let deadline = setup.deadline();
    let request = pb::RangeRequest {
        key: "health".into(),
        ..Default::default()
    };
    let answer = get::range(&rpc, deadline, request).await;
    health.took = format_duration(started.elapsed());
    match answer {
        Err(error) if error.text() != "etcdserver: permission denied" => {
            health.error = error.to_string();
            return health;
        }
        _ => {}
    }
    health.error = match alarms(&rpc, deadline).await {
        Err(_) => "Unable to fetch the alarm list".into(),
        Ok(response) if response.alarms.is_empty() => String::new(),
        Ok(response) => {
            let name = |alarm: &pb::AlarmMember| match alarm.alarm() {
                pb::AlarmType::Nospace => "NOSPACE ",
                pb::AlarmType::Corrupt => "CORRUPT ",
                pb::AlarmType::None => "UNKNOWN ",
            };
            let names: String = response.alarms.iter().map(name).collect();
            format!("Active Alarm(s): {names}")
        }
    };
    health.health = health.error.is_empty();
    health
}

/// All alarms.
///
/// # Errors
/// What the server said.
pub async fn alarms(rpc: &Rpc, deadline: Option<Instant>) -> Result<pb::AlarmResponse, RpcError> {
    let request = pb::AlarmRequest {
        action: AlarmAction::Get.into(),
        ..Default::default()
    };
    let method = "/etcdserverpb.Maintenance/Alarm";
    rpc.call(
        Effect::Read,
        method,
        deadline,
        request,
        async |client, request| client.maintenance().alarm(request).await,
    )
    .await
}

/// The status of the one member behind `rpc`.
///
/// # Errors
/// What the server said.
pub async fn member_status(
    rpc: &Rpc,
    deadline: Option<Instant>,
) -> Result<pb::StatusResponse, RpcError> {
    let method = "/etcdserverpb.Maintenance/Status";
    rpc.call(
        Effect::Read,
        method,
        deadline,
        pb::StatusRequest {},
        async |client, request| client.maintenance().status(request).await,
    )
    .await
}

async fn status(mut call: Call) -> Result<(), Exit> {
    let setup = Setup::new(&mut call)?;
    let mut list = Vec::new();
    let mut failed = false;
    for endpoint in targets(&call, &setup).await? {
        let rpc = setup.connect_to(&endpoint, "etcd-client").await?;
        match member_status(&rpc, setup.deadline()).await {
            Ok(response) => list.push((endpoint, response)),
            Err(error) => {
                failed = true;
                let text = format!("Failed to get the status of endpoint {endpoint} ({error})\n");
                write_error(&text);
            }
        }
    }
    setup.display.show(Answer::Status(&list))?;
    if failed {
        return Err(Exit::silent(code::ERROR));
    }
    Ok(())
}

async fn hash_kv(mut call: Call) -> Result<(), Exit> {
    let setup = Setup::new(&mut call)?;
    let revision = call.flags.int("rev");
    let mut list = Vec::new();
    let mut failure = None;
    for endpoint in targets(&call, &setup).await? {
        let rpc = setup.connect_to(&endpoint, "etcd-client").await?;
        let method = "/etcdserverpb.Maintenance/HashKV";
        let answer = rpc.call(
            Effect::Read,
            method,
            setup.deadline(),
            pb::HashKvRequest { revision },
            async |client, request| client.maintenance().hash_kv(request).await,
        );
        match answer.await {
            Ok(response) => list.push((endpoint, response)),
            Err(error) => {
                let text = format!("Failed to get the hash of endpoint {endpoint} ({error})\n");
                write_error(&text);
                failure = Some(error);
            }
        }
    }
    setup.display.show(Answer::HashKv(&list))?;
    failure.map_or(Ok(()), |error| Err(Exit::error(error)))
}
