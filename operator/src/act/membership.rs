//! How members become voters, lead, and leave.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use quorate_client::Error;
use serde_json::json;

use super::births::gone_is_fine;
use super::{ActError, Hands, write_cluster_status, write_member_status};
use crate::api::{CLUSTER_LABEL, MemberPhase, QuorateMember};
use crate::members::Door;
use crate::model::Cause;

/// The label of a claim whose member is gone.
const RETIRED_LABEL: &str = "quorate.dev/retired-from";

impl Hands<'_> {
    pub(super) fn any_door(&self) -> Result<&Door, ActError> {
        let door = self.heard.any_door();
        door.ok_or_else(|| ActError::Missing("no voting member answers".to_owned()))
    }

    /// A learner that has not caught up is refused by the server, and asked for again later.
    pub(super) async fn promote(&self, id: u64) -> Result<(), ActError> {
        Ok(self.any_door()?.promote(id).await?)
    }

    pub(super) async fn move_leader(&self, to: u64) -> Result<(), ActError> {
        let leader = self.heard.leader();
        let door = leader.and_then(|leader| self.heard.doors.get(leader));
        let door = door.ok_or_else(|| ActError::Missing("no leader answers".to_owned()))?;
        Ok(door.move_leader(to).await?)
    }

    pub(super) async fn retire(
        &self,
        name: &str,
        cause: Cause,
        replacement: bool,
    ) -> Result<(), ActError> {
        if replacement {
            let mut status = self.cluster.status.clone().unwrap_or_default();
            status.replacements.push(Time(jiff::Timestamp::now()));
            write_cluster_status(self.client, self.cluster, status).await?;
        }
        let member = self.member(name)?;
        let mut status = member.status.clone().unwrap_or_default();
        status.phase = MemberPhase::Leaving;
        status.leaving_reason = Some(cause.reason());
        write_member_status(self.client, member, status).await?;
        Ok(())
    }

    /// Removal is confirmed by the next look's linearizable list, not by this answer.
    pub(super) async fn remove_member(&self, id: u64) -> Result<(), ActError> {
        match self.any_door()?.remove(id).await {
            Err(Error::Refused { text, .. }) if text.contains("member not found") => Ok(()),
            other => Ok(other?),
        }
    }

    /// The claim first, then the object whose Pod follows it: an interruption leaves the object,
    /// which has all of it done again.
    pub(super) async fn drop_member(&self, name: &str, delete_claim: bool) -> Result<(), ActError> {
        let namespace = self.namespace();
        let member = self.member(name)?;
        if let Some(claim) = self.claim_of(name) {
            let claims = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &namespace);
            let claim_name = claim.name_any();
            if delete_claim {
                let only_this = this_one(claim.metadata.uid.clone());
                gone_is_fine(claims.delete(&claim_name, &only_this).await)?;
            } else {
                let patch = json!({"metadata": {
                    "labels": {CLUSTER_LABEL: null, RETIRED_LABEL: self.cluster.name_any()},
                    "ownerReferences": null,
                }});
                let patched = claims
                    .patch(&claim_name, &PatchParams::default(), &Patch::Merge(patch))
                    .await;
                gone_is_fine(patched)?;
            }
        }
        if let Some(pod) = self.objects.pods.get(name) {
            let pods = Api::<Pod>::namespaced(self.client.clone(), &namespace);
            let only_this = this_one(pod.metadata.uid.clone());
            gone_is_fine(pods.delete(name, &only_this).await)?;
        }
        let members = Api::<QuorateMember>::namespaced(self.client.clone(), &namespace);
        let only_this = this_one(member.metadata.uid.clone());
        gone_is_fine(members.delete(name, &only_this).await)
    }

    pub(super) async fn expand_claim(&self, name: &str, bytes: u64) -> Result<(), ActError> {
        let claims =
            Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &self.namespace());
        let patch = json!({"spec": {"resources": {"requests": {"storage": bytes.to_string()}}}});
        let name = self.names().claim(name);
        claims
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }
}

fn this_one(uid: Option<String>) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}
