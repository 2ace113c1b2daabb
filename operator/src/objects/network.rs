//! The NetworkPolicy: who may reach the members.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    CLIENT_PORT, METRICS_PORT, Names, PEER_PORT, SIDECAR_METRICS_PORT, SIDECAR_PORT, Settings,
    labels,
};
use crate::api::QuorateCluster;

/// The policy; None when the spec wants none.
///
/// Members reach members on all ports of theirs (a backup's test restore and `quoratectl` use the
/// client port), the operator reaches what it asks, and the rest is as the spec says. Ingress
/// only: where members call out to (DNS, buckets) is not for this policy to know.
#[must_use]
pub fn network_policy(cluster: &QuorateCluster, settings: &Settings) -> Option<NetworkPolicy> {
    let rules = &cluster.spec.network_policy;
    if !rules.enabled {
        return None;
    }
    let names = Names::new(cluster);
    let members = LabelSelector {
        match_labels: Some(labels::selector(&names.cluster)),
        ..LabelSelector::default()
    };
    let from_members = NetworkPolicyPeer {
        pod_selector: Some(members.clone()),
        ..NetworkPolicyPeer::default()
    };
    let ingress = vec![
        rule(&[PEER_PORT, CLIENT_PORT], Some(vec![from_members])),
        rule(
            &[CLIENT_PORT, METRICS_PORT, SIDECAR_PORT],
            Some(vec![operator(settings)]),
        ),
        rule(&[CLIENT_PORT], restricted(&rules.client_from)),
        rule(
            &[METRICS_PORT, SIDECAR_METRICS_PORT],
            restricted(&rules.monitoring_from),
        ),
    ];
    Some(NetworkPolicy {
        metadata: labels::cluster_meta(cluster, names.cluster),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(members),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            egress: None,
        }),
    })
}

/// Everybody when nobody is named: an absent `from`.
fn restricted(from: &[NetworkPolicyPeer]) -> Option<Vec<NetworkPolicyPeer>> {
    (!from.is_empty()).then(|| from.to_vec())
}

fn operator(settings: &Settings) -> NetworkPolicyPeer {
    let select = |key: &str, value: &str| LabelSelector {
        match_labels: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        ..LabelSelector::default()
    };
    NetworkPolicyPeer {
        namespace_selector: Some(select(
            "kubernetes.io/metadata.name",
            &settings.operator_namespace,
        )),
        pod_selector: Some(select("app.kubernetes.io/name", "quorate-operator")),
        ip_block: None,
    }
}

fn rule(ports: &[i32], from: Option<Vec<NetworkPolicyPeer>>) -> NetworkPolicyIngressRule {
    let port = |port: &i32| NetworkPolicyPort {
        port: Some(IntOrString::Int(*port)),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicyIngressRule {
        from,
        ports: Some(ports.iter().map(port).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::{cluster, settings};

    #[test]
    fn peers_and_operator_always_come_through() {
        let mut cluster = cluster();
        let anyone = network_policy(&cluster, &settings()).and_then(|policy| policy.spec);
        let anyone = anyone.and_then(|spec| spec.ingress).expect("rules");
        assert!(anyone[0].from.is_some() && anyone[1].from.is_some());
        assert!(anyone[2].from.is_none() && anyone[3].from.is_none());
        let peers_only = |rule: &NetworkPolicyIngressRule| {
            let ports = rule.ports.as_ref().expect("ports");
            let has = |port: &NetworkPolicyPort| port.port == Some(IntOrString::Int(PEER_PORT));
            ports.iter().any(has)
        };
        assert_eq!(anyone.iter().filter(|rule| peers_only(rule)).count(), 1);

        cluster.spec.network_policy.client_from = vec![NetworkPolicyPeer::default()];
        let some = network_policy(&cluster, &settings()).and_then(|policy| policy.spec);
        let some = some.and_then(|spec| spec.ingress).expect("rules");
        assert_eq!(some[2].from.as_ref().map(Vec::len), Some(1));

        cluster.spec.network_policy.enabled = false;
        assert_eq!(network_policy(&cluster, &settings()), None);
    }
}
