//! Statuses and Events of looks that are built by hand.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{BackupFacts, EventType, Facts, TlsFacts, events, status};
use crate::api::{ConditionType, Lifecycle, MemberRole, OperationKind, QuorateClusterStatus};
use crate::model::testing::{GIB, now, seen};
use crate::model::{Action, AlarmKind, Cause, Observed, Plan, Refusal};
use crate::plan::plan;

fn facts() -> Facts {
    Facts {
        generation: Some(4),
        target_version: Some("0.2.0".to_owned()),
        lowest_version: Some("0.1.0".to_owned()),
        selector: Some("quorate.dev/cluster=c".to_owned()),
        endpoint: Some("https://c-client.n.svc:2379".to_owned()),
        client_secret: Some("c-client-tls".to_owned()),
        tls: TlsFacts::Issued,
        backup: BackupFacts::default(),
    }
}

fn told(seen: &Observed, old: &QuorateClusterStatus) -> QuorateClusterStatus {
    status(seen, &plan(seen), old, &facts())
}

fn first(seen: &Observed) -> QuorateClusterStatus {
    told(seen, &QuorateClusterStatus::default())
}

fn condition(status: &QuorateClusterStatus, kind: ConditionType) -> &Condition {
    let mut all = status.conditions.iter();
    all.find(|condition| condition.type_ == kind.name())
        .expect("every type is written")
}

fn says(status: &QuorateClusterStatus, kind: ConditionType) -> (&str, &str) {
    let condition = condition(status, kind);
    (condition.status.as_str(), condition.reason.as_str())
}

#[test]
fn a_cluster_that_is_well_says_so() {
    let status = first(&seen());
    for (kind, value, reason) in [
        (ConditionType::Ready, "True", "Ready"),
        (ConditionType::Reconciling, "False", "Settled"),
        (ConditionType::Stalled, "False", "Unhindered"),
        (ConditionType::QuorumHealthy, "True", "AllVoters"),
        (ConditionType::Converged, "True", "AllMembersCurrent"),
        (ConditionType::BackupHealthy, "Unknown", "NotConfigured"),
        (ConditionType::TLSReady, "True", "Issued"),
        (ConditionType::StorageHealthy, "True", "Ok"),
        (ConditionType::ClusterIDConsistent, "True", "Consistent"),
    ] {
        assert_eq!(says(&status, kind), (value, reason), "{kind:?}");
        assert_eq!(condition(&status, kind).observed_generation, Some(4));
    }
    assert_eq!(status.conditions.len(), 9);
    assert_eq!(status.phase.as_deref(), Some("Ready"));
    assert_eq!(status.ready.as_deref(), Some("3/3"));
    assert_eq!((status.replicas, status.ready_members), (3, 3));
    assert_eq!(status.cluster_id.as_deref(), Some("0000000000000007"));
    assert_eq!(status.leader.as_deref(), Some("c-a"));
    assert_eq!(status.observed_generation, Some(4));
    let roles: Vec<_> = status.members.iter().map(|member| member.role).collect();
    assert_eq!(
        roles,
        [MemberRole::Leader, MemberRole::Voter, MemberRole::Voter]
    );
    assert!(
        status
            .members
            .iter()
            .all(|member| member.healthy && member.message.is_none())
    );
    assert!(status.operation.is_none());
}

#[test]
fn the_same_look_gives_the_same_status_whatever_the_time_and_small_growth() {
    let before = first(&seen());
    let mut later = seen();
    later.now += SignedDuration::from_hours(5);
    let voice = later.voices.get_mut("c-b").unwrap();
    voice.applied_index += 12;
    voice.db_size_bytes += 4096;
    assert_eq!(told(&later, &before), before);
}

#[test]
fn times_change_only_when_a_status_flips() {
    let before = first(&seen());
    let mut down = seen();
    down.now += SignedDuration::from_mins(1);
    down.voices.remove("c-c");
    let after = told(&down, &before);
    assert_eq!(
        says(&after, ConditionType::Ready),
        ("False", "MembersUnavailable")
    );
    assert_eq!(
        condition(&after, ConditionType::Ready).last_transition_time,
        Time(down.now)
    );
    assert_eq!(
        says(&after, ConditionType::QuorumHealthy),
        ("True", "AtRisk")
    );
    let quorum = condition(&after, ConditionType::QuorumHealthy);
    assert_eq!(
        quorum.last_transition_time,
        Time(now()),
        "a reason is no flip"
    );
    let broken = &after.members[2];
    assert_eq!(
        (broken.healthy, broken.message.as_deref()),
        (false, Some("it does not answer"))
    );
}

#[test]
fn an_operation_keeps_its_start() {
    let mut look = seen();
    look.cluster.revision = "new".to_owned();
    let before = first(&look);
    let operation = before.operation.as_ref().unwrap();
    assert_eq!(operation.kind, OperationKind::RollingRestart);
    assert_eq!(operation.started_at, Some(Time(now())));
    assert_eq!(
        says(&before, ConditionType::Reconciling),
        ("True", "RollingRestart")
    );
    assert_eq!(
        says(&before, ConditionType::Converged),
        ("False", "OutdatedMembers")
    );
    assert_eq!(before.phase.as_deref(), Some("RollingRestart"));
    look.now += SignedDuration::from_mins(3);
    look.members.get_mut("c-b").unwrap().pod = None;
    look.voices.remove("c-b");
    look.cluster.operation = Some((OperationKind::RollingRestart, now()));
    let after = told(&look, &before);
    assert_eq!(after.operation.unwrap().started_at, Some(Time(now())));
}

#[test]
fn what_has_to_be_mended_is_stalled_and_not_reconciling() {
    let mut look = seen();
    look.cluster.revision = "new".to_owned();
    let (reason, message) = ("InvalidReference".to_owned(), "make Secret x".to_owned());
    look.cluster.refusals = vec![Refusal { reason, message }];
    let status = first(&look);
    assert_eq!(
        says(&status, ConditionType::Stalled),
        ("True", "InvalidReference")
    );
    assert_eq!(
        says(&status, ConditionType::Reconciling),
        ("False", "Stalled")
    );
    assert_eq!(
        status.operation.unwrap().blocked_by.as_deref(),
        Some("make Secret x")
    );
    assert_eq!(status.phase.as_deref(), Some("Stalled"));
    assert_eq!(says(&first(&look), ConditionType::Ready), ("True", "Ready"));
}

#[test]
fn a_cluster_that_begins_and_one_that_lost_its_quorum_are_told_apart() {
    let mut look = seen();
    (look.listed, look.voices) = (None, BTreeMap::new());
    let lost = first(&look);
    assert_eq!(says(&lost, ConditionType::Ready), ("False", "QuorumLost"));
    assert_eq!(says(&lost, ConditionType::QuorumHealthy), ("False", "Lost"));
    assert_eq!(
        says(&lost, ConditionType::Stalled).0,
        "False",
        "it may just restart"
    );
    let since = now() - SignedDuration::from_mins(5);
    look.members
        .values_mut()
        .for_each(|view| view.unhealthy_since = Some(since));
    assert_eq!(
        says(&first(&look), ConditionType::Stalled),
        ("True", "QuorumLost")
    );
    assert_eq!(first(&look).phase.as_deref(), Some("QuorumLost"));
    (look.members, look.cluster.cluster_id) = (BTreeMap::new(), None);
    let begins = first(&look);
    assert_eq!(
        says(&begins, ConditionType::Ready),
        ("False", "Bootstrapping")
    );
    assert_eq!(
        says(&begins, ConditionType::QuorumHealthy),
        ("Unknown", "Bootstrapping")
    );
    assert_eq!(
        says(&begins, ConditionType::ClusterIDConsistent),
        ("Unknown", "Bootstrapping")
    );
}

#[test]
fn two_clusters_under_one_name_are_seen() {
    let mut look = seen();
    look.voices.get_mut("c-c").unwrap().cluster_id = 8;
    let status = first(&look);
    assert_eq!(
        says(&status, ConditionType::ClusterIDConsistent),
        ("False", "SplitBrain")
    );
    assert_eq!(says(&status, ConditionType::Ready), ("False", "SplitBrain"));
    assert_eq!(
        says(&status, ConditionType::Stalled),
        ("True", "SplitBrain")
    );
    assert_eq!(plan(&look).action, None);
}

#[test]
fn pause_and_hibernation_have_words_of_their_own() {
    let mut look = seen();
    look.cluster.lifecycle = Lifecycle::Paused;
    look.cluster.revision = "new".to_owned();
    let paused = first(&look);
    assert_eq!(says(&paused, ConditionType::Ready), ("True", "Paused"));
    assert_eq!(
        says(&paused, ConditionType::Reconciling),
        ("False", "Paused")
    );
    assert!(
        paused
            .operation
            .unwrap()
            .blocked_by
            .unwrap()
            .contains("spec.lifecycle")
    );
    let mut look = seen();
    look.cluster.lifecycle = Lifecycle::Hibernated;
    assert_eq!(first(&look).phase.as_deref(), Some("Hibernating"));
    look.members.values_mut().for_each(|view| view.pod = None);
    (look.listed, look.voices) = (None, BTreeMap::new());
    let asleep = first(&look);
    assert_eq!(asleep.phase.as_deref(), Some("Hibernated"));
    assert_eq!(says(&asleep, ConditionType::Ready), ("False", "Hibernated"));
    assert_eq!(
        says(&asleep, ConditionType::Converged),
        ("True", "Hibernated")
    );
    look.cluster.lifecycle = Lifecycle::Running;
    look.cluster.was_hibernated = true;
    assert_eq!(first(&look).phase.as_deref(), Some("Resuming"));
}

#[test]
fn alarms_and_volumes_show_in_storage() {
    let mut look = seen();
    look.alarms = vec![(2, AlarmKind::NoSpace)];
    let status = first(&look);
    assert_eq!(
        says(&status, ConditionType::StorageHealthy),
        ("False", "NoSpaceAlarm")
    );
    assert_eq!(status.alarms, ["c-b: NOSPACE"]);
    assert!(!status.members[1].healthy);
    look.alarms = vec![(2, AlarmKind::Corrupt), (1, AlarmKind::NoSpace)];
    assert_eq!(
        says(&first(&look), ConditionType::StorageHealthy),
        ("False", "CorruptAlarm")
    );
    let mut look = seen();
    look.cluster.storage.bytes = 2 * GIB;
    assert_eq!(
        says(&first(&look), ConditionType::StorageHealthy),
        ("False", "ResizePending")
    );
}

#[test]
fn backups_and_certificates_are_judged_by_the_facts() {
    let tell = |change: fn(&mut Facts)| {
        let mut facts = facts();
        facts.backup.scheduled_now = true;
        change(&mut facts);
        let seen = seen();
        status(
            &seen,
            &plan(&seen),
            &QuorateClusterStatus::default(),
            &facts,
        )
    };
    let backup = ConditionType::BackupHealthy;
    assert_eq!(says(&tell(|_| ()), backup), ("Unknown", "Awaited"));
    let whole = tell(|facts| facts.backup.last = Some(now()));
    assert_eq!(says(&whole, backup), ("False", "Unverified"));
    let proved = tell(|facts| {
        (facts.backup.last, facts.backup.last_verified) = (Some(now()), Some(now()));
    });
    assert_eq!(says(&proved, backup), ("True", "Fresh"));
    assert_eq!(proved.last_verified_backup, Some(Time(now())));
    let late = tell(|facts| facts.backup.overdue = true);
    assert_eq!(says(&late, backup), ("False", "Overdue"));
    let failed = tell(|facts| facts.backup.failure = Some("no bucket".to_owned()));
    assert_eq!(says(&failed, backup), ("False", "Failed"));
    let invalid = tell(|facts| {
        let (reason, message) = ("InvalidSchedule".to_owned(), "five fields".to_owned());
        facts.backup.refusal = Some(Refusal { reason, message });
    });
    assert_eq!(says(&invalid, backup), ("False", "InvalidSchedule"));
    assert_eq!(
        says(&invalid, ConditionType::Stalled),
        ("True", "InvalidSchedule")
    );
    let expired = tell(|facts| facts.tls = TlsFacts::Expired("c-server-tls".to_owned()));
    assert_eq!(
        says(&expired, ConditionType::TLSReady),
        ("False", "Expired")
    );
}

#[test]
fn what_is_about_to_be_latched_is_not_undone() {
    let mut look = seen();
    look.cluster.cluster_id = None;
    let latching = Plan {
        action: Some(Action::LatchClusterId { id: 7 }),
        ..Plan::default()
    };
    let old = QuorateClusterStatus {
        replacements: vec![Time(now() - SignedDuration::from_mins(2))],
        ..QuorateClusterStatus::default()
    };
    let status = status(&look, &latching, &old, &facts());
    assert_eq!(status.cluster_id.as_deref(), Some("0000000000000007"));
    assert_eq!(status.replacements, old.replacements);
}

fn reasons(old: &QuorateClusterStatus, new: &QuorateClusterStatus, plan: &Plan) -> Vec<String> {
    events(old, new, plan)
        .into_iter()
        .map(|event| event.reason)
        .collect()
}

#[test]
fn events_tell_of_changes_and_only_once() {
    let nothing = QuorateClusterStatus::default();
    let idle = Plan::default();
    let well = first(&seen());
    assert_eq!(reasons(&nothing, &well, &idle), ["Ready"]);
    assert!(reasons(&well, &well, &idle).is_empty());
    let mut look = seen();
    look.voices.remove("c-c");
    look.alarms = vec![(1, AlarmKind::NoSpace)];
    let worse = told(&look, &well);
    let told = events(&well, &worse, &idle);
    let warned = told.iter().filter(|event| event.kind == EventType::Warning);
    let warned: Vec<_> = warned.map(|event| event.reason.as_str()).collect();
    assert_eq!(
        warned,
        ["NoSpaceAlarm", "MembersUnavailable", "QuorumAtRisk"]
    );
    assert!(
        told.iter()
            .all(|event| !event.message.is_empty() && !event.action.is_empty())
    );
    let better = status(&seen(), &idle, &worse, &facts());
    assert_eq!(
        reasons(&worse, &better, &idle),
        ["Ready", "QuorumAllVoters"]
    );
}

#[test]
fn what_is_done_is_told_with_its_cause() {
    let well = first(&seen());
    let told = |action: Action| {
        let plan = Plan {
            action: Some(action),
            ..Plan::default()
        };
        events(&well, &well, &plan)
    };
    let name = "c-a".to_owned();
    let (cause, replacement) = (Cause::DataCorrupt, true);
    let lost = told(Action::Retire {
        name: name.clone(),
        cause,
        replacement,
    });
    assert_eq!(
        (lost[0].kind, lost[0].reason.as_str()),
        (EventType::Warning, "DataCorrupt")
    );
    let (uid, cause) = ("u".to_owned(), Cause::Outdated);
    let rolled = told(Action::DeletePod {
        name: name.clone(),
        uid,
        cause,
    });
    assert_eq!(
        (rolled[0].kind, rolled[0].action.as_str()),
        (EventType::Normal, "DeletePod")
    );
    assert!(told(Action::CreateClaim { name }).is_empty());
}
