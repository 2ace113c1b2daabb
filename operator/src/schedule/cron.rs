//! When the schedule wants a backup.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use quorate_sidecar::wire::VerifyMode;
use sha2::{Digest as _, Sha256};

use crate::api::BackupSettings;
use crate::model::Refusal;

/// How many seconds late a run may begin where the spec does not say.
const DEADLINE_SECONDS: i64 = 3600;

/// What the schedule wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// The time of the schedule whose run is to begin now. To be latched as the last one.
    pub run: Option<Timestamp>,
    /// The time of the schedule whose run was left out, since it could not begin in time.
    pub missed: Option<Timestamp>,
    /// When to ask again.
    pub next: Option<Timestamp>,
}

/// What the schedule wants at `now`.
///
/// `last` is the time of the schedule of the last run, or when the cluster was made. However many
/// runs were missed since, at most the latest begins, and only within the starting deadline. Each
/// time is put off by the cluster's own share of the jitter, which `uid` decides. A clock that
/// goes forward over a time runs it right after the gap; one that goes back runs it once.
///
/// # Errors
/// The schedule or the time zone is invalid; the refusal says what would be right.
pub fn next_run(
    settings: &BackupSettings,
    uid: &str,
    last: Timestamp,
    now: Timestamp,
) -> Result<Due, Refusal> {
    let Some(schedule) = settings.schedule.as_deref() else {
        return Ok(Due::default());
    };
    let (cron, zone) = parse(schedule, settings.time_zone.as_deref())?;
    if settings.suspend {
        return Ok(Due::default());
    }
    let jitter = jitter(uid, settings.jitter_seconds);
    // The schedule's own clock, on which runs begin without delay.
    let clock = now - jitter;
    let zoned = clock.to_zoned(zone);
    let next = next(&cron, &zoned, schedule)? + jitter;
    let latest = cron.find_previous_occurrence(&zoned, true).ok();
    let latest = latest
        .map(|zoned| zoned.timestamp())
        .filter(|latest| *latest > last);
    let deadline = settings
        .starting_deadline_seconds
        .unwrap_or(DEADLINE_SECONDS);
    let in_time = |at: &Timestamp| clock.duration_since(*at) <= SignedDuration::from_secs(deadline);
    Ok(Due {
        run: latest.filter(in_time),
        missed: latest.filter(|at| !in_time(at)),
        next: Some(next),
    })
}

/// Whether the schedule and its time zone can be read.
///
/// # Errors
/// They cannot; the refusal says what would be right.
pub fn check(settings: &BackupSettings, now: Timestamp) -> Result<(), Refusal> {
    next_run(settings, "", now, now).map(drop)
}

/// The name of the `QuorateBackup` of a run: the same however often it is made.
#[must_use]
pub fn run_name(cluster: &str, run: Timestamp) -> String {
    let time = run
        .to_zoned(TimeZone::UTC)
        .strftime("%Y%m%d-%H%M%S")
        .to_string();
    format!("{cluster}-{time}")
}

/// How the backup is proved that the schedule makes after `made` others.
#[must_use]
pub fn verify_mode(settings: &BackupSettings, made: i64) -> VerifyMode {
    let every = settings.verify.test_restore_every;
    if every > 0 && (made + 1) % every == 0 {
        VerifyMode::TestRestore
    } else {
        settings.verify.mode
    }
}

fn parse(schedule: &str, zone: Option<&str>) -> Result<(Cron, TimeZone), Refusal> {
    let words = schedule.split_whitespace().count();
    let nickname = schedule.trim_start().starts_with('@');
    if !nickname && words != 5 {
        let example = match words {
            // Most who write six mean seconds first.
            6 => schedule
                .split_whitespace()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" "),
            _ => "0 3 * * *".to_owned(),
        };
        return Err(invalid(format!(
            "spec.backup.schedule `{schedule}` has {words} fields; it takes five: minute, hour, \
             day of month, month, day of week, such as `{example}`"
        )));
    }
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    let cron = parser.parse(schedule).map_err(|error| {
        invalid(format!(
            "spec.backup.schedule `{schedule}` is no schedule ({error}); it takes minute (0-59), \
             hour (0-23), day of month (1-31), month (1-12), day of week (0-6, 0 is Sunday), such \
             as `0 3 * * *`, or @hourly, @daily, @weekly or @monthly"
        ))
    })?;
    let zone = match zone {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name).map_err(|_| {
            invalid(format!(
                "spec.backup.timeZone `{name}` is no time zone of the IANA database, such as \
                 `Europe/Berlin` or `UTC`"
            ))
        })?,
    };
    Ok((cron, zone))
}

fn next(cron: &Cron, after: &Zoned, schedule: &str) -> Result<Timestamp, Refusal> {
    let next = cron.find_next_occurrence(after, false);
    next.map(|zoned| zoned.timestamp()).map_err(|_| {
        invalid(format!(
            "spec.backup.schedule `{schedule}` never comes: there is no such day in any month"
        ))
    })
}

fn invalid(message: String) -> Refusal {
    Refusal {
        reason: "InvalidSchedule".to_owned(),
        message,
    }
}

/// The cluster's own share of the jitter: always the same, and even among clusters.
fn jitter(uid: &str, most: i64) -> SignedDuration {
    let digest = Sha256::digest(uid.as_bytes());
    let number = digest
        .iter()
        .take(8)
        .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    let span = u64::try_from(most).unwrap_or(0).saturating_add(1);
    SignedDuration::from_secs(i64::try_from(number % span).unwrap_or(0))
}
