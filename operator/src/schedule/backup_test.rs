//! A backup's way by examples, and through a model of sidecars that die at any moment.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use quorate_sidecar::wire::{
    Artifact, BackupState, Phase, Problem, PvcStore, S3Store, Store, VerifyMode, VerifyState,
};

use super::{
    BackupStep, BackupView, Candidate, ClusterFacts, Heard, MAX_ATTEMPTS, backup_step, refused,
};
use crate::api::{BackupPhase, QuorateBackupSpec, QuorateBackupStatus, Reclaim};

fn now() -> Timestamp {
    "2026-05-01T03:00:00Z".parse().unwrap()
}

fn bucket(secret: Option<&str>) -> Store {
    let s3 = S3Store {
        bucket: "b".to_owned(),
        endpoint: None,
        region: None,
        virtual_hosted_style: false,
        credentials_secret: secret.map(str::to_owned),
    };
    Store {
        s3: Some(s3),
        ..Store::default()
    }
}

fn backup() -> BackupView {
    BackupView {
        now: now(),
        name: "night".to_owned(),
        namespace: "prod".to_owned(),
        uid: "0123456789ab".to_owned(),
        created: now(),
        deleting: false,
        retired: false,
        spec: QuorateBackupSpec {
            cluster: "c".to_owned(),
            store: None,
            verify: None,
            reclaim: Reclaim::Retain,
        },
        status: QuorateBackupStatus::default(),
        task: Heard::Nothing,
        proof: Heard::Nothing,
    }
}

fn candidate(name: &str, leader: bool, applied_index: u64) -> Candidate {
    Candidate {
        name: name.to_owned(),
        healthy: true,
        leader,
        learner: false,
        applied_index,
    }
}

fn cluster() -> ClusterFacts {
    ClusterFacts {
        uid: "fedcba98-7654".to_owned(),
        running: true,
        deleting: false,
        store: Some(bucket(Some("keys"))),
        verify: VerifyMode::Hash,
        candidates: vec![
            candidate("c-a", true, 90),
            candidate("c-b", false, 70),
            candidate("c-c", false, 80),
        ],
    }
}

fn artifact() -> Artifact {
    Artifact {
        uri: "s3://b/k".to_owned(),
        key: "k".to_owned(),
        size_bytes: 1,
        snapshot_bytes: 2,
        sha256: "00".to_owned(),
        revision: 3,
        hash: 4,
        compact_revision: 1,
        keys: 1,
        cluster_id: "1".to_owned(),
        cluster: "prod/c".to_owned(),
        member: "c-c".to_owned(),
        version: "3.7.3".to_owned(),
        started_at: "x".to_owned(),
        finished_at: "y".to_owned(),
    }
}

fn problem(reason: &str) -> Problem {
    Problem {
        reason: reason.to_owned(),
        message: "m".to_owned(),
    }
}

fn ended(phase: Phase, problem: Option<Problem>) -> Heard<BackupState> {
    let artifact = (phase == Phase::Succeeded).then(artifact);
    Heard::State(BackupState {
        phase,
        bytes: 0,
        artifact,
        problem,
    })
}

fn running() -> BackupView {
    let mut backup = backup();
    backup.status.phase = BackupPhase::Running;
    backup.status.member = Some("c-c".to_owned());
    backup.status.attempts = 1;
    backup.status.started_at = Some(Time(now()));
    backup.status.store = Some(bucket(Some("keys")));
    backup
}

fn chosen(step: &BackupStep) -> (&str, i32) {
    match step {
        BackupStep::Choose {
            member, attempt, ..
        } => (member, *attempt),
        other => panic!("{other:?}"),
    }
}

fn reason(step: &BackupStep) -> &str {
    match step {
        BackupStep::Fail(refusal) | BackupStep::Wait(refusal) => &refusal.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_furthest_healthy_follower_is_chosen_and_the_leader_only_when_alone() {
    let mut cluster = cluster();
    assert_eq!(chosen(&backup_step(&backup(), Some(&cluster))), ("c-c", 1));
    cluster.candidates[2].healthy = false;
    assert_eq!(chosen(&backup_step(&backup(), Some(&cluster))), ("c-b", 1));
    cluster.candidates[1].learner = true;
    assert_eq!(chosen(&backup_step(&backup(), Some(&cluster))), ("c-a", 1));
    cluster.candidates[0].healthy = false;
    assert_eq!(
        reason(&backup_step(&backup(), Some(&cluster))),
        "NoHealthyMember"
    );
}

#[test]
fn the_request_names_task_and_key_so_that_twice_is_once() {
    let mut backup = backup();
    backup.status.member = Some("c-c".to_owned());
    backup.status.attempts = 1;
    let step = backup_step(&backup, Some(&cluster()));
    let BackupStep::Start { member, request } = &step else {
        panic!("{step:?}")
    };
    assert_eq!(
        (member.as_str(), request.name.as_str()),
        ("c-c", "night-01234567-1")
    );
    assert_eq!(request.key, "prod/c-fedcba98/2026/05/20260501T030000Z");
    assert_eq!(request.cluster, "prod/c");
    assert_eq!(backup_step(&backup, Some(&cluster())), step);
}

#[test]
fn what_cannot_be_done_is_said() {
    assert_eq!(reason(&backup_step(&backup(), None)), "ClusterNotFound");
    let mut resting = cluster();
    resting.running = false;
    assert_eq!(
        reason(&backup_step(&backup(), Some(&resting))),
        "ClusterNotRunning"
    );
    let mut nowhere = cluster();
    nowhere.store = None;
    assert_eq!(
        reason(&backup_step(&backup(), Some(&nowhere))),
        "InvalidReference"
    );
    let claim = PvcStore {
        claim_name: "other".to_owned(),
    };
    let foreign = Store {
        pvc: Some(claim),
        ..Store::default()
    };
    for store in [bucket(Some("other")), foreign, Store::default()] {
        let mut backup = backup();
        backup.spec.store = Some(store);
        assert_eq!(
            reason(&backup_step(&backup, Some(&cluster()))),
            "InvalidReference"
        );
    }
    assert_eq!(reason(&refused(&problem("AccessDenied"))), "AccessDenied");
    assert!(matches!(refused(&problem("Busy")), BackupStep::Wait(_)));
}

#[test]
fn a_sidecar_that_restarts_is_an_attempt_and_three_are_enough() {
    let mut backup = running();
    backup.task = Heard::Unknown;
    assert_eq!(chosen(&backup_step(&backup, Some(&cluster()))), ("c-b", 2));
    backup.status.attempts = MAX_ATTEMPTS;
    let step = backup_step(&backup, Some(&cluster()));
    assert_eq!(reason(&step), "AttemptsExhausted");
    backup.status.attempts = 1;
    backup.task = ended(Phase::Failed, Some(problem("StoreUnreachable")));
    assert_eq!(chosen(&backup_step(&backup, Some(&cluster()))), ("c-b", 2));
    backup.task = ended(Phase::Failed, Some(problem("AccessDenied")));
    assert_eq!(
        reason(&backup_step(&backup, Some(&cluster()))),
        "AccessDenied"
    );
}

#[test]
fn silence_is_borne_for_a_while_unless_the_member_is_gone() {
    let mut backup = running();
    backup.task = Heard::Silence(now() - SignedDuration::from_secs(119));
    assert_eq!(reason(&backup_step(&backup, Some(&cluster()))), "Running");
    backup.task = Heard::Silence(now() - SignedDuration::from_secs(120));
    assert_eq!(chosen(&backup_step(&backup, Some(&cluster()))), ("c-b", 2));
    backup.task = Heard::Silence(now());
    let mut without = cluster();
    without.candidates.remove(2);
    assert_eq!(chosen(&backup_step(&backup, Some(&without))), ("c-b", 2));
}

#[test]
fn what_is_whole_is_proved_and_what_is_damaged_goes() {
    let mut backup = running();
    backup.task = ended(Phase::Succeeded, None);
    let step = backup_step(&backup, Some(&cluster()));
    assert_eq!(step, BackupStep::Uploaded(Box::new(artifact())));
    backup.status.phase = BackupPhase::Uploaded;
    backup.status.artifact = Some(artifact());
    backup.status.attempts = 0;
    let step = backup_step(&backup, Some(&cluster()));
    let BackupStep::Prove {
        member,
        attempt,
        request,
    } = &step
    else {
        panic!("{step:?}")
    };
    assert_eq!(
        (member.as_str(), *attempt, request.mode),
        ("c-c", 1, VerifyMode::Hash)
    );
    backup.status.attempts = 1;
    let state = |phase, problem| Heard::State(VerifyState { phase, problem });
    backup.proof = state(Phase::Running, None);
    assert_eq!(reason(&backup_step(&backup, Some(&cluster()))), "Proving");
    backup.proof = state(Phase::Succeeded, None);
    let step = backup_step(&backup, Some(&cluster()));
    assert_eq!(step, BackupStep::Verified(VerifyMode::Hash));
    backup.proof = state(Phase::Failed, Some(problem("HashMismatch")));
    let step = backup_step(&backup, Some(&cluster()));
    assert!(
        matches!(&step, BackupStep::Discard { why, request, .. }
        if why.reason == "HashMismatch" && request.key == "k"),
        "{step:?}"
    );
    backup.proof = state(Phase::Failed, Some(problem("StoreUnreachable")));
    let step = backup_step(&backup, Some(&cluster()));
    assert!(matches!(step, BackupStep::Prove { attempt: 2, .. }));
    backup.status.attempts = MAX_ATTEMPTS;
    assert_eq!(
        reason(&backup_step(&backup, Some(&cluster()))),
        "AttemptsExhausted"
    );
}

#[test]
fn deletion_stops_reclaims_and_lets_go() {
    let mut backup = running();
    backup.deleting = true;
    backup.task = ended(Phase::Running, None);
    let step = backup_step(&backup, Some(&cluster()));
    assert!(matches!(&step, BackupStep::Stop { task, .. } if task == "night-01234567-1"));
    backup.task = Heard::Unknown;
    assert_eq!(
        backup_step(&backup, Some(&cluster())),
        BackupStep::Release(None)
    );
    backup.status.artifact = Some(artifact());
    assert_eq!(
        backup_step(&backup, Some(&cluster())),
        BackupStep::Release(None),
        "Retain"
    );
    backup.retired = true;
    let step = backup_step(&backup, Some(&cluster()));
    assert!(matches!(step, BackupStep::Reclaim { .. }));
    backup.retired = false;
    backup.spec.reclaim = Reclaim::Delete;
    assert!(matches!(
        backup_step(&backup, Some(&cluster())),
        BackupStep::Reclaim { .. }
    ));
    let step = backup_step(&backup, None);
    assert!(matches!(&step, BackupStep::Release(Some(text)) if text.contains("s3://b/k")));
}

/// A sidecar's task, as it goes on while nobody looks.
#[derive(Debug, Clone, Copy)]
enum Chance {
    Goes,
    Ends(bool),
    Restarts,
    Silent,
    LosesStatusWrite,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        4 => Just(Chance::Goes),
        2 => any::<bool>().prop_map(Chance::Ends),
        1 => Just(Chance::Restarts),
        1 => Just(Chance::Silent),
        1 => Just(Chance::LosesStatusWrite),
    ]
}

/// Carries out a step on the status, as the controller does.
fn carry_out(backup: &mut BackupView, step: &BackupStep) {
    let status = &mut backup.status;
    match step {
        BackupStep::Choose {
            member,
            attempt,
            store,
        } => {
            status.phase = BackupPhase::Pending;
            status.member = Some(member.clone());
            status.attempts = *attempt;
            status.store = Some(store.clone());
            backup.task = Heard::Unknown;
        }
        BackupStep::Start { .. } => {
            status.phase = BackupPhase::Running;
            status.started_at = Some(Time(backup.now));
            backup.task = ended(Phase::Running, None);
        }
        BackupStep::Uploaded(artifact) => {
            status.phase = BackupPhase::Uploaded;
            status.artifact = Some((**artifact).clone());
            status.attempts = 0;
            backup.proof = Heard::Nothing;
        }
        BackupStep::Prove {
            member, attempt, ..
        } => {
            status.member = Some(member.clone());
            status.attempts = *attempt;
            backup.proof = Heard::State(VerifyState {
                phase: Phase::Running,
                problem: None,
            });
        }
        BackupStep::Verified(mode) => {
            status.phase = BackupPhase::Verified;
            status.verified_by = Some(*mode);
        }
        BackupStep::Fail(_) | BackupStep::Discard { .. } => status.phase = BackupPhase::Failed,
        _ => {}
    }
}

fn suffer(backup: &mut BackupView, chance: Chance) {
    let why = problem("StoreUnreachable");
    match chance {
        Chance::Goes | Chance::LosesStatusWrite => {}
        Chance::Restarts => (backup.task, backup.proof) = (Heard::Unknown, Heard::Unknown),
        Chance::Silent => {
            let since = backup.now - SignedDuration::from_secs(130);
            (backup.task, backup.proof) = (Heard::Silence(since), Heard::Silence(since));
        }
        Chance::Ends(well) => {
            let phase = if well {
                Phase::Succeeded
            } else {
                Phase::Failed
            };
            let problem = (!well).then_some(why);
            if matches!(backup.task, Heard::State(_)) {
                backup.task = ended(phase, problem.clone());
            }
            if matches!(backup.proof, Heard::State(_)) {
                backup.proof = Heard::State(VerifyState { phase, problem });
            }
        }
    }
}

proptest! {
    #[test]
    fn every_backup_ends_and_only_what_was_proved_is_verified(
        chances in prop::collection::vec(chance(), 0..60),
    ) {
        let cluster = cluster();
        let mut backup = backup();
        for chance in chances.into_iter().chain([Chance::Goes, Chance::Ends(true)].repeat(10)) {
            suffer(&mut backup, chance);
            let before = backup.status.clone();
            let step = backup_step(&backup, Some(&cluster));
            if before.phase == BackupPhase::Verified || before.phase == BackupPhase::Failed {
                prop_assert_eq!(&step, &BackupStep::Rest, "an end is final");
            }
            if let BackupStep::Verified(_) = step {
                let proved = matches!(&backup.proof, Heard::State(state)
                    if state.phase == Phase::Succeeded);
                prop_assert!(proved && before.artifact.is_some());
            }
            carry_out(&mut backup, &step);
            if matches!(chance, Chance::LosesStatusWrite) {
                // The operator died between the call and the write.
                backup.status = before;
            }
            prop_assert!(backup.status.attempts <= MAX_ATTEMPTS);
        }
        let phase = backup.status.phase;
        prop_assert!(phase == BackupPhase::Verified || phase == BackupPhase::Failed, "{:?}", phase);
    }
}
