//! The two dashboards: of one cluster, and of the operator.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::panels::{Panel, dashboard, panel};
use super::{scraped, told};
use crate::objects::Names;

/// The dashboard of a cluster.
pub fn of_cluster(names: &Names) -> Value {
    let (members, operator) = (scraped(names), told(names));
    let title = format!("Quorate / {}/{}", names.namespace, names.cluster);
    let digest = Sha256::digest(title.as_bytes());
    let digits: String = digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut panels = health(&members, &operator);
    panels.extend(traffic(&members));
    panels.extend(storage(&members));
    panels.extend(backups(&members, &operator));
    dashboard(&format!("quorate-{digits}"), &title, &[], panels)
}

fn health(s: &str, operator: &str) -> Vec<Panel> {
    vec![
        Panel {
            title: "Members",
            unit: "short",
            lines: vec![
                (format!("sum(up{{{s},endpoint=\"metrics\"}})"), "up"),
                (
                    format!("max(quorate_operator_cluster_members{{{operator}}})"),
                    "there",
                ),
                (
                    format!("max(quorate_operator_cluster_ready_members{{{operator}}})"),
                    "ready",
                ),
            ],
        },
        panel(
            "Leader",
            "short",
            format!("etcd_server_is_leader{{{s}}}"),
            "{{pod}}",
        ),
        panel(
            "Leader changes in 15 minutes",
            "short",
            format!("increase(etcd_server_leader_changes_seen_total{{{s}}}[15m])"),
            "{{pod}}",
        ),
        Panel {
            title: "Proposals",
            unit: "ops",
            lines: vec![
                (
                    format!("rate(etcd_server_proposals_committed_total{{{s}}}[5m])"),
                    "{{pod}} committed",
                ),
                (
                    format!("rate(etcd_server_proposals_failed_total{{{s}}}[5m])"),
                    "{{pod}} failed",
                ),
            ],
        },
    ]
}

fn traffic(s: &str) -> Vec<Panel> {
    vec![
        panel(
            "Requests",
            "ops",
            format!("sum by (grpc_method) (rate(grpc_server_handled_total{{{s}}}[5m]))"),
            "{{grpc_method}}",
        ),
        panel(
            "Requests that failed",
            "ops",
            format!(
                "sum by (grpc_code) (rate(grpc_server_handled_total{{{s},grpc_code!=\"OK\"}}[5m]))"
            ),
            "{{grpc_code}}",
        ),
        panel(
            "Round trip between members, 99th percentile",
            "s",
            format!(
                "histogram_quantile(0.99, \
                 rate(etcd_network_peer_round_trip_time_seconds_bucket{{{s}}}[5m]))"
            ),
            "{{pod}} to {{To}}",
        ),
        Panel {
            title: "Client traffic",
            unit: "Bps",
            lines: vec![
                (
                    format!("rate(etcd_network_client_grpc_received_bytes_total{{{s}}}[5m])"),
                    "{{pod}} received",
                ),
                (
                    format!("rate(etcd_network_client_grpc_sent_bytes_total{{{s}}}[5m])"),
                    "{{pod}} sent",
                ),
            ],
        },
    ]
}

fn storage(s: &str) -> Vec<Panel> {
    let quantile = |metric: &str| format!("histogram_quantile(0.99, rate({metric}{{{s}}}[5m]))");
    vec![
        Panel {
            title: "Store",
            unit: "bytes",
            lines: vec![
                (
                    format!("etcd_mvcc_db_total_size_in_bytes{{{s}}}"),
                    "{{pod}} size",
                ),
                (
                    format!("etcd_mvcc_db_total_size_in_use_in_bytes{{{s}}}"),
                    "{{pod}} in use",
                ),
                (
                    format!("min(etcd_server_quota_backend_bytes{{{s}}})"),
                    "quota",
                ),
            ],
        },
        panel(
            "Free on the volume",
            "bytes",
            format!("quorate_sidecar_disk_free_bytes{{{s}}}"),
            "{{pod}}",
        ),
        panel(
            "fsync of the log, 99th percentile",
            "s",
            quantile("etcd_disk_wal_fsync_duration_seconds_bucket"),
            "{{pod}}",
        ),
        panel(
            "Commit, 99th percentile",
            "s",
            quantile("etcd_disk_backend_commit_duration_seconds_bucket"),
            "{{pod}}",
        ),
        panel(
            "Memory",
            "bytes",
            format!("process_resident_memory_bytes{{{s}}}"),
            "{{pod}} {{endpoint}}",
        ),
        panel(
            "CPU",
            "short",
            format!("rate(process_cpu_seconds_total{{{s}}}[5m])"),
            "{{pod}} {{endpoint}}",
        ),
    ]
}

fn backups(s: &str, operator: &str) -> Vec<Panel> {
    vec![
        Panel {
            title: "Age of the last backup",
            unit: "s",
            lines: vec![
                (age("last_backup", operator), "whole"),
                (age("last_verified_backup", operator), "proved"),
            ],
        },
        panel(
            "Size of the last backup",
            "bytes",
            format!("quorate_sidecar_backup_last_object_bytes{{{s}}} > 0"),
            "{{pod}}",
        ),
        panel(
            "Time until the first certificate ends",
            "s",
            format!(
                "min(quorate_operator_cluster_certificate_expiry_timestamp_seconds{{{operator}}}) \
                 - time()"
            ),
            "left",
        ),
        panel(
            "Conditions",
            "short",
            format!("max by (condition) (quorate_operator_cluster_condition{{{operator}}})"),
            "{{condition}}",
        ),
    ]
}

/// A time of 0 is none.
fn age(what: &str, selector: &str) -> String {
    format!("time() - max(quorate_operator_cluster_{what}_timestamp_seconds{{{selector}}} > 0)")
}

/// The dashboard of the operator.
#[must_use]
pub fn operator_dashboard() -> Value {
    let namespace = json!({
        "name": "namespace", "type": "query", "label": "Namespace", "includeAll": true,
        "multi": true, "refresh": 2,
        "datasource": { "type": "prometheus", "uid": "${datasource}" },
        "query": "label_values(quorate_operator_cluster_members, namespace)",
    });
    let s = "namespace=~\"$namespace\"";
    let by_condition = |condition: &str, value: u8| {
        format!(
            "count(quorate_operator_cluster_condition{{{s},condition=\"{condition}\"}} == {value}) \
             or vector(0)"
        )
    };
    let panels = vec![
        panel(
            "Replica that works",
            "short",
            "quorate_operator_leader".to_owned(),
            "{{pod}}",
        ),
        panel(
            "Clusters",
            "short",
            format!("count(quorate_operator_cluster_members{{{s}}})"),
            "clusters",
        ),
        Panel {
            title: "Clusters that need someone",
            unit: "short",
            lines: vec![
                (by_condition("Stalled", 1), "stalled"),
                (by_condition("Ready", 0), "not ready"),
                (by_condition("Converged", 0), "not converged"),
            ],
        },
        panel(
            "Oldest last proved backup",
            "s",
            format!(
                "time() - min(quorate_operator_cluster_last_verified_backup_timestamp_seconds\
                 {{{s}}} > 0)"
            ),
            "age",
        ),
        panel(
            "First certificate to end",
            "s",
            format!(
                "min by (namespace, cluster) \
                 (quorate_operator_cluster_certificate_expiry_timestamp_seconds{{{s}}}) - time()"
            ),
            "{{namespace}}/{{cluster}}",
        ),
    ];
    let panels = panels.into_iter().chain(work());
    dashboard(
        "quorate-operator",
        "Quorate / Operator",
        &[namespace],
        panels.collect(),
    )
}

/// What the operator itself does.
fn work() -> Vec<Panel> {
    vec![
        panel(
            "Passes",
            "ops",
            "sum by (kind, outcome) (rate(quorate_operator_reconcile_total[5m]))".to_owned(),
            "{{kind}} {{outcome}}",
        ),
        panel(
            "Pass, 99th percentile",
            "s",
            "histogram_quantile(0.99, sum by (le, kind) \
             (rate(quorate_operator_reconcile_seconds_bucket[5m])))"
                .to_owned(),
            "{{kind}}",
        ),
        panel(
            "Actions",
            "ops",
            "sum by (action, outcome) (rate(quorate_operator_actions_total[5m]))".to_owned(),
            "{{action}} {{outcome}}",
        ),
    ]
}
