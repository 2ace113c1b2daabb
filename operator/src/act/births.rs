//! How members come into being.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};

use super::{ActError, Hands, write_cluster_status, write_member_status};
use crate::api::{
    Birth, CLUSTER_LABEL, MEMBER_LABEL, MemberPhase, QuorateMember, QuorateMemberSpec,
    QuorateMemberStatus,
};
use crate::objects::{self, Peer};

impl Hands<'_> {
    pub(super) async fn create_member(&self, name: &str, birth: Birth) -> Result<(), ActError> {
        let spec = QuorateMemberSpec {
            cluster: self.cluster.name_any(),
            birth,
        };
        let mut member = QuorateMember::new(name, spec);
        member.metadata.namespace = Some(self.namespace());
        member.metadata.labels = Some(BTreeMap::from([
            (CLUSTER_LABEL.to_owned(), self.cluster.name_any()),
            (MEMBER_LABEL.to_owned(), name.to_owned()),
        ]));
        member.metadata.owner_references = self.cluster.controller_owner_ref(&()).map(|o| vec![o]);
        let members = Api::<QuorateMember>::namespaced(self.client.clone(), &self.namespace());
        members.create(&PostParams::default(), &member).await?;
        Ok(())
    }

    pub(super) async fn admit_seed(&self, name: &str) -> Result<(), ActError> {
        let initial = format!("{name}={}", self.names().peer_url(name));
        self.admit(name, None, initial).await
    }

    /// Tells the cluster of a learner, unless it knows it: then the last attempt was interrupted
    /// between the call and the latch.
    pub(super) async fn admit_joiner(&self, name: &str) -> Result<(), ActError> {
        let door = self.any_door()?;
        let url = self.names().peer_url(name);
        let known = door.members().await?;
        let found = known.iter().find(|member| member.peer_ur_ls.contains(&url));
        let (id, members) = match found {
            Some(member) => (member.id, known.clone()),
            None => door.add_learner(&url).await?,
        };
        let entries: Vec<_> = members
            .iter()
            .flat_map(|member| {
                let name = match member.name.as_str() {
                    "" => crate::members::host_label(member),
                    name => name.to_owned(),
                };
                let urls = member.peer_ur_ls.iter();
                urls.map(move |url| format!("{name}={url}"))
            })
            .collect();
        self.admit(name, Some(id), entries.join(",")).await
    }

    async fn admit(&self, name: &str, id: Option<u64>, initial: String) -> Result<(), ActError> {
        let member = self.member(name)?;
        let claim = self.claim_of(name);
        let status = QuorateMemberStatus {
            phase: MemberPhase::Admitted,
            member_id: id.map(|id| format!("{id:016x}")),
            initial_cluster: Some(initial),
            claim_uid: claim.and_then(|claim| claim.metadata.uid.clone()),
            ..member.status.clone().unwrap_or_default()
        };
        write_member_status(self.client, member, status).await?;
        Ok(())
    }

    pub(super) async fn latch_cluster_id(&self, id: u64) -> Result<(), ActError> {
        let mut status = self.cluster.status.clone().unwrap_or_default();
        status.cluster_id = Some(format!("{id:016x}"));
        write_cluster_status(self.client, self.cluster, status).await?;
        Ok(())
    }

    pub(super) async fn latch_member_id(&self, name: &str, id: u64) -> Result<(), ActError> {
        let member = self.member(name)?;
        let mut status = member.status.clone().unwrap_or_default();
        status.member_id = Some(format!("{id:016x}"));
        write_member_status(self.client, member, status).await?;
        Ok(())
    }

    pub(super) async fn create_claim(&self, name: &str) -> Result<(), ActError> {
        let claim = objects::claim(self.cluster, self.member(name)?);
        let claim = claim.ok_or_else(|| ActError::Missing("data lie in memory".to_owned()))?;
        let claims = Api::namespaced(self.client.clone(), &self.namespace());
        claims.create(&PostParams::default(), &claim).await?;
        Ok(())
    }

    pub(super) async fn create_pod(&self, name: &str) -> Result<(), ActError> {
        let others = self.objects.members.keys().filter(|other| *other != name);
        let names = self.names();
        let peers: Vec<_> = others
            .map(|other| Peer {
                name: other.clone(),
                client_url: names.client_url(other),
            })
            .collect();
        let member = self.member(name)?;
        let pod = objects::pod(self.cluster, member, self.settings, &peers, self.restore)
            .map_err(|refusal| ActError::Missing(refusal.message))?;
        let pods = Api::namespaced(self.client.clone(), &self.namespace());
        pods.create(&PostParams::default(), &pod).await?;
        Ok(())
    }

    pub(super) async fn delete_pod(&self, name: &str, uid: &str) -> Result<(), ActError> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace());
        let only_this = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        gone_is_fine(pods.delete(name, &only_this).await)
    }
}

/// What is deleted may be gone already, or be another one by now.
pub(super) fn gone_is_fine<T>(result: kube::Result<T>) -> Result<(), ActError> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
