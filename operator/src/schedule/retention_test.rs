//! Which backups stay: by examples, and whatever the list is.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{Kept, retention};
use crate::api::{BackupPhase, Retention};

fn now() -> Timestamp {
    "2026-05-01T00:00:00Z".parse().unwrap()
}

fn backup(phase: BackupPhase, hours_ago: i64) -> Kept {
    Kept {
        name: format!("{phase:?}-{hours_ago}"),
        phase,
        created: now() - SignedDuration::from_hours(hours_ago),
    }
}

fn settings(keep_last: Option<i64>, max_age_hours: Option<i64>) -> Retention {
    Retention {
        keep_last,
        max_age_hours,
    }
}

#[test]
fn the_oldest_beyond_the_number_go() {
    let all: Vec<_> = (1..=5)
        .map(|hours| backup(BackupPhase::Verified, hours))
        .collect();
    let gone = retention(&all, &settings(Some(3), None), now());
    assert_eq!(gone, ["Verified-5", "Verified-4"]);
}

#[test]
fn the_old_go_but_never_the_last_proved() {
    let all = [
        backup(BackupPhase::Verified, 50),
        backup(BackupPhase::Verified, 40),
    ];
    let gone = retention(&all, &settings(None, Some(24)), now());
    assert_eq!(gone, ["Verified-50"]);
}

#[test]
fn a_newer_one_that_is_not_proved_pushes_nothing_out() {
    let all = [
        backup(BackupPhase::Verified, 9),
        backup(BackupPhase::Uploaded, 1),
        backup(BackupPhase::Failed, 2),
    ];
    assert!(retention(&all, &settings(Some(1), Some(1)), now()).is_empty());
}

#[test]
fn failures_are_bounded_whatever_the_settings() {
    let all: Vec<_> = (1..=6)
        .map(|hours| backup(BackupPhase::Failed, hours))
        .collect();
    let gone = retention(&all, &Retention::default(), now());
    assert_eq!(gone, ["Failed-6", "Failed-5", "Failed-4"]);
}

fn phase() -> impl Strategy<Value = BackupPhase> {
    prop_oneof![
        Just(BackupPhase::Pending),
        Just(BackupPhase::Running),
        Just(BackupPhase::Uploaded),
        Just(BackupPhase::Verified),
        Just(BackupPhase::Failed),
    ]
}

proptest! {
    #[test]
    fn what_must_stay_stays(
        list in prop::collection::vec((phase(), 0i64..2000), 0..40),
        keep_last in prop::option::of(1i64..10),
        max_age_hours in prop::option::of(1i64..1000),
    ) {
        let all: Vec<_> = list.iter().enumerate().map(|(number, (phase, hours))| Kept {
            name: format!("b{number}"),
            ..backup(*phase, *hours)
        }).collect();
        let gone = retention(&all, &settings(keep_last, max_age_hours), now());
        let goes = |backup: &&Kept| gone.contains(&backup.name);
        let of = |phase| all.iter().filter(move |backup: &&Kept| backup.phase == phase);
        for running in [BackupPhase::Pending, BackupPhase::Running, BackupPhase::Uploaded] {
            prop_assert_eq!(of(running).filter(goes).count(), 0);
        }
        let verified = of(BackupPhase::Verified);
        let newest = verified.clone().map(|backup| backup.created).max();
        let kept: Vec<_> = verified.clone().filter(|backup| !goes(backup)).collect();
        prop_assert!(newest.is_none() || kept.iter().any(|b| Some(b.created) == newest));
        if let Some(most) = keep_last {
            prop_assert!(kept.len() as i64 <= most);
        }
        if let Some(most) = max_age_hours {
            let limit = SignedDuration::from_hours(most);
            let old = kept.iter().filter(|b| now().duration_since(b.created) > limit);
            prop_assert!(old.count() <= 1);
        }
        // None goes before an older one that is as good.
        for gone in verified.clone().filter(goes) {
            prop_assert!(kept.iter().all(|kept| kept.created >= gone.created));
        }
        prop_assert!(of(BackupPhase::Failed).filter(|b| !goes(b)).count() <= 3);
    }
}
