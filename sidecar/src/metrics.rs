//! What a Prometheus may ask of a sidecar: backups, verifications, the disk, the member.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use quorate_sidecar::wire::{Artifact, VerifyMode};

use crate::failure::Failure;

const PREFIX: &str = "quorate_sidecar";
/// From what a small store takes to what a large one does, in seconds.
const DURATIONS: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];

type Labels = Vec<(&'static str, &'static str)>;
type Seconds = Gauge<f64, AtomicU64>;

/// All metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    backups: Family<Labels, Counter>,
    backup_durations: Histogram,
    backup_success: Seconds,
    backup_object_bytes: Gauge,
    backup_snapshot_bytes: Gauge,
    backup_bytes: Counter,
    verifications: Family<Labels, Counter>,
    verification_success: Family<Labels, Seconds>,
    disk_bytes: Gauge,
    disk_free_bytes: Gauge,
    serving: Gauge,
    data_dir: PathBuf,
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    pub bytes: u64,
    pub free_bytes: u64,
}

impl Metrics {
    /// Metrics of the member with this data directory.
    pub fn new(data_dir: PathBuf) -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            backups: Family::default(),
            backup_durations: Histogram::new(DURATIONS),
            backup_success: Gauge::default(),
            backup_object_bytes: Gauge::default(),
            backup_snapshot_bytes: Gauge::default(),
            backup_bytes: Counter::default(),
            verifications: Family::default(),
            verification_success: Family::default(),
            disk_bytes: Gauge::default(),
            disk_free_bytes: Gauge::default(),
            serving: Gauge::default(),
            data_dir,
        };
        let mut registry = Registry::with_prefix(PREFIX);
        metrics.register_backups(&mut registry);
        metrics.register_others(&mut registry);
        metrics.registry = Arc::new(registry);
        metrics
    }

    fn register_backups(&self, registry: &mut Registry) {
        registry.register(
            "backups",
            "Backups that ended, by outcome: Succeeded or the reason of the failure",
            self.backups.clone(),
        );
        registry.register_with_unit(
            "backup_duration",
            "How long backups took that succeeded",
            Unit::Seconds,
            self.backup_durations.clone(),
        );
        registry.register_with_unit(
            "backup_last_success_timestamp",
            "When the last backup of this sidecar was whole, as Unix time; 0 for none",
            Unit::Seconds,
            self.backup_success.clone(),
        );
        registry.register_with_unit(
            "backup_last_object",
            "Size of the last backup's object",
            Unit::Bytes,
            self.backup_object_bytes.clone(),
        );
        registry.register_with_unit(
            "backup_last_snapshot",
            "Size of the last backup's snapshot before compression",
            Unit::Bytes,
            self.backup_snapshot_bytes.clone(),
        );
        registry.register_with_unit(
            "backup_stored",
            "Size of all objects of backups that were stored",
            Unit::Bytes,
            self.backup_bytes.clone(),
        );
    }

    fn register_others(&self, registry: &mut Registry) {
        registry.register(
            "verifications",
            "Verifications that ended, by mode and outcome",
            self.verifications.clone(),
        );
        registry.register_with_unit(
            "verification_last_success_timestamp",
            "When a backup was last proved, as Unix time, by mode",
            Unit::Seconds,
            self.verification_success.clone(),
        );
        registry.register_with_unit(
            "disk",
            "Size of the file system of the data directory",
            Unit::Bytes,
            self.disk_bytes.clone(),
        );
        registry.register_with_unit(
            "disk_free",
            "What the member may still write to it",
            Unit::Bytes,
            self.disk_free_bytes.clone(),
        );
        registry.register(
            "member_serving",
            "Whether the member answered when the operator last asked",
            self.serving.clone(),
        );
    }

    /// A backup was taken, or was not.
    pub fn backup_ended(&self, taken: &Result<Artifact, Failure>, took: Duration) {
        let outcome = outcome(taken.as_ref().map(drop));
        self.backups.get_or_create(&vec![outcome]).inc();
        if let Ok(artifact) = taken {
            self.backup_durations.observe(took.as_secs_f64());
            self.backup_success.set(now());
            self.backup_object_bytes.set(artifact.size_bytes);
            self.backup_snapshot_bytes.set(artifact.snapshot_bytes);
            let size = u64::try_from(artifact.size_bytes).unwrap_or(0);
            self.backup_bytes.inc_by(size);
        }
    }

    /// A backup was proved, or was not.
    pub fn verification_ended(&self, mode: VerifyMode, ended: Result<(), &Failure>) {
        let mode = match mode {
            VerifyMode::Hash => ("mode", "Hash"),
            VerifyMode::TestRestore => ("mode", "TestRestore"),
        };
        let outcome = outcome(ended);
        self.verifications.get_or_create(&vec![mode, outcome]).inc();
        if ended.is_ok() {
            let success = self.verification_success.get_or_create(&vec![mode]);
            success.set(now());
        }
    }

    /// Whether the member answered.
    pub fn set_serving(&self, serving: bool) {
        self.serving.set(i64::from(serving));
    }

    /// The file system of the data directory, or of where it will be.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn disk(&self) -> Result<Disk, Failure> {
        let mut path = self.data_dir.as_path();
        while !path.exists() {
            match path.parent() {
                Some(parent) => path = parent,
                None => break,
            }
        }
        let found = rustix::fs::statvfs(path);
        let found = found.map_err(|error| Failure::disk(path.display(), &error.into()))?;
        let disk = Disk {
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        };
        self.disk_bytes
            .set(i64::try_from(disk.bytes).unwrap_or(i64::MAX));
        self.disk_free_bytes
            .set(i64::try_from(disk.free_bytes).unwrap_or(i64::MAX));
        Ok(disk)
    }

    /// All of them in OpenMetrics' text.
    ///
    /// # Errors
    /// The disk cannot be asked.
    pub fn exposition(&self) -> Result<String, Failure> {
        self.disk()?;
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(text)
    }
}

fn outcome(ended: Result<(), &Failure>) -> (&'static str, &'static str) {
    match ended {
        Ok(()) => ("outcome", "Succeeded"),
        Err(failure) => ("outcome", failure.reason.word()),
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
