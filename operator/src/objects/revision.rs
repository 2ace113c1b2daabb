//! The revision of the template: what of a Pod the spec decides and only a restart can change.

use sha2::{Digest, Sha256};

use super::{Settings, pod};
use crate::api::{Birth, QuorateCluster, QuorateMember, QuorateMemberSpec, QuorateMemberStatus};
use crate::model::Refusal;

/// Characters of a revision.
const LENGTH: usize = 10;

/// The revision of the template that Pods of a cluster are made from: ten hexadecimal digits of a
/// hash over a whole Pod of a member without a name. What belongs to one member (its name, its
/// birth, its peers, what it restores) is not in it, nor what is read again without a restart
/// (contents of Secrets). It depends on nothing but the spec and the settings, so that the same
/// operator says the same after a restart.
///
/// # Errors
/// Something in the spec is none, as in [`super::pod`].
pub fn template_revision(cluster: &QuorateCluster, settings: &Settings) -> Result<String, Refusal> {
    let mut bare = cluster.clone();
    bare.metadata.uid = None;
    bare.status = None;
    let mut member = QuorateMember::new(
        "member",
        QuorateMemberSpec {
            cluster: String::new(),
            birth: Birth::Join,
        },
    );
    member.status = Some(QuorateMemberStatus {
        initial_cluster: Some(String::new()),
        ..QuorateMemberStatus::default()
    });
    let pod = pod::template(&bare, &member, settings, &[], None)?;
    let bytes = serde_json::to_vec(&pod).map_err(|error| Refusal {
        reason: "InvalidReference".to_owned(),
        message: format!("the Pod's template cannot be written as JSON: {error}"),
    })?;
    let digest = Sha256::digest(&bytes);
    let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(text[..LENGTH].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::QuorateClusterStatus;
    use crate::objects::testing::{cluster, settings};

    /// If this fails, the next version of the operator restarts every member of every cluster.
    /// Change it only when that is meant, and say so in the release's notes.
    #[test]
    fn an_upgrade_of_the_operator_rolls_nobody_by_accident() {
        let revision = template_revision(&cluster(), &settings());
        assert_eq!(revision.as_deref(), Ok("0a454927b6"));
    }

    #[test]
    fn only_what_needs_a_restart_changes_it() {
        let base = cluster();
        let revision = |cluster: &QuorateCluster| {
            template_revision(cluster, &settings()).expect("the spec is in order")
        };
        let mut same = base.clone();
        same.metadata.uid = Some("another".to_owned());
        same.metadata.generation = Some(7);
        same.status = Some(QuorateClusterStatus::default());
        same.spec.replicas = 5;
        same.spec.storage.size.0 = "80Gi".to_owned();
        same.spec.service.additional_sans = vec!["a.example".to_owned()];
        assert_eq!(revision(&same), revision(&base));

        let edits: &[fn(&mut QuorateCluster)] = &[
            |cluster| cluster.spec.version = Some("0.2.0".to_owned()),
            |cluster| cluster.spec.engine.heartbeat_ms = 50,
            |cluster| cluster.spec.tls.peer.disabled = Some(true),
            |cluster| cluster.spec.pod.labels = [("a".to_owned(), "b".to_owned())].into(),
            |cluster| cluster.spec.pod.priority_class_name = Some("high".to_owned()),
            |cluster| cluster.spec.image.pull_policy = Some("Always".to_owned()),
        ];
        let mut seen = vec![revision(&base)];
        for edit in edits {
            let mut cluster = base.clone();
            edit(&mut cluster);
            let new = revision(&cluster);
            assert!(!seen.contains(&new), "{new}");
            seen.push(new);
        }
    }
}
