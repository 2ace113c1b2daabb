//! The Cluster service: the members as the log has them, and their changes.
//!
//! etcd: server/etcdserver/api/v3rpc/member.go.

use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt;
use quorate_proto::etcdserverpb::cluster_server::Cluster;
use quorate_proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::parse::member::peer_urls;
use super::status::{failure, status};
use crate::model::kv::MemberMessage as Wire;
use crate::model::member::added_member_id;
use crate::raft::membership::MemberChange;
use crate::replica::Replica;

/// Members as clients see them.
pub struct ClusterService {
    replica: Arc<Replica>,
    headers: Headers,
}

impl ClusterService {
    pub fn new(replica: Arc<Replica>) -> Self {
        Self {
            headers: Headers::new(Arc::clone(&replica)),
            replica,
        }
    }

    /// etcd leaves the revision out of every answer of this service.
    fn header(&self) -> Option<ResponseHeader> {
        Some(self.headers.at(0))
    }

    async fn change(&self, change: MemberChange) -> Result<Vec<Wire>, Status> {
        let members = self.replica.change_members(change).boxed().await;
        Ok(members
            .map_err(status)?
            .into_iter()
            .map(Wire::from)
            .collect())
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.replica.barrier().await.map_err(status)?;
        }
        let members = self.replica.view().members();
        let members = members.map_err(|error| failure(&error))?;
        Ok(Response::new(MemberListResponse {
            header: self.header(),
            members: members.into_iter().map(Wire::from).collect(),
        }))
    }

    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let request = request.into_inner();
        let peer_urls = peer_urls(&request.peer_ur_ls).map_err(status)?;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_epoch.map_or(0, |since| since.as_secs());
        let id = added_member_id(&peer_urls, seconds);
        let is_learner = request.is_learner;
        let added = Wire {
            id,
            peer_ur_ls: peer_urls.clone(),
            is_learner,
            ..Default::default()
        };
        let change = MemberChange::Add {
            id,
            peer_urls,
            is_learner,
        };
        let members = self.change(change).await?;
        Ok(Response::new(MemberAddResponse {
            header: self.header(),
            member: Some(added),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let id = request.into_inner().id;
        let members = self.change(MemberChange::Remove { id }).await?;
        Ok(Response::new(MemberRemoveResponse {
            header: self.header(),
            members,
        }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        // etcd takes them unseen, and each member that cannot use them panics.
        peer_urls(&request.peer_ur_ls).map_err(status)?;
        let change = MemberChange::Update {
            id: request.id,
            peer_urls: request.peer_ur_ls,
        };
        let members = self.change(change).await?;
        Ok(Response::new(MemberUpdateResponse {
            header: self.header(),
            members,
        }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let id = request.into_inner().id;
        let members = self.change(MemberChange::Promote { id }).await?;
        Ok(Response::new(MemberPromoteResponse {
            header: self.header(),
            members,
        }))
    }
}
