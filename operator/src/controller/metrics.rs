//! The operator's own metrics.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::api::ConditionType;

/// The kind of object that a pass was about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassLabels {
    kind: &'static str,
    outcome: &'static str,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabels {
    namespace: String,
    cluster: String,
}

/// A condition of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    namespace: String,
    cluster: String,
    condition: String,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: String,
    outcome: &'static str,
}

type Seconds = Family<PassLabels, Histogram, fn() -> Histogram>;

/// The operator's own metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    passes: Family<PassLabels, Counter>,
    seconds: Seconds,
    actions: Family<ActionLabels, Counter>,
    conditions: Family<ConditionLabels, Gauge>,
    members: Family<ClusterLabels, Gauge>,
    ready_members: Family<ClusterLabels, Gauge>,
    last_backup: Family<ClusterLabels, Gauge>,
    last_verified_backup: Family<ClusterLabels, Gauge>,
    certificate_expiry: Family<ClusterLabels, Gauge>,
    leader: Gauge,
}

/// What a cluster's gauges show.
#[derive(Debug, Clone, Default)]
pub struct ClusterFigures {
    /// Conditions and whether they are True.
    pub conditions: Vec<(String, bool)>,
    /// Members there are.
    pub members: i64,
    /// Members that are ready.
    pub ready_members: i64,
    /// Unix time of the last backup, 0 when there is none.
    pub last_backup: i64,
    /// Unix time of the last verified backup, 0 when there is none.
    pub last_verified_backup: i64,
    /// Unix time at which the first certificate ends, if the operator knows it.
    pub certificate_expiry: Option<i64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("quorate_operator");
        Self {
            passes: registered(&mut registry, "reconcile", "Passes, by kind and outcome"),
            seconds: {
                let seconds = Seconds::new_with_constructor(buckets);
                registry.register("reconcile_seconds", "How long passes take", seconds.clone());
                seconds
            },
            actions: registered(&mut registry, "actions", "Actions, by outcome"),
            conditions: registered(
                &mut registry,
                "cluster_condition",
                "1 when a condition of a cluster is True",
            ),
            members: registered(&mut registry, "cluster_members", "Members of a cluster"),
            ready_members: registered(
                &mut registry,
                "cluster_ready_members",
                "Members of a cluster that are ready",
            ),
            last_backup: registered(
                &mut registry,
                "cluster_last_backup_timestamp_seconds",
                "When a cluster's last backup was whole",
            ),
            last_verified_backup: registered(
                &mut registry,
                "cluster_last_verified_backup_timestamp_seconds",
                "When a cluster's last verified backup was whole",
            ),
            certificate_expiry: registered(
                &mut registry,
                "cluster_certificate_expiry_timestamp_seconds",
                "When the first certificate of a cluster ends",
            ),
            leader: registered(
                &mut registry,
                "leader",
                "1 in the replica that works, 0 in those that wait",
            ),
            registry,
        }
    }
}

fn registered<M: prometheus_client::registry::Metric + Clone + Default>(
    registry: &mut Registry,
    name: &str,
    help: &str,
) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 14))
}

impl Metrics {
    /// Counts a pass over one object.
    pub fn pass(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        let labels = PassLabels { kind, outcome };
        self.passes.get_or_create(&labels).inc();
        self.seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Counts an action.
    pub fn action(&self, action: &str, outcome: &'static str) {
        let action = action.to_owned();
        self.actions
            .get_or_create(&ActionLabels { action, outcome })
            .inc();
    }

    /// Sets what is known of a cluster.
    pub fn cluster(&self, namespace: &str, cluster: &str, figures: &ClusterFigures) {
        for (condition, holds) in &figures.conditions {
            let labels = ConditionLabels {
                namespace: namespace.to_owned(),
                cluster: cluster.to_owned(),
                condition: condition.clone(),
            };
            self.conditions
                .get_or_create(&labels)
                .set(i64::from(*holds));
        }
        let labels = ClusterLabels {
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
        };
        self.members.get_or_create(&labels).set(figures.members);
        self.ready_members
            .get_or_create(&labels)
            .set(figures.ready_members);
        self.last_backup
            .get_or_create(&labels)
            .set(figures.last_backup);
        let verified = self.last_verified_backup.get_or_create(&labels);
        verified.set(figures.last_verified_backup);
        drop(verified);
        if let Some(expiry) = figures.certificate_expiry {
            self.certificate_expiry.get_or_create(&labels).set(expiry);
        }
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, namespace: &str, cluster: &str) {
        let labels = ClusterLabels {
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
        };
        for family in [
            &self.members,
            &self.ready_members,
            &self.last_backup,
            &self.last_verified_backup,
            &self.certificate_expiry,
        ] {
            family.remove(&labels);
        }
        for condition in ConditionType::ALL {
            self.conditions.remove(&ConditionLabels {
                namespace: namespace.to_owned(),
                cluster: cluster.to_owned(),
                condition: condition.name(),
            });
        }
    }

    /// Whether this replica works.
    pub fn lead(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All of them, in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail; what could not be written would be missing below.
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }
}
