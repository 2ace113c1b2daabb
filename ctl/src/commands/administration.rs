//! `alarm`, `defrag`, `move-leader` and `downgrade`.

use super::endpoint::{CLUSTER, alarms, member_status, targets};
use super::group;
use super::setup::Setup;
use crate::cli::{Call, Command};
use crate::go::{self, format_duration};
use crate::log::write_error;
use crate::outcome::{Exit, code};
use crate::print::{Answer, emit_line};
use crate::rpc::{Effect, Rpc};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;
use tokio::time::Instant;

/// `alarm`.
pub static ALARM: Command = Command {
    usage: "alarm <subcommand>",
    short: "Alarm related commands. Use `{program} alarm --help` to see subcommands",
    long: "Alarm related commands",
    group: group::CLUSTER,
    children: &[&DISARM, &LIST],
    ..Command::EMPTY
};

static DISARM: Command = Command {
    usage: "disarm",
    short: "Disarms all alarms",
    run: Some(|call| Box::pin(disarm(call))),
    ..Command::EMPTY
};

static LIST: Command = Command {
    usage: "list",
    short: "Lists all alarms",
    run: Some(|call| Box::pin(list(call))),
    ..Command::EMPTY
};

/// `defrag`.
pub static DEFRAG: Command = Command {
    usage: "defrag",
    short: "Defragments the storage of the etcd members with given endpoints",
    group: group::CLUSTER,
    persistent: &[CLUSTER],
    run: Some(|call| Box::pin(defrag(call))),
    ..Command::EMPTY
};

/// `move-leader`.
pub static MOVE_LEADER: Command = Command {
    usage: "move-leader <transferee-member-id>",
    short: "Transfers leadership to another etcd cluster member.",
    group: group::CLUSTER,
    run: Some(|call| Box::pin(move_leader(call))),
    ..Command::EMPTY
};

/// `downgrade`.
pub static DOWNGRADE: Command = Command {
    usage: "downgrade <subcommand>",
    short: "Downgrade related commands. Use `{program} downgrade --help` to see subcommands",
    long: "Downgrade related commands",
    group: group::CLUSTER,
    children: &[&CANCEL, &ENABLE, &VALIDATE],
    ..Command::EMPTY
};

static VALIDATE: Command = Command {
    usage: "validate <TARGET_VERSION>",
    short: "Validate downgrade capability before starting downgrade",
    run: Some(|call| Box::pin(downgrade(call, "validate", DowngradeAction::Validate))),
    ..Command::EMPTY
};

static ENABLE: Command = Command {
    usage: "enable <TARGET_VERSION>",
    short: "Start a downgrade action to cluster",
    run: Some(|call| Box::pin(downgrade(call, "enable", DowngradeAction::Enable))),
    ..Command::EMPTY
};

static CANCEL: Command = Command {
    usage: "cancel",
    short: "Cancel the ongoing downgrade action to cluster",
    run: Some(|call| Box::pin(downgrade(call, "cancel", DowngradeAction::Cancel))),
    ..Command::EMPTY
};

async fn list(mut call: Call) -> Result<(), Exit> {
    if !call.arguments.is_empty() {
        return Err(Exit::bad_arguments(
            "alarm list command accepts no arguments",
        ));
    }
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let response = alarms(&rpc, setup.deadline()).await.map_err(Exit::error)?;
    setup.display.show(Answer::Alarm(&response))
}

async fn disarm(mut call: Call) -> Result<(), Exit> {
    if !call.arguments.is_empty() {
        return Err(Exit::bad_arguments(
            "alarm disarm command accepts no arguments",
        ));
    }
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let deadline = setup.deadline();
    let raised = alarms(&rpc, deadline).await.map_err(Exit::error)?;
    let mut disarmed = pb::AlarmResponse::default();
    for alarm in raised.alarms {
        let request = pb::AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        let method = "/etcdserverpb.Maintenance/Alarm";
        let answer = rpc.call(
            Effect::Write,
            method,
            deadline,
            request,
            async |client, request| client.maintenance().alarm(request).await,
        );
        let response = answer.await.map_err(Exit::error)?;
        disarmed.alarms.extend(response.alarms);
    }
    setup.display.show(Answer::Alarm(&disarmed))
}

async fn defrag(mut call: Call) -> Result<(), Exit> {
    let setup = Setup::new(&mut call)?;
    let mut failed = false;
    for endpoint in targets(&call, &setup).await? {
        let rpc = setup.connect_to(&endpoint, "etcd-client").await?;
        let started = Instant::now();
        let method = "/etcdserverpb.Maintenance/Defragment";
        let answer = rpc.call(
            Effect::Write,
            method,
            setup.deadline(),
            pb::DefragmentRequest {},
            async |client, request| client.maintenance().defragment(request).await,
        );
        let answer = answer.await;
        let took = format_duration(started.elapsed());
        let member = format!("etcd member[{endpoint}]. took {took}");
        match answer {
            Ok(_) => emit_line(&format!("Finished defragmenting {member}"))?,
            Err(error) => {
                failed = true;
                write_error(&format!("Failed to defragment {member}. ({error})\n"));
            }
        }
    }
    if failed {
        return Err(Exit::silent(code::ERROR));
    }
    Ok(())
}

async fn move_leader(mut call: Call) -> Result<(), Exit> {
    let [target] = call.arguments.as_slice() else {
        return Err(Exit::bad_arguments("move-leader command needs 1 argument"));
    };
    let target = go::parse_uint(target, 16).map_err(Exit::bad_arguments)?;
    let setup = Setup::new(&mut call)?;
    let deadline = setup.deadline();
    let endpoints = setup.connect().await?.endpoints().to_vec();
    let Some((rpc, leader)) = find_leader(&setup, &endpoints, deadline).await? else {
        let given = endpoints.join(" ");
        let text = format!("no leader endpoint given at [{given}]");
        return Err(Exit::bad_arguments(text));
    };
    let request = pb::MoveLeaderRequest { target_id: target };
    let method = "/etcdserverpb.Maintenance/MoveLeader";
    let answer = rpc.call(
        Effect::Write,
        method,
        deadline,
        request,
        async |client, request| client.maintenance().move_leader(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup
        .display
        .show(Answer::MoveLeader(leader, target, &response))
}

async fn find_leader(
    setup: &Setup,
    endpoints: &[String],
    deadline: Option<Instant>,
) -> Result<Option<(Rpc, u64)>, Exit> {
    for endpoint in endpoints {
        let rpc = setup.connect_to(endpoint, "etcd-client").await?;
        let status = member_status(&rpc, deadline).await.map_err(Exit::error)?;
        if status.header.unwrap_or_default().member_id == status.leader {
            return Ok(Some((rpc, status.leader)));
        }
    }
    Ok(None)
}

async fn downgrade(
    mut call: Call,
    name: &'static str,
    action: DowngradeAction,
) -> Result<(), Exit> {
    let version = match call.arguments.as_slice() {
        _ if action == DowngradeAction::Cancel => String::new(),
        [] => return Err(Exit::bad_arguments("TARGET_VERSION not provided")),
        [version] if version.is_empty() => {
            return Err(Exit::bad_arguments("target version not provided"));
        }
        [version] => String::from_utf8_lossy(version).into_owned(),
        _ => return Err(Exit::bad_arguments("too many arguments")),
    };
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let request = pb::DowngradeRequest {
        action: action.into(),
        version,
    };
    let method = "/etcdserverpb.Maintenance/Downgrade";
    let answer = rpc.call(
        Effect::Write,
        method,
        setup.deadline(),
        request,
        async |client, request| client.maintenance().downgrade(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::Downgrade(name, &response))
}
