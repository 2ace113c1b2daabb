//! Doing the one thing that was planned. Each action names what it saw (UIDs, IDs), so that one
//! planned on a stale look fails instead of doing harm.

mod births;
pub mod finalizer;
mod kube_objects;
mod membership;
mod space;

pub(crate) use kube_objects::write_status;
pub use kube_objects::{apply, write_cluster_status, write_member_status};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use quorate_sidecar::wire::RestoreRequest;

use crate::api::{QuorateCluster, QuorateMember};
use crate::model::Action;
use crate::objects::{Names, Settings};
use crate::observe::{Heard, Objects};

/// Why an action did not succeed. It is planned anew from another look.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The API server refuses or does not answer.
    #[error("{0}")]
    Kubernetes(#[from] kube::Error),
    /// A member refuses or does not answer.
    #[error("{0}")]
    Member(#[from] quorate_client::Error),
    /// What the action needs is not there.
    #[error("{0}")]
    Missing(String),
}

impl ActError {
    /// Whether it passes by itself, and is no news: a learner that has not caught up, an object
    /// that changed meanwhile.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Kubernetes(kube::Error::Api(status)) => status.code == 409,
            Self::Member(quorate_client::Error::Refused { text, .. }) => {
                text.contains("can only promote a learner member which is in sync with leader")
                    || text.contains("unhealthy cluster")
            }
            _ => false,
        }
    }

    /// Whether Kubernetes refuses because a quota is used up.
    #[must_use]
    pub fn quota(&self) -> bool {
        match self {
            Self::Kubernetes(kube::Error::Api(status)) => {
                status.code == 403 && status.message.contains("exceeded quota")
            }
            _ => false,
        }
    }
}

/// What actions are done with.
pub struct Hands<'a> {
    /// The API server.
    pub client: &'a kube::Client,
    /// The cluster.
    pub cluster: &'a QuorateCluster,
    /// Its objects.
    pub objects: &'a Objects,
    /// Its members.
    pub heard: &'a Heard,
    /// What Pods are made with.
    pub settings: &'a Settings,
    /// What a seed starts from.
    pub restore: Option<&'a RestoreRequest>,
}

impl Hands<'_> {
    fn namespace(&self) -> String {
        self.cluster.namespace().unwrap_or_default()
    }

    fn member(&self, name: &str) -> Result<&QuorateMember, ActError> {
        let found = self.objects.members.get(name);
        found.ok_or_else(|| ActError::Missing(format!("there is no QuorateMember {name}")))
    }

    fn names(&self) -> Names {
        Names::new(self.cluster)
    }

    fn claim_of(&self, member: &str) -> Option<&PersistentVolumeClaim> {
        self.objects.claims.get(&self.names().claim(member))
    }

    /// Does it.
    ///
    /// # Errors
    /// It was not done, or it is not known whether it was.
    pub async fn act(&self, action: &Action) -> Result<(), ActError> {
        match action {
            Action::CreateSeed { name } => self.create_member(name, crate::api::Birth::Seed).await,
            Action::CreateJoiner { name } => {
                self.create_member(name, crate::api::Birth::Join).await
            }
            Action::AdmitSeed { name } => self.admit_seed(name).await,
            Action::AdmitJoiner { name } => self.admit_joiner(name).await,
            Action::LatchClusterId { id } => self.latch_cluster_id(*id).await,
            Action::LatchMemberId { name, id } => self.latch_member_id(name, *id).await,
            Action::CreateClaim { name } => self.create_claim(name).await,
            Action::CreatePod { name } => self.create_pod(name).await,
            Action::DeletePod { name, uid, .. } => self.delete_pod(name, uid).await,
            Action::ExpandClaim { name, bytes } => self.expand_claim(name, *bytes).await,
            Action::Promote { id, .. } => self.promote(*id).await,
            Action::MoveLeader { to, .. } => self.move_leader(*to).await,
            Action::Retire {
                name,
                cause,
                replacement,
            } => self.retire(name, *cause, *replacement).await,
            Action::RemoveMember { id, .. } => self.remove_member(*id).await,
            Action::DropMember { name, delete_claim } => {
                self.drop_member(name, *delete_claim).await
            }
            Action::FreeSpace => self.free_space().await,
            Action::Release => Ok(finalizer::let_go(self.client, self.cluster).await?),
        }
    }
}
