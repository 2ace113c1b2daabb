//! The rules one by one, on looks that are built by hand. `operator/tests/plan.rs` has them all
//! work together.

use jiff::SignedDuration;

use super::plan;
use crate::api::{Birth, Lifecycle, MemberPhase, NodeLoss, OperationKind};
use crate::model::testing::{GIB, member, now, seen, voice};
use crate::model::{
    Action, AlarmKind, Cause, ListedMember, MemberView, Observed, Plan, PodView, Refusal,
};

fn view<'a>(look: &'a mut Observed, name: &str) -> &'a mut MemberView {
    look.members.get_mut(name).unwrap()
}

fn pod<'a>(look: &'a mut Observed, name: &str) -> &'a mut PodView {
    view(look, name).pod.as_mut().unwrap()
}

/// The member answers no more, and has not for as long.
fn silence(look: &mut Observed, name: &str, seconds: i64) {
    look.voices.remove(name);
    pod(look, name).ready_since = None;
    view(look, name).unhealthy_since = Some(now() - SignedDuration::from_secs(seconds));
}

fn add(look: &mut Observed, id: u64, name: &str, learner: bool) {
    look.members.insert(name.to_owned(), member(id));
    look.voices.insert(name.to_owned(), voice(id));
    let name = name.to_owned();
    look.listed
        .as_mut()
        .unwrap()
        .members
        .push(ListedMember { id, name, learner });
}

/// A cluster of one.
fn alone() -> Observed {
    let mut look = seen();
    look.cluster.replicas = 1;
    look.members.retain(|name, _| name == "c-a");
    look.voices.retain(|name, _| name == "c-a");
    look.listed.as_mut().unwrap().members.truncate(1);
    look
}

fn stall(plan: &Plan) -> &str {
    plan.stalled.as_ref().map_or("", |refusal| &refusal.reason)
}

fn retired(plan: &Plan) -> Option<(&str, Cause, bool)> {
    match plan.action.as_ref()? {
        Action::Retire {
            name,
            cause,
            replacement,
        } => Some((name, *cause, *replacement)),
        other => panic!("{other:?}"),
    }
}

fn joiner() -> Option<Action> {
    let name = "c-new".to_owned();
    Some(Action::CreateJoiner { name })
}

fn deleted(plan: &Plan) -> &str {
    match &plan.action {
        Some(Action::DeletePod { name, .. }) => name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_is_well_and_nothing_is_done() {
    let settled = plan(&seen());
    assert_eq!(
        (settled.action, settled.operation, settled.stalled),
        (None, None, None)
    );
    assert!(settled.look_again.as_secs() >= 10);
}

#[test]
fn lost_data_of_one_of_three_are_replaced_removal_first() {
    for (hurt, cause) in [
        (|view: &mut MemberView| view.claim = None, Cause::DataLost),
        (
            |view: &mut MemberView| view.claim.as_mut().unwrap().lost = true,
            Cause::DataLost,
        ),
        (
            |view: &mut MemberView| view.claim.as_mut().unwrap().uid = "other".to_owned(),
            Cause::DataLost,
        ),
        (
            |view: &mut MemberView| view.pod.as_mut().unwrap().gate_exit = Some(40),
            Cause::DataCorrupt,
        ),
    ] as [(fn(&mut MemberView), Cause); 4]
    {
        let mut look = seen();
        silence(&mut look, "c-b", 1);
        hurt(view(&mut look, "c-b"));
        assert_eq!(retired(&plan(&look)), Some(("c-b", cause, true)));
    }
}

#[test]
fn a_member_that_may_be_alive_stays_until_another_one_votes() {
    let mut look = seen();
    silence(&mut look, "c-b", 600);
    assert_eq!(plan(&look).action, joiner());
    add(&mut look, 4, "c-d", true);
    let promote = Action::Promote {
        name: "c-d".to_owned(),
        id: 4,
    };
    assert_eq!(plan(&look).action, Some(promote));
    look.listed.as_mut().unwrap().members[3].learner = false;
    assert_eq!(retired(&plan(&look)), Some(("c-b", Cause::Unhealthy, true)));
}

#[test]
fn a_member_that_recovers_sends_its_replacement_away() {
    let mut look = seen();
    add(&mut look, 4, "c-d", true);
    assert_eq!(
        retired(&plan(&look)),
        Some(("c-d", Cause::ScalingIn, false))
    );
}

#[test]
fn patience_comes_before_replacement() {
    let mut look = seen();
    silence(&mut look, "c-b", 599);
    let waits = plan(&look);
    assert_eq!(waits.action, None);
    assert!(waits.blocked_by.is_some() && waits.stalled.is_none());
}

#[test]
fn a_corrupt_member_is_replaced_though_it_answers_and_hands_leadership_over() {
    let mut look = seen();
    look.alarms = vec![(1, AlarmKind::Corrupt)];
    assert_eq!(plan(&look).action, joiner());
    add(&mut look, 4, "c-d", false);
    look.voices.get_mut("c-c").unwrap().applied_index = 120;
    let hand_over = Action::MoveLeader {
        to: 3,
        name: "c-c".to_owned(),
    };
    assert_eq!(plan(&look).action, Some(hand_over));
    look.voices.values_mut().for_each(|voice| voice.leader = 3);
    assert_eq!(
        retired(&plan(&look)),
        Some(("c-a", Cause::DataCorrupt, true))
    );
}

#[test]
fn a_claim_on_its_way_out_is_replaced_while_its_pod_still_holds_it() {
    let mut look = seen();
    view(&mut look, "c-b").claim.as_mut().unwrap().deleting = true;
    look.cluster.revision = "new".to_owned();
    assert_eq!(
        plan(&look).action,
        joiner(),
        "its Pod is not made anew: that would lose it"
    );
}

#[test]
fn replacements_are_bounded() {
    let mut look = seen();
    silence(&mut look, "c-b", 1);
    view(&mut look, "c-b").claim = None;
    look.cluster.replacements = vec![now(); 3];
    let bounded = plan(&look);
    assert_eq!(
        (bounded.action.is_none(), stall(&bounded)),
        (true, "ReplacementsExhausted")
    );
}

#[test]
fn a_lost_node_is_replaced_or_waited_for() {
    let mut look = seen();
    silence(&mut look, "c-b", 601);
    pod(&mut look, "c-b").node_lost = true;
    pod(&mut look, "c-b").deleting = true;
    assert_eq!(retired(&plan(&look)), Some(("c-b", Cause::NodeLost, true)));
    look.cluster.on_node_lost = NodeLoss::Wait;
    let waits = plan(&look);
    assert_eq!(waits.action, None);
    assert!(waits.blocked_by.unwrap().contains("onNodeLost"));
}

#[test]
fn who_was_removed_is_dropped_and_another_comes() {
    let mut look = seen();
    look.listed.as_mut().unwrap().members.remove(1);
    silence(&mut look, "c-b", 1);
    pod(&mut look, "c-b").gate_exit = Some(41);
    assert_eq!(
        retired(&plan(&look)),
        Some(("c-b", Cause::RemovedFromCluster, true))
    );
    view(&mut look, "c-b").phase = MemberPhase::Leaving;
    let (name, delete_claim) = ("c-b".to_owned(), false);
    assert_eq!(
        plan(&look).action,
        Some(Action::DropMember { name, delete_claim })
    );
    look.members.remove("c-b");
    look.cluster.operation = Some((OperationKind::Replacing, now()));
    assert_eq!(plan(&look).action, joiner());
}

#[test]
fn a_cluster_of_one_that_lost_its_data_is_never_begun_anew() {
    let mut look = alone();
    silence(&mut look, "c-a", 1);
    (view(&mut look, "c-a").claim, look.listed) = (None, None);
    let lost = plan(&look);
    assert_eq!((lost.action.is_none(), stall(&lost)), (true, "QuorumLost"));
    look.members.clear();
    let lost = plan(&look);
    assert_eq!((lost.action.is_none(), stall(&lost)), (true, "QuorumLost"));
}

#[test]
fn without_a_quorum_pods_are_made_and_nothing_else() {
    let mut look = seen();
    (look.listed, look.cluster.replicas) = (None, 5);
    silence(&mut look, "c-a", 5);
    silence(&mut look, "c-b", 5);
    view(&mut look, "c-a").pod = None;
    let made = plan(&look);
    assert_eq!(
        made.action,
        Some(Action::CreatePod {
            name: "c-a".to_owned()
        })
    );
    view(&mut look, "c-a").pod = member(1).pod;
    silence(&mut look, "c-a", 5);
    let waits = plan(&look);
    assert_eq!((waits.action.is_none(), stall(&waits)), (true, ""));
    silence(&mut look, "c-a", 60);
    silence(&mut look, "c-b", 60);
    assert_eq!(stall(&plan(&look)), "QuorumLost");
}

#[test]
fn the_first_member_comes_up_step_by_step() {
    let mut look = seen();
    (look.listed, look.cluster.cluster_id) = (None, None);
    look.members.clear();
    look.voices.clear();
    let name = || "c-new".to_owned();
    assert_eq!(
        plan(&look).action,
        Some(Action::CreateSeed { name: name() })
    );
    let mut seed = member(9);
    (seed.birth, seed.phase, seed.id) = (Birth::Seed, MemberPhase::Pending, None);
    (seed.claim, seed.pod, seed.initial_cluster, seed.claim_uid) = (None, None, None, None);
    look.members.insert(name(), seed);
    assert_eq!(
        plan(&look).action,
        Some(Action::CreateClaim { name: name() })
    );
    view(&mut look, "c-new").claim = member(9).claim;
    assert_eq!(plan(&look).action, Some(Action::AdmitSeed { name: name() }));
    let seed = view(&mut look, "c-new");
    (seed.phase, seed.initial_cluster) = (MemberPhase::Admitted, Some("c-new=u".to_owned()));
    seed.claim_uid = Some("claim-9".to_owned());
    assert_eq!(plan(&look).action, Some(Action::CreatePod { name: name() }));
    view(&mut look, "c-new").pod = member(9).pod;
    assert_eq!(plan(&look).action, None);
    let mut up = voice(9);
    up.leader = 9;
    look.voices.insert(name(), up);
    assert_eq!(
        plan(&look).action,
        Some(Action::LatchMemberId {
            name: name(),
            id: 9
        })
    );
    view(&mut look, "c-new").id = Some(9);
    assert_eq!(plan(&look).action, Some(Action::LatchClusterId { id: 7 }));
}

#[test]
fn a_seed_that_failed_before_there_was_a_cluster_is_made_anew() {
    let mut look = alone();
    (look.cluster.cluster_id, look.listed) = (None, None);
    silence(&mut look, "c-a", 1);
    view(&mut look, "c-a").birth = Birth::Seed;
    pod(&mut look, "c-a").gate_exit = Some(43);
    let waits = plan(&look);
    assert_eq!(
        (waits.action.is_none(), stall(&waits)),
        (true, "RestoreFailed")
    );
    view(&mut look, "c-a").claim = None;
    assert_eq!(retired(&plan(&look)), Some(("c-a", Cause::DataLost, false)));
    view(&mut look, "c-a").phase = MemberPhase::Leaving;
    assert!(matches!(
        plan(&look).action,
        Some(Action::DropMember { .. })
    ));
}

#[test]
fn orphans_go_and_what_has_an_object_stays() {
    let mut look = seen();
    add(&mut look, 4, "c-d", true);
    look.members.remove("c-d");
    let gone = Action::RemoveMember {
        id: 4,
        name: "c-d".to_owned(),
    };
    assert_eq!(plan(&look).action, Some(gone));
    // Added, but the operator died before it could latch that.
    let mut pending = member(4);
    (pending.phase, pending.id, pending.pod) = (MemberPhase::Pending, None, None);
    look.members.insert("c-d".to_owned(), pending);
    look.cluster.replicas = 5;
    let again = Action::AdmitJoiner {
        name: "c-d".to_owned(),
    };
    assert_eq!(plan(&look).action, Some(again));
}

#[test]
fn pods_go_followers_first_and_the_leader_after_it_handed_over() {
    let mut look = seen();
    look.cluster.revision = "new".to_owned();
    assert_eq!(deleted(&plan(&look)), "c-b");
    pod(&mut look, "c-b").revision = "new".to_owned();
    pod(&mut look, "c-b").ready_since = Some(now() - SignedDuration::from_secs(9));
    let waits = plan(&look);
    assert_eq!(waits.action, None);
    assert!(waits.blocked_by.unwrap().contains("ten seconds"));
    pod(&mut look, "c-b").ready_since = Some(now() - SignedDuration::from_secs(10));
    assert_eq!(deleted(&plan(&look)), "c-c");
    pod(&mut look, "c-c").revision = "new".to_owned();
    look.voices.get_mut("c-c").unwrap().applied_index = 101;
    let hand_over = Action::MoveLeader {
        to: 3,
        name: "c-c".to_owned(),
    };
    assert_eq!(plan(&look).action, Some(hand_over));
    look.voices.values_mut().for_each(|voice| voice.leader = 3);
    assert_eq!(deleted(&plan(&look)), "c-a");
}

#[test]
fn the_next_pod_waits_until_all_are_well_and_level() {
    let mut look = seen();
    look.cluster.revision = "new".to_owned();
    look.voices.get_mut("c-a").unwrap().raft_index = 5000;
    assert_eq!(plan(&look).action, None);
    let mut look = seen();
    look.cluster.revision = "new".to_owned();
    pod(&mut look, "c-b").revision = "new".to_owned();
    silence(&mut look, "c-b", 3);
    assert_eq!(plan(&look).action, None);
}

#[test]
fn an_image_that_cannot_be_pulled_halts_the_roll_and_its_pod_goes_first_once_mended() {
    let mut look = seen();
    look.cluster.revision = "new".to_owned();
    pod(&mut look, "c-b").revision = "new".to_owned();
    silence(&mut look, "c-b", 900);
    pod(&mut look, "c-b").waiting = Some("ImagePullBackOff".to_owned());
    let halted = plan(&look);
    assert_eq!(
        (halted.action.is_none(), stall(&halted)),
        (true, "ImagePullFailed")
    );
    assert!(halted.blocked_by.is_some());
    look.cluster.revision = "newer".to_owned();
    assert_eq!(deleted(&plan(&look)), "c-b");
}

#[test]
fn a_new_template_that_crashes_is_not_healed_by_more_members() {
    let mut look = seen();
    look.cluster.revision = "new".to_owned();
    pod(&mut look, "c-b").revision = "new".to_owned();
    silence(&mut look, "c-b", 900);
    pod(&mut look, "c-b").waiting = Some("CrashLoopBackOff".to_owned());
    let halted = plan(&look);
    assert_eq!(
        (halted.action.is_none(), stall(&halted)),
        (true, "ProgressDeadlineExceeded")
    );
}

#[test]
fn a_refusal_halts_the_roll_but_not_healing() {
    let mut look = seen();
    look.cluster.revision = "new".to_owned();
    let (reason, message) = ("UnsupportedVersionPath".to_owned(), "0.1 to 0.3".to_owned());
    look.cluster.refusals = vec![Refusal { reason, message }];
    let halted = plan(&look);
    assert_eq!(
        (halted.action.is_none(), stall(&halted)),
        (true, "UnsupportedVersionPath")
    );
    view(&mut look, "c-b").pod = None;
    look.voices.remove("c-b");
    let healed = plan(&look);
    assert_eq!(
        healed.action,
        Some(Action::CreatePod {
            name: "c-b".to_owned()
        })
    );
    look.cluster.blocks_pods = true;
    assert_eq!(plan(&look).action, None);
}

#[test]
fn a_failed_pod_is_made_again() {
    let mut look = seen();
    silence(&mut look, "c-b", 2);
    pod(&mut look, "c-b").failed = true;
    assert_eq!(deleted(&plan(&look)), "c-b");
    view(&mut look, "c-b").pod = None;
    let again = Action::CreatePod {
        name: "c-b".to_owned(),
    };
    assert_eq!(plan(&look).action, Some(again));
}

#[test]
fn the_least_missed_member_leaves_and_never_the_leader() {
    let mut look = seen();
    look.cluster.replicas = 1;
    view(&mut look, "c-c").created = now();
    let leaves = |look: &Observed| retired(&plan(look)).map(|(name, _, _)| name.to_owned());
    assert_eq!(leaves(&look).as_deref(), Some("c-c"), "the newest");
    view(&mut look, "c-a").created = now() + SignedDuration::from_secs(9);
    assert_eq!(leaves(&look).as_deref(), Some("c-c"), "not the leader");
    add(&mut look, 4, "c-d", false);
    pod(&mut look, "c-c").zone = Some("b".to_owned());
    pod(&mut look, "c-d").zone = Some("c".to_owned());
    assert_eq!(leaves(&look).as_deref(), Some("c-b"), "the fullest zone");
    silence(&mut look, "c-d", 700);
    let sick = Some(("c-d", Cause::Unhealthy, false));
    assert_eq!(retired(&plan(&look)), sick, "the sick one");
}

#[test]
fn a_leaver_goes_once_the_others_are_a_majority() {
    let mut look = seen();
    look.cluster.replicas = 1;
    view(&mut look, "c-c").phase = MemberPhase::Leaving;
    view(&mut look, "c-c").leaving = Some(Cause::ScalingIn);
    let gone = Action::RemoveMember {
        id: 3,
        name: "c-c".to_owned(),
    };
    assert_eq!(plan(&look).action, Some(gone));
    silence(&mut look, "c-b", 2);
    let waits = plan(&look);
    assert_eq!(waits.action, None);
    assert!(waits.blocked_by.unwrap().contains("no majority"));
}

#[test]
fn volumes_grow_one_at_a_time_or_say_why_not() {
    let mut look = seen();
    look.cluster.storage.bytes = 2 * GIB;
    let (name, bytes) = ("c-a".to_owned(), 2 * GIB);
    assert_eq!(
        plan(&look).action,
        Some(Action::ExpandClaim { name, bytes })
    );
    view(&mut look, "c-a")
        .claim
        .as_mut()
        .unwrap()
        .requested_bytes = 2 * GIB;
    let waits = plan(&look);
    assert_eq!(waits.action, None);
    assert!(waits.blocked_by.unwrap().contains("c-a-data"));
    look.cluster.storage.expandable = Some(false);
    view(&mut look, "c-a")
        .claim
        .as_mut()
        .unwrap()
        .capacity_bytes = 2 * GIB;
    assert_eq!(stall(&plan(&look)), "VolumeNotExpandable");
}

#[test]
fn space_is_freed_now_and_then() {
    let mut look = seen();
    look.alarms = vec![(1, AlarmKind::NoSpace)];
    assert_eq!(plan(&look).action, Some(Action::FreeSpace));
    look.cluster.space_freed = Some(now() - SignedDuration::from_secs(599));
    let full = plan(&look);
    assert_eq!(
        (full.action.is_none(), stall(&full)),
        (true, "QuotaExceeded")
    );
    look.cluster.space_freed = Some(now() - SignedDuration::from_secs(600));
    assert_eq!(plan(&look).action, Some(Action::FreeSpace));
}

#[test]
fn what_lies_in_memory_is_renewed_by_other_members_and_does_not_hibernate() {
    let mut look = seen();
    look.cluster.storage.bytes = 0;
    look.members
        .values_mut()
        .for_each(|view| (view.claim, view.claim_uid) = (None, None));
    look.cluster.revision = "new".to_owned();
    assert_eq!(plan(&look).action, joiner());
    add(&mut look, 4, "c-d", false);
    let fresh = view(&mut look, "c-d");
    (fresh.claim, fresh.claim_uid) = (None, None);
    pod(&mut look, "c-d").revision = "new".to_owned();
    assert_eq!(retired(&plan(&look)), Some(("c-b", Cause::Outdated, false)));
    look.cluster.revision = "r".to_owned();
    look.members.remove("c-d");
    look.listed.as_mut().unwrap().members.pop();
    look.cluster.lifecycle = Lifecycle::Hibernated;
    let kept = plan(&look);
    assert_eq!(
        (kept.action.is_none(), stall(&kept)),
        (true, "HibernationUnsafe")
    );
    look.cluster.lifecycle = Lifecycle::Running;
    view(&mut look, "c-b").pod = None;
    look.voices.remove("c-b");
    assert_eq!(retired(&plan(&look)), Some(("c-b", Cause::DataLost, true)));
}

#[test]
fn hibernation_takes_the_leader_last_and_a_pause_takes_nothing() {
    let mut look = seen();
    look.cluster.lifecycle = Lifecycle::Hibernated;
    assert_eq!(deleted(&plan(&look)), "c-b");
    pod(&mut look, "c-b").deleting = true;
    pod(&mut look, "c-c").deleting = true;
    assert_eq!(deleted(&plan(&look)), "c-a");
    look.cluster.lifecycle = Lifecycle::Paused;
    assert_eq!(plan(&look).action, None);
}

#[test]
fn a_deleted_cluster_goes_without_a_word_to_raft() {
    let mut look = seen();
    (look.cluster.deleting, look.cluster.lifecycle) = (true, Lifecycle::Paused);
    let (name, delete_claim) = ("c-a".to_owned(), false);
    assert_eq!(
        plan(&look).action,
        Some(Action::DropMember { name, delete_claim })
    );
    look.members.clear();
    assert_eq!(plan(&look).action, Some(Action::Release));
}
