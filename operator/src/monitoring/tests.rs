//! What is made for Prometheus and Grafana, held against what members and operator expose.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::objects::testing::cluster;

fn with_backups() -> QuorateCluster {
    let mut cluster = cluster();
    let backup = serde_json::json!({
        "schedule": "@daily", "store": { "pvc": { "claimName": "backups" } },
    });
    cluster.spec.backup = serde_json::from_value(backup).expect("it is one");
    cluster
}

fn alerts(cluster: &QuorateCluster) -> Vec<Value> {
    let rule = object(cluster, Kind::PrometheusRule).expect("there is one");
    let groups = rule.data["spec"]["groups"]
        .as_array()
        .expect("groups")
        .clone();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .collect()
}

fn names(alerts: &[Value]) -> BTreeSet<&str> {
    alerts
        .iter()
        .filter_map(|alert| alert["alert"].as_str())
        .collect()
}

#[test]
fn members_are_scraped_once() {
    let mut cluster = cluster();
    let pods = object(&cluster, Kind::PodMonitor).expect("there is one");
    let endpoints = &pods.data["spec"]["podMetricsEndpoints"];
    assert_eq!(endpoints[0]["port"], "metrics");
    assert_eq!(endpoints[1]["port"], "sidecar-metrics");
    assert!(object(&cluster, Kind::ServiceMonitor).is_none());
    cluster.spec.monitoring.pod_monitor = Automatic::Disabled;
    assert!(object(&cluster, Kind::PodMonitor).is_none());
    let services = object(&cluster, Kind::ServiceMonitor).expect("there is one");
    assert_eq!(services.types.expect("types").kind, "ServiceMonitor");
    cluster.spec.monitoring.service_monitor = Automatic::Disabled;
    assert!(object(&cluster, Kind::ServiceMonitor).is_none());
}

#[test]
fn a_prometheus_selects_by_the_labels_that_are_asked_for() {
    let mut cluster = cluster();
    let labels = &mut cluster.spec.monitoring.labels;
    labels.insert("release".to_owned(), "prometheus".to_owned());
    labels.insert("quorate.dev/cluster".to_owned(), "another".to_owned());
    for kind in [Kind::PodMonitor, Kind::PrometheusRule] {
        let labels = object(&cluster, kind).and_then(|made| made.metadata.labels);
        let labels = labels.expect("labels");
        assert_eq!(labels["release"], "prometheus");
        assert_eq!(labels["quorate.dev/cluster"], "demo");
    }
    let board = dashboard(&cluster).expect("there is one");
    assert_eq!(
        board.metadata.labels.expect("labels")["grafana_dashboard"],
        "1"
    );
}

#[test]
fn alerts_are_of_the_cluster_alone_and_have_a_runbook() {
    let all = alerts(&with_backups());
    for alert in &all {
        let expr = alert["expr"].as_str().expect("an expression");
        assert!(expr.contains("namespace=\"team\""), "{expr}");
        let cluster = ["quorate_cluster=\"demo\"", "cluster=\"demo\""];
        assert!(
            cluster.iter().any(|selector| expr.contains(selector)),
            "{expr}"
        );
        let runbook = alert["annotations"]["runbook_url"].as_str().expect("one");
        let anchor = runbook.split('#').nth(1).expect("an anchor");
        assert_eq!(
            anchor,
            alert["alert"].as_str().expect("a name").to_lowercase()
        );
    }
    let mut without = with_backups();
    assert!(names(&all).contains("QuorateBackupOverdue"));
    without.spec.backup.as_mut().expect("it is there").suspend = true;
    assert!(!names(&alerts(&without)).contains("QuorateBackupOverdue"));
}

#[test]
fn every_alert_has_its_section_in_the_documentation() {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    let path = std::path::Path::new(&package).join("../docs/operator.md");
    let text = std::fs::read_to_string(path).expect("the documentation is there");
    for name in names(&alerts(&with_backups())) {
        assert!(
            text.contains(&format!("\n### {name}\n")),
            "{name} has no section"
        );
    }
}

#[test]
fn certificates_that_live_short_are_told_of_in_time() {
    let mut cluster = cluster();
    let short = serde_json::json!({ "operatorCA": { "validityHours": 24, "renewBeforeHours": 8 } });
    cluster.spec.tls.client = serde_json::from_value(short).expect("a source");
    let all = alerts(&cluster);
    let expiring = all
        .iter()
        .find(|alert| alert["alert"] == "QuorateCertificateExpiring");
    let expr = expiring.expect("there is one")["expr"]
        .as_str()
        .expect("an expression");
    assert!(expr.ends_with(&format!("< {}", 4 * 3_600)), "{expr}");
}

#[test]
fn panels_do_not_overlap_and_ask_for_something() {
    let names = Names::new(&cluster());
    for board in [dashboard::of_cluster(&names), operator_dashboard()] {
        let panels = board["panels"].as_array().expect("panels");
        let places: BTreeSet<String> = panels
            .iter()
            .map(|panel| panel["gridPos"].to_string())
            .collect();
        assert_eq!(places.len(), panels.len());
        for panel in panels {
            let targets = panel["targets"].as_array().expect("targets");
            assert!(
                targets
                    .iter()
                    .all(|target| target["expr"].as_str().is_some_and(|expr| !expr.is_empty()))
            );
        }
    }
}
