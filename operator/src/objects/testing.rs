//! What tests of builders begin with.

use crate::api::{Birth, QuorateCluster, QuorateMember, QuorateMemberSpec};

use super::Settings;

/// A cluster as short as it can be written.
#[must_use]
pub fn cluster() -> QuorateCluster {
    let cluster = serde_json::json!({
        "apiVersion": "quorate.dev/v1alpha1",
        "kind": "QuorateCluster",
        "metadata": { "name": "demo", "namespace": "team", "uid": "0b5d…" },
        "spec": {},
    });
    serde_json::from_value(cluster).expect("it is one")
}

/// A member of it that joined.
#[must_use]
pub fn member(name: &str) -> QuorateMember {
    let spec = QuorateMemberSpec {
        cluster: "demo".to_owned(),
        birth: Birth::Join,
    };
    let mut member = QuorateMember::new(name, spec);
    member.metadata.namespace = Some("team".to_owned());
    member.metadata.uid = Some("7c11…".to_owned());
    member
}

/// An operator.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        operator_version: "0.1.0".to_owned(),
        member_image_repository: "quorate.example/quorate".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        operator_namespace: "quorate-system".to_owned(),
    }
}
