//! cert-manager's Certificates. It issues into the Secrets that members mount.

use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use super::leaves::{Leaves, Purpose};
use crate::api::QuorateCluster;
use crate::objects::cluster_meta;

/// The kind that the operator applies.
#[must_use]
pub fn kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(
        "cert-manager.io",
        "v1",
        "Certificate",
    ))
}

/// One Certificate for each Secret that cert-manager is to fill.
pub fn certificates(cluster: &QuorateCluster, leaves: &Leaves<'_>) -> Vec<DynamicObject> {
    let all = Purpose::ALL.into_iter();
    all.filter_map(|purpose| certificate(cluster, leaves, purpose))
        .collect()
}

fn certificate(
    cluster: &QuorateCluster,
    leaves: &Leaves<'_>,
    purpose: Purpose,
) -> Option<DynamicObject> {
    let (settings, secret) = (leaves.cert_manager(purpose)?, leaves.secret(purpose)?);
    let names = leaves.subject_names(purpose);
    let is_address = |name: &&String| name.parse::<std::net::IpAddr>().is_ok();
    let (addresses, hosts): (Vec<&String>, Vec<&String>) = names.iter().partition(is_address);
    let usages = [
        (purpose.serves(), "server auth"),
        (purpose.calls(), "client auth"),
    ];
    let usages = usages
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, usage)| usage);
    let usages: Vec<&str> = std::iter::once("digital signature").chain(usages).collect();
    let mut spec = json!({
        "secretName": secret,
        "commonName": purpose.common_name(),
        "usages": usages,
        "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always" },
        "issuerRef": {
            "name": settings.issuer_ref.name,
            "kind": settings.issuer_ref.kind,
            "group": settings.issuer_ref.group,
        },
    });
    let mut set = |key: &str, value: Value| spec[key] = value;
    if !hosts.is_empty() {
        set("dnsNames", json!(hosts));
        set("ipAddresses", json!(addresses));
    }
    if let Some(hours) = settings.duration_hours {
        set("duration", json!(format!("{hours}h")));
    }
    let mut object = DynamicObject::new(&secret, &kind()).data(json!({ "spec": spec }));
    object.metadata = cluster_meta(cluster, secret);
    Some(object)
}
