//! The two Services of a cluster.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    CLIENT_PORT, METRICS_PORT, Names, PEER_PORT, SIDECAR_METRICS_PORT, SIDECAR_PORT, labels,
};
use crate::api::{QuorateCluster, ROLE_LABEL};

/// The Service that clients use, and the headless one that gives each member a name in DNS.
///
/// Clients are led to ready voters only: learners refuse most requests. The headless Service
/// names members before they are ready, since they become so by reaching each other.
#[must_use]
pub fn services(cluster: &QuorateCluster) -> (Service, Service) {
    (client(cluster), peer(cluster))
}

fn client(cluster: &QuorateCluster) -> Service {
    let names = Names::new(cluster);
    let settings = &cluster.spec.service;
    let mut metadata = labels::cluster_meta(cluster, names.client_service());
    let mut all = settings.labels.clone();
    all.extend(metadata.labels.take().unwrap_or_default());
    all.insert(
        "app.kubernetes.io/component".to_owned(),
        "client".to_owned(),
    );
    metadata.labels = Some(all);
    metadata.annotations = Some(settings.annotations.clone()).filter(|all| !all.is_empty());
    let mut selector = labels::selector(&names.cluster);
    selector.insert(ROLE_LABEL.to_owned(), "voter".to_owned());
    let kind = settings.type_.clone();
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(kind.unwrap_or_else(|| "ClusterIP".to_owned())),
            selector: Some(selector),
            ports: Some(vec![port("client", CLIENT_PORT)]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn peer(cluster: &QuorateCluster) -> Service {
    let names = Names::new(cluster);
    let mut metadata = labels::cluster_meta(cluster, names.peer_service());
    let all = metadata.labels.get_or_insert_default();
    all.insert("app.kubernetes.io/component".to_owned(), "peer".to_owned());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(labels::selector(&names.cluster)),
            ports: Some(vec![
                port("client", CLIENT_PORT),
                port("peer", PEER_PORT),
                port("metrics", METRICS_PORT),
                port("sidecar", SIDECAR_PORT),
                port("sidecar-metrics", SIDECAR_METRICS_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::cluster;

    #[test]
    fn clients_reach_voters_and_peers_reach_all() {
        let mut cluster = cluster();
        cluster.spec.service.type_ = Some("LoadBalancer".to_owned());
        let labels = &mut cluster.spec.service.labels;
        labels.insert("team".to_owned(), "a".to_owned());
        labels.insert("quorate.dev/cluster".to_owned(), "another".to_owned());
        let (client, peer) = services(&cluster);
        let labels = client.metadata.labels.expect("labels");
        assert_eq!(
            (
                labels["team"].as_str(),
                labels["quorate.dev/cluster"].as_str()
            ),
            ("a", "demo")
        );
        let client = client.spec.expect("a spec");
        assert_eq!(client.type_.as_deref(), Some("LoadBalancer"));
        assert_eq!(client.selector.expect("one")["quorate.dev/role"], "voter");
        assert_eq!(peer.metadata.name.as_deref(), Some("demo-peer"));
        let peer = peer.spec.expect("a spec");
        assert_eq!(peer.cluster_ip.as_deref(), Some("None"));
        assert_eq!(peer.publish_not_ready_addresses, Some(true));
        assert!(!peer.selector.expect("one").contains_key("quorate.dev/role"));
    }
}
