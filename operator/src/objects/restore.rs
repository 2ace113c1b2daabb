//! What a cluster begins with.

use quorate_sidecar::wire::RestoreRequest;

use crate::api::{BackupPhase, QuorateBackup, QuorateCluster};
use crate::model::Refusal;

/// What the first member starts from; None: empty. `backup` is the `QuorateBackup` that
/// `spec.bootstrap.fromBackup.backup` names, if there is one of that name.
///
/// # Errors
/// The backup is missing, unfinished or failed, or the reference is none. The cluster must then
/// wait: to begin empty would be to begin with the wrong data.
pub fn restore_request(
    cluster: &QuorateCluster,
    backup: Option<&QuorateBackup>,
) -> Result<Option<RestoreRequest>, Refusal> {
    let Some(bootstrap) = &cluster.spec.bootstrap else {
        return Ok(None);
    };
    let from = &bootstrap.from_backup;
    if let Some(name) = &from.backup {
        return of_backup(name, backup).map(Some);
    }
    let (Some(store), Some(key)) = (&from.store, &from.key) else {
        return Err(refusal(
            "spec.bootstrap.fromBackup names neither a backup nor store and key".to_owned(),
        ));
    };
    store
        .check()
        .map_err(|wrong| refusal(format!("spec.bootstrap.fromBackup: {wrong}")))?;
    Ok(Some(RestoreRequest {
        store: store.clone(),
        key: key.clone(),
    }))
}

fn of_backup(name: &str, backup: Option<&QuorateBackup>) -> Result<RestoreRequest, Refusal> {
    let status = backup
        .ok_or_else(|| {
            refusal(format!(
                "spec.bootstrap.fromBackup.backup: there is no QuorateBackup {name:?} in the \
                 namespace"
            ))
        })?
        .status
        .as_ref();
    let whole = status
        .filter(|status| matches!(status.phase, BackupPhase::Uploaded | BackupPhase::Verified));
    let place = whole.and_then(|status| {
        let (store, artifact) = (status.store.clone()?, status.artifact.as_ref()?);
        Some(RestoreRequest {
            store,
            key: artifact.key.clone(),
        })
    });
    place.ok_or_else(|| {
        refusal(format!(
            "spec.bootstrap.fromBackup.backup: QuorateBackup {name:?} does not lie whole in its \
             store; it must be Uploaded or Verified"
        ))
    })
}

fn refusal(message: String) -> Refusal {
    Refusal {
        reason: "InvalidReference".to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::cluster;

    #[test]
    fn a_cluster_never_begins_empty_instead_of_restored() {
        let mut cluster = cluster();
        assert_eq!(restore_request(&cluster, None), Ok(None));
        let from = serde_json::json!({ "fromBackup": { "backup": "nightly" } });
        cluster.spec.bootstrap = serde_json::from_value(from).expect("it is one");
        let missing = restore_request(&cluster, None).expect_err("it is missing");
        assert!(missing.message.contains("nightly"));

        let backup = serde_json::json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "QuorateBackup",
            "metadata": { "name": "nightly" },
            "spec": { "cluster": "demo" },
            "status": { "phase": "Running" },
        });
        let mut backup: QuorateBackup = serde_json::from_value(backup).expect("it is one");
        assert!(restore_request(&cluster, Some(&backup)).is_err());
        let status = serde_json::json!({
            "phase": "Verified",
            "store": { "pvc": { "claimName": "backups" } },
            "artifact": {
                "uri": "", "key": "team/demo-1/x.snap.zst", "sizeBytes": 1, "snapshotBytes": 1,
                "sha256": "", "revision": 1, "hash": 1, "compactRevision": 0, "keys": 0,
                "clusterId": "", "cluster": "", "member": "", "version": "", "startedAt": "",
                "finishedAt": "",
            },
        });
        backup.status = serde_json::from_value(status).expect("it is one");
        let request = restore_request(&cluster, Some(&backup)).expect("it lies whole");
        assert_eq!(request.expect("something").key, "team/demo-1/x.snap.zst");
    }

    #[test]
    fn a_store_must_be_one_place() {
        let mut cluster = cluster();
        let from = serde_json::json!({ "fromBackup": { "store": {}, "key": "x" } });
        cluster.spec.bootstrap = serde_json::from_value(from).expect("it is one");
        assert!(restore_request(&cluster, None).is_err());
    }
}
