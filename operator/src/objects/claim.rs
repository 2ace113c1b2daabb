//! The claim of a member's volume.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use kube::ResourceExt;

use super::{Names, labels};
use crate::api::{QuorateCluster, QuorateMember, Reclaim, StorageMedium};

/// The claim of a member; None when data lie in memory.
///
/// With reclaim `Delete` the member owns it, so that it goes with the member. With `Retain` it
/// has no owner and outlives member and cluster; only its labels say whose it was. Applied again
/// after an edit of `spec.storage.reclaim`, it gains or loses its owner accordingly.
#[must_use]
pub fn claim(cluster: &QuorateCluster, member: &QuorateMember) -> Option<PersistentVolumeClaim> {
    let storage = &cluster.spec.storage;
    if storage.medium == StorageMedium::Memory {
        return None;
    }
    let name = Names::new(cluster).claim(&member.name_any());
    let mut metadata = labels::member_meta(cluster, member, name);
    if storage.reclaim == Reclaim::Retain {
        metadata.owner_references = None;
    }
    Some(PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    storage.size.clone(),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::{cluster, member};

    #[test]
    fn a_claim_that_must_survive_has_no_owner() {
        let mut cluster = cluster();
        let member = member("demo-abcdef");
        let kept = claim(&cluster, &member).expect("there is one");
        assert_eq!(kept.metadata.name.as_deref(), Some("demo-abcdef-data"));
        assert_eq!(kept.metadata.owner_references, None);
        let labels = kept.metadata.labels.expect("labels");
        assert_eq!(labels["quorate.dev/cluster"], "demo");
        assert_eq!(labels["quorate.dev/member"], "demo-abcdef");

        cluster.spec.storage.reclaim = Reclaim::Delete;
        let owned = claim(&cluster, &member).expect("there is one");
        let owner = &owned.metadata.owner_references.expect("an owner")[0];
        assert_eq!(
            (owner.kind.as_str(), owner.controller),
            ("QuorateMember", Some(true))
        );
        assert_eq!(owner.block_owner_deletion, Some(true));
        let size = owned.spec.and_then(|spec| spec.resources?.requests);
        assert_eq!(size.expect("a size")["storage"].0, "8Gi");

        cluster.spec.storage.medium = StorageMedium::Memory;
        assert_eq!(claim(&cluster, &member), None);
    }
}
