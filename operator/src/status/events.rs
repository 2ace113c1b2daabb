//! What is worth an Event: what is being done, and what changed in the conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{ConditionType, QuorateClusterStatus};
use crate::model::{Action, Cause, Plan};

/// Whether an Event is good news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// It is.
    Normal,
    /// It is not.
    Warning,
}

/// An Event about a cluster. Reasons stay the same; programs may look for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether it is good news.
    pub kind: EventType,
    /// Why, in a word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// What the operator did or found, in a word.
    pub action: String,
}

/// What to tell after a look whose plan was carried out: `old` and `new` are the status before and
/// after.
#[must_use]
pub fn events(old: &QuorateClusterStatus, new: &QuorateClusterStatus, plan: &Plan) -> Vec<Event> {
    let done = plan.action.as_ref().and_then(of_action);
    let raised = new
        .alarms
        .iter()
        .filter(|alarm| !old.alarms.contains(alarm));
    let raised = raised.map(|alarm| {
        let reason = if alarm.ends_with("CORRUPT") {
            "CorruptAlarm"
        } else {
            "NoSpaceAlarm"
        };
        event(
            EventType::Warning,
            reason,
            format!("alarm raised: {alarm}"),
            "Observe",
        )
    });
    let started = new.operation.as_ref().filter(|operation| {
        old.operation.as_ref().map(|before| before.kind) != Some(operation.kind)
    });
    let started = started.map(|operation| {
        let reason = super::word(operation.kind);
        event(EventType::Normal, &reason, operation.step.clone(), "Plan")
    });
    let flips = new
        .conditions
        .iter()
        .filter_map(|condition| of_condition(old, condition));
    done.into_iter()
        .chain(started)
        .chain(raised)
        .chain(flips)
        .collect()
}

fn event(kind: EventType, reason: &str, message: String, action: &str) -> Event {
    Event {
        kind,
        reason: reason.to_owned(),
        message,
        action: action.to_owned(),
    }
}

fn of_action(action: &Action) -> Option<Event> {
    let normal = |reason: &str, message: String, action: &str| {
        Some(event(EventType::Normal, reason, message, action))
    };
    match action {
        Action::CreateSeed { name } => normal(
            "MemberCreated",
            format!("made the first member {name}"),
            "CreateMember",
        ),
        Action::CreateJoiner { name } => normal(
            "MemberCreated",
            format!("made the member {name}"),
            "CreateMember",
        ),
        Action::AdmitJoiner { name } => normal(
            "MemberAdmitted",
            format!("{name} is a learner of the cluster"),
            "AddMember",
        ),
        Action::LatchClusterId { id } => normal(
            "ClusterBegun",
            format!("the cluster has the ID {id:016x}"),
            "Latch",
        ),
        Action::CreatePod { name } => normal("PodCreated", format!("made Pod {name}"), "CreatePod"),
        Action::DeletePod { name, cause, .. } => {
            let message = format!("deleted Pod {name}: {}", because(*cause));
            Some(event(tone(*cause), &cause.reason(), message, "DeletePod"))
        }
        Action::ExpandClaim { name, bytes } => {
            let message = format!("asked for {} MiB for {name}", bytes >> 20);
            normal("VolumeExpanding", message, "ExpandClaim")
        }
        Action::Promote { name, .. } => normal(
            "MemberPromoted",
            format!("asked to make {name} a voter"),
            "PromoteMember",
        ),
        Action::MoveLeader { name, .. } => normal(
            "LeaderMoved",
            format!("handed leadership to {name}"),
            "MoveLeader",
        ),
        Action::Retire { name, cause, .. } => {
            let message = format!("{name} leaves: {}", because(*cause));
            Some(event(
                tone(*cause),
                &cause.reason(),
                message,
                "RetireMember",
            ))
        }
        Action::RemoveMember { name, id } => {
            let message = format!("removed member {name} ({id:016x}) from the cluster");
            normal("MemberRemoved", message, "RemoveMember")
        }
        Action::FreeSpace => {
            let message = "compacted, defragmented and disarmed NOSPACE".to_owned();
            normal("SpaceFreed", message, "FreeSpace")
        }
        Action::AdmitSeed { .. }
        | Action::LatchMemberId { .. }
        | Action::CreateClaim { .. }
        | Action::DropMember { .. }
        | Action::Release => None,
    }
}

fn tone(cause: Cause) -> EventType {
    match cause {
        Cause::ScalingIn | Cause::Outdated | Cause::Hibernated | Cause::Deleted => {
            EventType::Normal
        }
        _ => EventType::Warning,
    }
}

fn because(cause: Cause) -> &'static str {
    match cause {
        Cause::ScalingIn => "fewer members are wanted",
        Cause::Outdated => "it is not as the spec wants it",
        Cause::PodFailed => "it ended and would not come back by itself",
        Cause::DataLost => "its claim or volume is gone, or is another one",
        Cause::DataCorrupt => "its data are damaged",
        Cause::NodeLost => "its node is gone",
        Cause::Unhealthy => "it was unhealthy for longer than replaceUnhealthyAfterSeconds",
        Cause::RemovedFromCluster => "the cluster does not know it any more",
        Cause::LearnerStuck => "it did not become a voter in time",
        Cause::Hibernated => "the cluster hibernates",
        Cause::Deleted => "the cluster is deleted",
    }
}

fn of_condition(old: &QuorateClusterStatus, condition: &Condition) -> Option<Event> {
    let before = old
        .conditions
        .iter()
        .find(|old| old.type_ == condition.type_);
    let same = before.is_some_and(|before| {
        before.status == condition.status && before.reason == condition.reason
    });
    let is = |kind: ConditionType| condition.type_ == kind.name();
    if same {
        return None;
    }
    let known = before.is_some();
    let was_true = before.is_some_and(|before| before.status == "True");
    let (good, told) = match condition.status.as_str() {
        "True" if is(ConditionType::Stalled) => (false, true),
        "True" if is(ConditionType::QuorumHealthy) => (condition.reason != "AtRisk", known),
        "True" if is(ConditionType::TLSReady) => (condition.reason != "Expiring", known),
        "True" => (true, is(ConditionType::Ready)),
        "False" if is(ConditionType::Ready) => {
            let calm = ["Bootstrapping", "Hibernated", "Paused", "Deleting"];
            (calm.contains(&condition.reason.as_str()), true)
        }
        "False" if is(ConditionType::Stalled) => (true, was_true),
        "False" if is(ConditionType::Reconciling) || is(ConditionType::Converged) => (true, false),
        // Alarms are told one by one.
        "False" if condition.reason.ends_with("Alarm") => (false, false),
        "False" => (false, true),
        _ => (true, false),
    };
    let kind = if good {
        EventType::Normal
    } else {
        EventType::Warning
    };
    let reason = match condition.type_.as_str() {
        "QuorumHealthy" => format!("Quorum{}", condition.reason),
        "BackupHealthy" => format!("Backup{}", condition.reason),
        "TLSReady" => format!("TLS{}", condition.reason),
        _ => condition.reason.clone(),
    };
    told.then(|| event(kind, &reason, condition.message.clone(), "Observe"))
}
