//! The registry of all metrics.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::api::calls::Calls;
use crate::api::health::HealthMetrics;
use crate::api::http::Exposition;
use crate::config::Config;
use crate::config::help::{ETCD_VERSION, VERSION};
use crate::replica::Replica;
use crate::storage::log::Flush;
use crate::telemetry::exposition;
use crate::telemetry::node::{Node, NodeFacts};
use crate::telemetry::process::Process;
use crate::telemetry::tally::Counted;

/// etcd: server/storage/wal/metrics.go: from a millisecond, doubled thirteen times.
const FSYNC_SECONDS_FIRST: f64 = 0.001;
const FSYNC_SECONDS_BUCKETS: u16 = 14;

/// The metrics that a floor writes, as opposed to those that are read from it.
pub struct Metrics {
    pub calls: Arc<Calls>,
    pub health: HealthMetrics,
    fsync_seconds: Histogram,
    written_bytes: Counter,
}

impl Metrics {
    pub fn new(config: &Config) -> Self {
        let buckets = exponential_buckets(FSYNC_SECONDS_FIRST, 2.0, FSYNC_SECONDS_BUCKETS);
        Self {
            calls: Calls::new(config.metrics_extensive),
            health: HealthMetrics::default(),
            fsync_seconds: Histogram::new(buckets),
            written_bytes: Counter::default(),
        }
    }

    /// Hears of each sync of the log.
    pub fn log_observer(&self) -> Box<dyn Fn(Flush) + Send + Sync> {
        let (seconds, bytes) = (self.fsync_seconds.clone(), self.written_bytes.clone());
        Box::new(move |flush| {
            seconds.observe(flush.sync.as_secs_f64());
            bytes.inc_by(flush.bytes);
        })
    }

    /// Everything, ready to be written.
    pub fn exposition(&self, config: &Config, replica: &Arc<Replica>) -> Exposition {
        let mut registry = Registry::default();
        let facts = NodeFacts {
            version: ETCD_VERSION,
            cluster_version: "3.7",
            own_version: VERSION,
            quota_bytes: config.limits.quota_bytes,
            features: [
                ("CompactHashCheck", config.checks.compacted.is_some()),
                ("InitialCorruptCheck", config.checks.initial),
            ],
        };
        registry.register_collector(Box::new(Node::new(Arc::clone(replica), facts)));
        registry.register_collector(Box::new(Counted::new(Arc::clone(replica))));
        registry.register_collector(Box::new(Arc::clone(&self.calls)));
        registry.register_collector(Box::new(Process));
        registry.register(
            "etcd_disk_wal_fsync_duration_seconds",
            "The latency distributions of fsync called by WAL",
            self.fsync_seconds.clone(),
        );
        registry.register(
            "etcd_disk_wal_write_bytes",
            "Total number of bytes written in WAL",
            self.written_bytes.clone(),
        );
        self.health.register(&mut registry);
        Arc::new(move || (exposition::text(&registry), exposition::CONTENT_TYPE))
    }
}
