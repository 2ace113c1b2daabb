//! Pods, claims and nodes as the planner sees them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Node, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::api::REVISION_ANNOTATION;
use crate::model::{ClaimView, PodView};
use crate::objects;

const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// What Kubernetes puts on a node that is known to be off.
const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service";
/// Why a container waits although nothing is wrong.
const USUAL_WAITS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// A Pod as the planner sees it. `node` is that of its `spec.nodeName`, None when it is gone.
#[must_use]
pub fn pod_view(pod: &Pod, node: Option<&Node>) -> PodView {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let annotations = pod.metadata.annotations.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let init = statuses(status.and_then(|status| status.init_container_statuses.as_ref()));
    let containers = statuses(status.and_then(|status| status.container_statuses.as_ref()));
    let bound = spec.and_then(|spec| spec.node_name.clone());
    let labels = node.and_then(|node| node.metadata.labels.as_ref());
    PodView {
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        revision: annotations
            .and_then(|all| all.get(REVISION_ANNOTATION).cloned())
            .unwrap_or_default(),
        ready_since: condition_since(pod, "Ready"),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        failed: matches!(phase, Some("Failed" | "Succeeded")),
        gate_exit: init.iter().find_map(gate_exit),
        waiting: waiting(init.iter().chain(containers)).or_else(|| unschedulable(pod)),
        restarts: containers
            .iter()
            .find(|status| status.name == "quorate")
            .map_or(0, |status| status.restart_count.max(0) as u32),
        node_lost: bound.is_some() && node.is_none_or(node_lost),
        node: bound,
        zone: labels.and_then(|labels| labels.get(ZONE_LABEL).cloned()),
    }
}

fn statuses(statuses: Option<&Vec<ContainerStatus>>) -> &[ContainerStatus] {
    statuses.map_or(&[], Vec::as_slice)
}

fn condition_since(pod: &Pod, name: &str) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|found| found.type_ == name)?;
    (found.status == "True").then_some(())?;
    Some(
        found
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    )
}

/// The exit code of the gate, while it has not passed since.
fn gate_exit(status: &ContainerStatus) -> Option<i32> {
    if status.name != "gate" {
        return None;
    }
    let now = status
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let last = status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let exit = now.or(last)?.exit_code;
    (exit != 0).then_some(exit)
}

fn waiting<'a>(statuses: impl Iterator<Item = &'a ContainerStatus>) -> Option<String> {
    statuses
        .filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .find(|reason| !USUAL_WAITS.contains(&reason.as_str()))
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|found| found.type_ == "PodScheduled")?;
    (found.status == "False").then(|| found.reason.clone())?
}

/// Whether a node is known to be off, or has not been heard of for long enough that Kubernetes
/// itself says so.
#[must_use]
pub fn node_lost(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    if taints.is_some_and(|taints| taints.iter().any(|taint| taint.key == OUT_OF_SERVICE_TAINT)) {
        return true;
    }
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ready =
        conditions.and_then(|conditions| conditions.iter().find(|found| found.type_ == "Ready"));
    // No condition at all is a node that has only just come.
    ready.is_some_and(|ready| ready.status != "True")
}

/// A size that Kubernetes itself wrote or checked.
fn bytes(quantity: &Quantity) -> u64 {
    objects::bytes("storage", quantity).unwrap_or(0)
}

/// A claim as the planner sees it.
#[must_use]
pub fn claim_view(claim: &PersistentVolumeClaim) -> ClaimView {
    let asked = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    let status = claim.status.as_ref();
    let has = status.and_then(|status| status.capacity.as_ref()?.get("storage"));
    let phase = status.and_then(|status| status.phase.as_deref());
    ClaimView {
        uid: claim.metadata.uid.clone().unwrap_or_default(),
        requested_bytes: asked.map_or(0, bytes),
        capacity_bytes: match phase {
            Some("Bound") => has.map_or(0, bytes),
            _ => 0,
        },
        lost: phase == Some("Lost"),
        deleting: claim.metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: serde_json::Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "m", "uid": "u", "annotations": {"quorate.dev/revision": "r1"}},
            "spec": {"containers": [], "nodeName": "n1"},
            "status": status,
        });
        serde_json::from_value(pod).expect("a Pod")
    }

    fn node(ready: &str) -> Node {
        let node = json!({
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        });
        serde_json::from_value(node).expect("a Node")
    }

    #[test]
    fn a_gate_that_refused_is_seen_until_it_passes() {
        let refused = json!({"initContainerStatuses": [{
            "name": "gate", "image": "", "imageID": "", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 40}},
        }]});
        let view = pod_view(&pod(refused), Some(&node("True")));
        assert_eq!(view.gate_exit, Some(40));
        assert_eq!(view.waiting.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(view.zone.as_deref(), Some("a"));
        let passed = json!({"initContainerStatuses": [{
            "name": "gate", "image": "", "imageID": "", "ready": true, "restartCount": 2,
            "state": {"terminated": {"exitCode": 0}},
            "lastState": {"terminated": {"exitCode": 40}},
        }]});
        assert_eq!(pod_view(&pod(passed), Some(&node("True"))).gate_exit, None);
    }

    #[test]
    fn a_node_that_is_gone_or_silent_is_lost() {
        let running = pod(json!({"phase": "Running"}));
        assert!(pod_view(&running, None).node_lost);
        assert!(pod_view(&running, Some(&node("Unknown"))).node_lost);
        assert!(!pod_view(&running, Some(&node("True"))).node_lost);
    }

    #[test]
    fn an_unbound_claim_has_no_capacity() {
        let claim = json!({
            "metadata": {"name": "c", "uid": "u"},
            "spec": {"resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Pending"},
        });
        let view = claim_view(&serde_json::from_value(claim).expect("a claim"));
        assert_eq!((view.requested_bytes, view.capacity_bytes), (1 << 30, 0));
    }
}
