//! When the schedule wants a backup: zones, clocks that change, jitter, deadlines, bad input.

use jiff::Timestamp;
use proptest::prelude::*;
use quorate_sidecar::wire::{Store, VerifyMode};

use super::{Due, next_run, run_name, verify_mode};
use crate::api::{BackupSettings, Retention, Verify};
use crate::model::Refusal;

fn settings(schedule: &str, zone: Option<&str>) -> BackupSettings {
    BackupSettings {
        schedule: Some(schedule.to_owned()),
        time_zone: zone.map(str::to_owned),
        suspend: false,
        jitter_seconds: 0,
        starting_deadline_seconds: None,
        store: Store::default(),
        retention: Retention::default(),
        verify: Verify::default(),
        reclaim: crate::api::Reclaim::Retain,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn ask(settings: &BackupSettings, last: &str, now: &str) -> Result<Due, Refusal> {
    next_run(settings, "uid", at(last), at(now))
}

#[test]
fn a_run_is_due_once_and_the_next_is_told() {
    let daily = settings("0 3 * * *", None);
    let due = ask(&daily, "2026-05-01T00:00:00Z", "2026-05-01T02:59:59Z").unwrap();
    assert_eq!(
        (due.run, due.next),
        (None, Some(at("2026-05-01T03:00:00Z")))
    );
    let due = ask(&daily, "2026-05-01T00:00:00Z", "2026-05-01T03:00:00Z").unwrap();
    assert_eq!(due.run, Some(at("2026-05-01T03:00:00Z")));
    assert_eq!(due.next, Some(at("2026-05-02T03:00:00Z")));
    let due = ask(&daily, "2026-05-01T03:00:00Z", "2026-05-01T03:00:30Z").unwrap();
    assert_eq!(due.run, None);
}

#[test]
fn of_many_that_were_missed_only_the_latest_runs_and_only_in_time() {
    let minutely = settings("* * * * *", None);
    let due = ask(&minutely, "2026-05-01T00:00:00Z", "2026-05-09T12:00:30Z").unwrap();
    assert_eq!(due.run, Some(at("2026-05-09T12:00:00Z")));
    let mut daily = settings("0 3 * * *", None);
    daily.starting_deadline_seconds = Some(60);
    let due = ask(&daily, "2026-05-01T00:00:00Z", "2026-05-01T03:01:00Z").unwrap();
    assert_eq!(due.run, Some(at("2026-05-01T03:00:00Z")));
    let due = ask(&daily, "2026-05-01T00:00:00Z", "2026-05-01T03:01:01Z").unwrap();
    assert_eq!(
        (due.run, due.missed),
        (None, Some(at("2026-05-01T03:00:00Z")))
    );
}

#[test]
fn a_suspended_or_absent_schedule_wants_nothing() {
    let mut suspended = settings("* * * * *", None);
    suspended.suspend = true;
    let none = Due::default();
    assert_eq!(
        ask(&suspended, "2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z").unwrap(),
        none
    );
    let by_hand = BackupSettings {
        schedule: None,
        ..settings("", None)
    };
    assert_eq!(
        ask(&by_hand, "2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z").unwrap(),
        none
    );
}

#[test]
fn a_time_that_the_clock_skips_runs_right_after_the_gap() {
    // Berlin goes from 02:00 to 03:00 on 2026-03-29.
    let berlin = settings("30 2 * * *", Some("Europe/Berlin"));
    let due = ask(&berlin, "2026-03-28T12:00:00Z", "2026-03-29T00:59:59Z").unwrap();
    assert_eq!(due.run, None);
    let next = due.next.unwrap();
    let around = (at("2026-03-29T01:00:00Z"), at("2026-03-29T01:30:00Z"));
    assert!(next >= around.0 && next <= around.1, "{next}");
    let due = ask(&berlin, "2026-03-28T12:00:00Z", "2026-03-29T02:00:00Z").unwrap();
    assert_eq!(due.run, Some(next), "what is promised is what runs");
    let due = next_run(&berlin, "uid", next, at("2026-03-29T12:00:00Z")).unwrap();
    assert_eq!((due.run, due.missed), (None, None), "once");
    assert_eq!(due.next, Some(at("2026-03-30T00:30:00Z")));
}

#[test]
fn a_time_that_the_clock_repeats_runs_once() {
    // Berlin goes from 03:00 back to 02:00 on 2026-10-25.
    let berlin = settings("30 2 * * *", Some("Europe/Berlin"));
    let mut last = at("2026-10-24T12:00:00Z");
    let mut runs = Vec::new();
    for minute in 0..180 {
        let now = at("2026-10-25T00:00:00Z") + jiff::SignedDuration::from_mins(minute);
        if let Some(run) = next_run(&berlin, "uid", last, now).unwrap().run {
            runs.push(run);
            last = run;
        }
    }
    assert_eq!(runs.len(), 1, "{runs:?}");
}

#[test]
fn an_hourly_schedule_keeps_its_pace_through_both_changes() {
    let hourly = settings("@hourly", Some("Europe/Berlin"));
    for day in ["2026-03-29", "2026-10-25"] {
        let mut last = at(&format!("{day}T00:00:00Z"));
        for hour in 1..6 {
            let now = at(&format!("{day}T0{hour}:00:00Z"));
            let due = next_run(&hourly, "uid", last, now).unwrap();
            assert_eq!(due.run, Some(now), "{day}");
            last = now;
        }
    }
}

#[test]
fn a_zone_moves_the_time() {
    let tokyo = settings("0 3 * * *", Some("Asia/Tokyo"));
    let due = ask(&tokyo, "2026-05-01T12:00:00Z", "2026-05-01T18:00:00Z").unwrap();
    assert_eq!(due.run, Some(at("2026-05-01T18:00:00Z")));
}

#[test]
fn the_jitter_is_a_clusters_own_and_stays() {
    let mut daily = settings("0 3 * * *", None);
    daily.jitter_seconds = 600;
    let (last, now) = (at("2026-05-01T00:00:00Z"), at("2026-05-01T01:00:00Z"));
    let begins = |uid: &str| next_run(&daily, uid, last, now).unwrap().next.unwrap();
    let all: std::collections::BTreeSet<_> = (0..50).map(|n| begins(&format!("uid-{n}"))).collect();
    assert!(all.len() > 30, "clusters begin together: {}", all.len());
    let (first, end) = (at("2026-05-01T03:00:00Z"), at("2026-05-01T03:10:00Z"));
    assert!(all.iter().all(|at| *at >= first && *at <= end));
    let own = begins("uid-1");
    assert_eq!(own, begins("uid-1"));
    let second = jiff::SignedDuration::from_secs(1);
    assert_eq!(
        next_run(&daily, "uid-1", last, own - second).unwrap().run,
        None
    );
    assert_eq!(
        next_run(&daily, "uid-1", last, own).unwrap().run,
        Some(first)
    );
}

#[test]
fn bad_schedules_are_told_what_would_be_right() {
    let now = "2026-05-01T00:00:00Z";
    for (schedule, zone, says) in [
        ("0 0 3 * * *", None, "`0 3 * * *`"),
        ("0 3 * *", None, "4 fields; it takes five"),
        ("", None, "0 fields"),
        ("61 3 * * *", None, "minute (0-59)"),
        ("0 25 * * *", None, "hour (0-23)"),
        ("a b c d e", None, "minute (0-59)"),
        ("@never", None, "@daily"),
        ("0 0 30 2 *", None, "never comes"),
        ("0 3 * * *", Some("Europe/Berlni"), "IANA"),
    ] {
        let refusal = ask(&settings(schedule, zone), now, now).unwrap_err();
        assert_eq!(refusal.reason, "InvalidSchedule");
        assert!(
            refusal.message.contains(says),
            "{schedule}: {}",
            refusal.message
        );
    }
}

#[test]
fn names_and_proofs_follow_the_runs() {
    assert_eq!(
        run_name("prod", at("2026-05-01T03:00:00Z")),
        "prod-20260501-030000"
    );
    let mut settings = settings("@daily", None);
    settings.verify.test_restore_every = 3;
    let modes: Vec<_> = (0..6).map(|made| verify_mode(&settings, made)).collect();
    let (hash, restore) = (VerifyMode::Hash, VerifyMode::TestRestore);
    assert_eq!(modes, [hash, hash, restore, hash, hash, restore]);
    settings.verify.test_restore_every = 0;
    assert!((0..20).all(|made| verify_mode(&settings, made) == hash));
}

proptest! {
    #[test]
    fn nothing_runs_twice_or_early(
        minute in 0u8..60,
        hour in 0u8..24,
        jitter in 0i64..3600,
        looks in prop::collection::vec(1i64..200_000, 1..60),
    ) {
        let mut settings = settings(&format!("{minute} {hour} * * *"), Some("America/New_York"));
        settings.jitter_seconds = jitter;
        settings.starting_deadline_seconds = Some(86_400);
        let mut now = at("2026-02-01T00:00:00Z");
        let mut last = now;
        for pause in looks {
            now += jiff::SignedDuration::from_secs(pause);
            let due = next_run(&settings, "uid", last, now).unwrap();
            prop_assert!(due.next.unwrap() > now);
            if let Some(run) = due.run {
                prop_assert!(run > last && run <= now);
                last = run;
            }
        }
    }
}
