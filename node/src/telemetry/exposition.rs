//! Metrics as text. The registry writes OpenMetrics; etcd writes Prometheus' older text form, and
//! dashboards and scripts know that one: counters without `_total` exist in it, and `# TYPE` names
//! a counter in full.

use prometheus_client::registry::Registry;

/// Counters whose names do not end in `_total` in etcd.
const BARE_COUNTERS: &[&str] = &[
    "etcd_server_health_success",
    "etcd_server_health_failures",
    "etcd_server_learner_promote_successes",
    "etcd_server_learner_promote_failures",
    "etcd_network_snapshot_send_success",
    "etcd_network_snapshot_send_failures",
];

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics in Prometheus' text form.
pub fn text(registry: &Registry) -> String {
    let mut open_metrics = String::new();
    prometheus_client::encoding::text::encode(&mut open_metrics, registry)
        .expect("a String takes all");
    convert(&open_metrics)
}

/// Turns OpenMetrics text into Prometheus' older form.
fn convert(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // OpenMetrics puts the help before the type, which tells how the name is written.
    let mut help: Option<(&str, &str)> = None;
    let mut bare: Option<&str> = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let is_bare = BARE_COUNTERS.contains(&name);
            bare = is_bare.then_some(name);
            let total = if kind == "counter" && !is_bare {
                "_total"
            } else {
                ""
            };
            let kind = if kind == "unknown" { "untyped" } else { kind };
            if let Some((_, help)) = help.take() {
                push(&mut text, &["# HELP ", name, total, " ", help]);
            }
            push(&mut text, &["# TYPE ", name, total, " ", kind]);
        } else if line.starts_with('#') {
            // Units and the end mark do not exist in the older form.
        } else if let Some(name) = bare
            && let Some(rest) = line.strip_prefix(name)
        {
            push(
                &mut text,
                &[name, rest.strip_prefix("_total").unwrap_or(rest)],
            );
        } else {
            push(&mut text, &[line]);
        }
    }
    text
}

fn push(text: &mut String, pieces: &[&str]) {
    for piece in pieces {
        text.push_str(piece);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;

    use super::*;

    #[test]
    fn names_and_types_are_those_of_the_older_form() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        counter.inc_by(3);
        registry.register("etcd_mvcc_put", "Puts", counter.clone());
        registry.register("etcd_server_health_success", "Health", counter);
        let gauge: Gauge = Gauge::default();
        gauge.set(1);
        registry.register("etcd_server_has_leader", "Leader", gauge);
        let histogram = Histogram::new([0.001, 0.002]);
        histogram.observe(0.0015);
        registry.register("etcd_disk_wal_fsync_duration_seconds", "Sync", histogram);
        let text = text(&registry);
        for line in [
            "# HELP etcd_mvcc_put_total Puts.",
            "# TYPE etcd_mvcc_put_total counter",
            "etcd_mvcc_put_total 3",
            "# TYPE etcd_server_health_success counter",
            "etcd_server_health_success 3",
            "# TYPE etcd_server_has_leader gauge",
            "etcd_server_has_leader 1",
            "# TYPE etcd_disk_wal_fsync_duration_seconds histogram",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 1",
            "etcd_disk_wal_fsync_duration_seconds_count 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("# EOF"));
    }
}
