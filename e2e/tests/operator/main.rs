//! The operator against a real API server and controller manager, with members as processes: no
//! containers and no root. All tests share one Kubernetes; each has a namespace of its own.

mod backup;
mod faults;
mod life;
mod pods;
mod refusals;
mod roll;
mod scale;

use serde_json::{Value, json};

/// A cluster that is quick to heal and leaves nothing.
fn spec(replicas: usize) -> Value {
    json!({
        "replicas": replicas,
        "storage": {"size": "1Gi", "reclaim": "Delete"},
        "healing": {"replaceUnhealthyAfterSeconds": 10, "maxReplacementsPerHour": 20},
        "pod": {"terminationGracePeriodSeconds": 20},
    })
}
