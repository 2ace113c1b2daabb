//! Alarms and downgrades as clients see them.
//!
//! etcd: server/etcdserver/v3_server.go (Alarm, Downgrade), server/etcdserver/version/version.go,
//! server/etcdserver/cluster_util.go (convertToClusterVersion).

use quorate_proto::etcdserverpb::downgrade_request::DowngradeAction;
use quorate_proto::etcdserverpb::{DowngradeInfo, DowngradeRequest, DowngradeResponse};
use tonic::Status;

use super::header::Headers;
use super::kv::unexpected;
use super::status::status;
use crate::model::kv::alarm_request::AlarmAction;
use crate::model::kv::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, Command, DowngradeTarget, Reply, command,
};
use crate::model::{Conditions, Refusal};
use crate::replica::Replica;

/// The version of the cluster as the downgrade RPC tells it: major and minor.
const CLUSTER_VERSION: &str = "3.7";
/// The one version that the cluster can be downgraded to.
const DOWNGRADE_TARGET: (i64, i64) = (3, 6);

/// Raises an alarm, takes it back, or tells which there are.
pub async fn alarm(
    replica: &Replica,
    headers: &Headers,
    request: AlarmRequest,
) -> Result<AlarmResponse, Status> {
    let mut response = match AlarmAction::try_from(request.action) {
        Ok(AlarmAction::Get) => {
            replica.barrier().await.map_err(status)?;
            AlarmResponse {
                header: None,
                alarms: replica.view().conditions.alarms_of(request.alarm),
            }
        }
        Ok(AlarmAction::Activate | AlarmAction::Deactivate) => {
            let proposed = propose(replica, command::Kind::Alarm(request)).await;
            match proposed.map_err(status)? {
                Reply::Alarm(response) => response,
                other => return Err(unexpected(&other)),
            }
        }
        // etcd 3.7.3 ends with a nil pointer; nothing is what it meant to answer.
        Err(_) => AlarmResponse::default(),
    };
    response.header = match response.header {
        None => Some(headers.now()),
        known => headers.fill(known),
    };
    Ok(response)
}

async fn propose(replica: &Replica, kind: command::Kind) -> Result<Reply, Refusal> {
    let command = Command { kind: Some(kind) };
    replica.propose(command).await
}

/// How `Status.errors` tells of an alarm: Go's text form of the message.
pub fn alarm_text(alarm: &AlarmMember) -> String {
    let mut fields = Vec::new();
    if alarm.member_id != 0 {
        fields.push(format!("memberID:{}", alarm.member_id));
    }
    if alarm.alarm != AlarmType::None as i32 {
        fields.push(format!("alarm:{}", alarm_name(alarm.alarm)));
    }
    fields.join(" ")
}

/// The name of a type of alarm; the number of one that has none.
pub fn alarm_name(kind: i32) -> String {
    match AlarmType::try_from(kind) {
        Ok(kind) => kind.as_str_name().to_owned(),
        Err(_) => kind.to_string(),
    }
}

/// The downgrade under way, for `Status`.
pub fn downgrade_info(conditions: &Conditions) -> DowngradeInfo {
    let target = conditions.downgrade_target.as_ref();
    DowngradeInfo {
        enabled: target.is_some(),
        target_version: target.cloned().unwrap_or_default(),
    }
}

/// Says whether the cluster may be downgraded, allows it, or no longer.
pub async fn downgrade(
    replica: &Replica,
    headers: &Headers,
    request: DowngradeRequest,
) -> Result<DowngradeResponse, Status> {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate) => {
            validate(replica, &request.version).await.map_err(status)?;
        }
        Ok(DowngradeAction::Enable) => {
            let target = validate(replica, &request.version).await.map_err(status)?;
            tracing::warn!(
                target,
                "a downgrade is allowed now: it only says so, for members of that release cannot \
                 read this store; take a snapshot and restore it there"
            );
            let target = DowngradeTarget { version: target };
            let proposed = propose(replica, command::Kind::Downgrade(target)).await;
            proposed.map_err(status)?;
        }
        Ok(DowngradeAction::Cancel) => cancel(replica).await,
        Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
    }
    Ok(DowngradeResponse {
        header: Some(headers.now()),
        version: CLUSTER_VERSION.to_owned(),
    })
}

/// The target as it is kept, if a downgrade to it may begin.
async fn validate(replica: &Replica, version: &str) -> Result<String, Refusal> {
    let target = cluster_version(version).ok_or(Refusal::WrongDowngradeVersionFormat)?;
    replica.barrier().await?;
    if target != DOWNGRADE_TARGET {
        return Err(Refusal::InvalidDowngradeTarget);
    }
    if replica.view().conditions.downgrade_target.is_some() {
        return Err(Refusal::DowngradeInProcess);
    }
    Ok(format!("{}.{}.0", target.0, target.1))
}

/// As in etcd, one that fails is told in the log alone.
async fn cancel(replica: &Replica) {
    let canceled = async {
        replica.barrier().await?;
        if replica.view().conditions.downgrade_target.is_none() {
            return Err(Refusal::NoInflightDowngrade);
        }
        propose(
            replica,
            command::Kind::Downgrade(DowngradeTarget::default()),
        )
        .await
    };
    if let Err(refusal) = canceled.await {
        tracing::warn!(%refusal, "failed to cancel downgrade");
    }
}

/// Major and minor of a version: `3.6`, `3.6.1` or `3.6.1-rc.1+more`.
fn cluster_version(text: &str) -> Option<(i64, i64)> {
    parse_version(text).or_else(|| parse_version(&format!("{text}.0")))
}

fn parse_version(text: &str) -> Option<(i64, i64)> {
    let (text, metadata) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, release) = text.split_once('-').unwrap_or((text, ""));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if !metadata.bytes().chain(release.bytes()).all(is_plain) {
        return None;
    }
    let mut parts = numbers.split('.');
    let mut number = || parts.next()?.parse::<i64>().ok();
    let version = (number()?, number()?);
    number()?;
    parts.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_told_in_gos_text_form() {
        let text = |member_id, alarm| alarm_text(&AlarmMember { member_id, alarm });
        let member = 3_924_444_332_850_418_048;
        assert_eq!(
            text(member, 1),
            "memberID:3924444332850418048 alarm:NOSPACE"
        );
        assert_eq!(text(0, 2), "alarm:CORRUPT");
        assert_eq!(text(1, 9), "memberID:1 alarm:9");
    }

    #[test]
    fn versions_are_read_as_etcd_does() {
        for (text, expected) in [
            ("3.6", Some((3, 6))),
            ("3.6.9", Some((3, 6))),
            ("3.6.0-rc.1+b", Some((3, 6))),
            ("4.0", Some((4, 0))),
            ("3", None),
            ("x", None),
            ("3.6.0.0", None),
            ("", None),
        ] {
            assert_eq!(cluster_version(text), expected, "{text:?}");
        }
    }
}
