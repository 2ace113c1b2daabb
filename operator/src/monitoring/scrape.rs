//! PodMonitor and ServiceMonitor: the metrics of members and sidecars, both in plaintext.

use serde_json::{Value, json};

use super::LABEL;
use crate::api::{CLUSTER_LABEL, QuorateCluster};
use crate::objects::Names;

/// What is scraped of each Pod.
fn endpoints() -> Value {
    let endpoint = |port: &str| {
        json!({
            "port": port,
            "path": "/metrics",
            "scheme": "http",
            "relabelings": [{
                "sourceLabels": ["__meta_kubernetes_pod_label_quorate_dev_cluster"],
                "targetLabel": LABEL,
            }],
        })
    };
    json!([endpoint("metrics"), endpoint("sidecar-metrics")])
}

/// The spec of a PodMonitor.
pub fn pod_monitor(cluster: &QuorateCluster) -> Value {
    json!({
        "jobLabel": "app.kubernetes.io/name",
        "selector": { "matchLabels": {
            "app.kubernetes.io/component": "member",
            CLUSTER_LABEL: Names::new(cluster).cluster,
        } },
        "podMetricsEndpoints": endpoints(),
    })
}

/// The spec of a ServiceMonitor: behind the headless Service is each member.
pub fn service_monitor(cluster: &QuorateCluster) -> Value {
    json!({
        "jobLabel": "app.kubernetes.io/name",
        "selector": { "matchLabels": {
            "app.kubernetes.io/component": "peer",
            CLUSTER_LABEL: Names::new(cluster).cluster,
        } },
        "endpoints": endpoints(),
    })
}
