//! Nodes: registered, kept alive by their leases, and lost.

use super::Shared;
use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

/// How often a kubelet renews its lease.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long a lease is good for.
const LEASE_SECONDS: i32 = 40;

const LEASES: &str = "kube-node-lease";

/// Makes a node that is ready, in one of three zones. A pool is for those who ask for it: its
/// nodes have a label and a taint of their own.
///
/// # Errors
/// When the API server refuses.
pub(super) async fn register(shared: &Shared, number: usize, pool: Option<&str>) -> Result<()> {
    let name = format!("{}-{number}", pool.unwrap_or("node"));
    let zone = ["a", "b", "c"][number % 3];
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/region": "here",
            "topology.kubernetes.io/zone": format!("zone-{zone}"),
        }},
    });
    if let Some(pool) = pool {
        node["metadata"]["labels"]["pool"] = pool.into();
        let taint = json!({"key": "pool", "value": pool, "effect": "NoSchedule"});
        node["spec"] = json!({"taints": [taint]});
    }
    let api: Api<Node> = Api::all(shared.client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(node)?)
        .await?;
    tell(shared, &name, "True").await?;
    renew(shared, &name).await?;
    shared.alive.lock().insert(name);
    Ok(())
}

/// Says whether it is ready, as a kubelet or in its place.
async fn tell(shared: &Shared, name: &str, ready: &str) -> Result<()> {
    let now = Timestamp::now();
    let condition = |kind: &str, status: &str, reason: &str| -> Value {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let reason = match ready {
        "True" => "KubeletReady",
        _ => "NodeStatusUnknown",
    };
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "200"});
    let status = json!({"status": {
        "capacity": room,
        "allocatable": room,
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"},
            {"type": "Hostname", "address": name}],
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            condition("Ready", ready, reason),
        ],
    }});
    let api: Api<Node> = Api::all(shared.client.clone());
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status))
        .await?;
    Ok(())
}

/// Renews its lease.
///
/// # Errors
/// When the API server refuses.
pub(super) async fn renew(shared: &Shared, name: &str) -> Result<()> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": MicroTime(Timestamp::now()),
        },
    });
    let api: Api<Lease> = Api::namespaced(shared.client.clone(), LEASES);
    let params = PatchParams::apply("kubelet").force();
    api.patch(name, &params, &Patch::Apply(lease)).await?;
    Ok(())
}

/// Says at once what the node lifecycle controller would say when heartbeats are missing for 50 s:
/// that nobody knows, with the taints that go with it.
///
/// # Errors
/// When the API server refuses.
pub(super) async fn give_up(shared: &Shared, name: &str) -> Result<()> {
    tell(shared, name, "Unknown").await?;
    let taint = |effect: &str| {
        json!({
            "key": "node.kubernetes.io/unreachable", "effect": effect,
            "timeAdded": Timestamp::now(),
        })
    };
    let patch = json!({"spec": {"taints": [taint("NoSchedule"), taint("NoExecute")]}});
    let api: Api<Node> = Api::all(shared.client.clone());
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await?;
    Ok(())
}
