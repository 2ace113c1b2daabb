//! The alerts of a cluster: those of etcd's mixin with their meaning, and ours.
//!
//! etcd: contrib/mixin/alerts/alerts.libsonnet.

use serde_json::{Value, json};

use super::{scraped, told};
use crate::api::QuorateCluster;
use crate::objects::Names;

/// Where each alert has its runbook.
const RUNBOOKS: &str = "https://github.com/quorate/quorate/blob/main/docs/operator.md";
/// A certificate that ends in so many hours was not renewed in time.
const EXPIRY_HOURS: i64 = 7 * 24;

/// One alert.
struct Alert {
    name: &'static str,
    expr: String,
    minutes: u32,
    severity: &'static str,
    summary: &'static str,
}

fn alert(
    name: &'static str,
    (minutes, severity): (u32, &'static str),
    summary: &'static str,
    expr: String,
) -> Alert {
    Alert {
        name,
        expr,
        minutes,
        severity,
        summary,
    }
}

/// The spec of the PrometheusRule.
pub fn rules(cluster: &QuorateCluster) -> Value {
    let names = Names::new(cluster);
    let (members, operator) = (scraped(&names), told(&names));
    let rule = |alert: Alert| {
        let anchor = alert.name.to_lowercase();
        json!({
            "alert": alert.name,
            "expr": alert.expr,
            "for": format!("{}m", alert.minutes),
            "labels": {
                "severity": alert.severity,
                "namespace": names.namespace,
                "quorate_cluster": names.cluster,
            },
            "annotations": {
                "summary": alert.summary,
                "description": format!(
                    "Cluster {}/{}: {} The value is {{{{ $value }}}}.",
                    names.namespace, names.cluster, alert.summary
                ),
                "runbook_url": format!("{RUNBOOKS}#{anchor}"),
            },
        })
    };
    let group = |name: &str, alerts: Vec<Alert>| {
        let rules: Vec<Value> = alerts.into_iter().map(rule).collect();
        json!({ "name": format!("quorate-{}-{name}", names.cluster), "rules": rules })
    };
    let mut store = quorum(&members);
    store.extend(requests(&members));
    store.extend(disks(&members));
    json!({ "groups": [
        group("store", store),
        group("operator", operations(cluster, &members, &operator)),
    ] })
}

fn quorum(s: &str) -> Vec<Alert> {
    let up = format!("up{{{s},endpoint=\"metrics\"}}");
    vec![
        alert(
            "QuorateMemberDown",
            (5, "warning"),
            "A member does not answer Prometheus.",
            format!("{up} == 0"),
        ),
        alert(
            "etcdMembersDown",
            (20, "warning"),
            "Members are down, or do not reach each other.",
            format!(
                "sum({up} == bool 0) > 0 or count(sum by (To) \
                 (rate(etcd_network_peer_sent_failures_total{{{s}}}[2m])) > 0.01) > 0"
            ),
        ),
        alert(
            "etcdInsufficientMembers",
            (3, "critical"),
            "Fewer members are up than a quorum needs.",
            format!("sum({up} == bool 1) < (count({up}) + 1) / 2"),
        ),
        alert(
            "etcdNoLeader",
            (1, "critical"),
            "A member knows no leader.",
            format!("etcd_server_has_leader{{{s}}} == 0"),
        ),
        alert(
            "etcdHighNumberOfLeaderChanges",
            (5, "warning"),
            "The leader changes often: disk, network or CPU is too slow for the election timeout.",
            format!("increase(max(etcd_server_leader_changes_seen_total{{{s}}})[15m:1m]) >= 4"),
        ),
        alert(
            "etcdMemberCommunicationSlow",
            (10, "warning"),
            "A round trip between members takes more than 150 ms (99th percentile).",
            format!(
                "histogram_quantile(0.99, \
                 rate(etcd_network_peer_round_trip_time_seconds_bucket{{{s}}}[5m])) > 0.15"
            ),
        ),
        alert(
            "etcdHighNumberOfFailedProposals",
            (15, "warning"),
            "Proposals fail: there is no leader, or it cannot reach a quorum.",
            format!("rate(etcd_server_proposals_failed_total{{{s}}}[15m]) > 5"),
        ),
    ]
}

fn requests(s: &str) -> Vec<Alert> {
    let codes = "Unknown|FailedPrecondition|ResourceExhausted|Internal|Unavailable|DataLoss|\
                 DeadlineExceeded";
    let failed = format!(
        "100 * sum by (grpc_service, grpc_method) \
         (rate(grpc_server_handled_total{{{s},grpc_code=~\"{codes}\"}}[5m])) / \
         sum by (grpc_service, grpc_method) (rate(grpc_server_handled_total{{{s}}}[5m]))"
    );
    vec![
        alert(
            "etcdHighNumberOfFailedGRPCRequests",
            (10, "warning"),
            "More than 1 % of a method's requests fail.",
            format!("{failed} > 1"),
        ),
        alert(
            "etcdHighNumberOfFailedGRPCRequests",
            (5, "critical"),
            "More than 5 % of a method's requests fail.",
            format!("{failed} > 5"),
        ),
        alert(
            "etcdGRPCRequestsSlow",
            (10, "critical"),
            "A method's requests take more than 150 ms (99th percentile); needs --metrics=extensive.",
            format!(
                "histogram_quantile(0.99, sum by (le, grpc_service, grpc_method) \
                 (rate(grpc_server_handling_seconds_bucket{{{s},grpc_method!=\"Defragment\",\
                 grpc_type=\"unary\"}}[5m]))) > 0.15"
            ),
        ),
    ]
}

fn disks(s: &str) -> Vec<Alert> {
    let quantile = |metric: &str| format!("histogram_quantile(0.99, rate({metric}{{{s}}}[5m]))");
    let fsync = quantile("etcd_disk_wal_fsync_duration_seconds_bucket");
    let commit = quantile("etcd_disk_backend_commit_duration_seconds_bucket");
    let size = format!("etcd_mvcc_db_total_size_in_bytes{{{s}}}");
    let used = format!("etcd_mvcc_db_total_size_in_use_in_bytes{{{s}}}");
    let quota = format!("etcd_server_quota_backend_bytes{{{s}}}");
    let alarms = format!("etcd_debugging_server_alarms{{{s}}}");
    vec![
        alert(
            "etcdHighFsyncDurations",
            (10, "warning"),
            "The log's fsync takes more than 500 ms (99th percentile).",
            format!("{fsync} > 0.5"),
        ),
        alert(
            "etcdHighFsyncDurations",
            (10, "critical"),
            "The log's fsync takes more than 1 s (99th percentile).",
            format!("{fsync} > 1"),
        ),
        alert(
            "etcdHighCommitDurations",
            (10, "warning"),
            "Commits take more than 250 ms (99th percentile).",
            format!("{commit} > 0.25"),
        ),
        alert(
            "etcdDatabaseQuotaLowSpace",
            (10, "critical"),
            "The store uses more than 95 % of its quota; at 100 % writes are refused.",
            format!("100 * {size} / {quota} > 95"),
        ),
        alert(
            "etcdExcessiveDatabaseGrowth",
            (10, "warning"),
            "At this rate the store reaches its quota within four hours.",
            format!("predict_linear({size}[4h], 4 * 3600) > {quota}"),
        ),
        alert(
            "etcdDatabaseHighFragmentationRatio",
            (10, "warning"),
            "Less than half of the store's files is in use: compaction without defragmentation.",
            format!("{used} / {size} < 0.5 and {used} > 104857600"),
        ),
        alert(
            "QuorateAlarm",
            (1, "critical"),
            "An alarm is raised: NOSPACE (writes are refused) or CORRUPT (data differ).",
            format!("max by (alarm_type) ({alarms}) > 0"),
        ),
        alert(
            "QuorateDiskFull",
            (10, "critical"),
            "Less than 10 % of a member's volume is free.",
            format!(
                "quorate_sidecar_disk_free_bytes{{{s}}} / quorate_sidecar_disk_bytes{{{s}}} < 0.1"
            ),
        ),
    ]
}

fn operations(cluster: &QuorateCluster, members: &str, s: &str) -> Vec<Alert> {
    let condition =
        |name: &str| format!("quorate_operator_cluster_condition{{{s},condition=\"{name}\"}}");
    let expiry = format!("quorate_operator_cluster_certificate_expiry_timestamp_seconds{{{s}}}");
    let mut all = vec![
        alert(
            "QuorateOperatorDown",
            (10, "warning"),
            "No operator looks after the cluster: nothing is healed and no backups are made.",
            format!("absent(quorate_operator_cluster_members{{{s}}})"),
        ),
        alert(
            "QuorateClusterStalled",
            (15, "warning"),
            "The operator cannot go on until someone acts: see the condition Stalled.",
            format!("{} == 1", condition("Stalled")),
        ),
        alert(
            "QuorateClusterNotConverged",
            (60, "warning"),
            "Members are not as the spec wants them: see the condition Converged.",
            format!("{} == 0", condition("Converged")),
        ),
        alert(
            "QuorateCertificateExpiring",
            (60, "critical"),
            "A certificate was not renewed in time and will end.",
            format!("{expiry} - time() < {}", expiry_hours(cluster) * 3_600),
        ),
    ];
    let backup = cluster.spec.backup.as_ref();
    if backup.is_some_and(|backup| backup.schedule.is_some() && !backup.suspend) {
        all.extend(backups(members, s, &condition("BackupHealthy")));
    }
    all
}

fn backups(members: &str, s: &str, healthy: &str) -> Vec<Alert> {
    let last = format!("quorate_operator_cluster_last_backup_timestamp_seconds{{{s}}}");
    let verified =
        format!("quorate_operator_cluster_last_verified_backup_timestamp_seconds{{{s}}}");
    vec![
        // Until the first one is whole the condition is unknown, which the metric does not tell
        // from false.
        alert(
            "QuorateBackupOverdue",
            (15, "critical"),
            "The last scheduled backup is late or failed: see the condition BackupHealthy.",
            format!("({last} > 0) and on (namespace, cluster) ({healthy} == 0)"),
        ),
        alert(
            "QuorateBackupUnverified",
            (120, "warning"),
            "The last backup has not been proved.",
            format!("{last} - {verified} > 0"),
        ),
        alert(
            "QuorateBackupFailing",
            (15, "warning"),
            "Backups fail: see the Events of the newest QuorateBackup.",
            format!(
                "sum by (outcome) (increase(quorate_sidecar_backups_total\
                 {{{members},outcome!=\"Succeeded\"}}[1h])) > 0"
            ),
        ),
    ]
}

/// Less than the time that is left when a certificate is renewed, so that it tells of a failure.
fn expiry_hours(cluster: &QuorateCluster) -> i64 {
    let tls = &cluster.spec.tls;
    let own = [&tls.client, &tls.peer].into_iter();
    let own = own.filter_map(|source| source.own_authority());
    let half = own.map(|settings| settings.renew_before_hours / 2).min();
    half.unwrap_or(EXPIRY_HOURS).clamp(1, EXPIRY_HOURS)
}
