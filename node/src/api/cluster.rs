//! The Cluster service: the members as the log has them.
//!
//! etcd: server/etcdserver/api/v3rpc/member.go.

use std::sync::Arc;

use quorate_proto::etcdserverpb::cluster_server::Cluster;
use quorate_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::status::{failure, not_yet, status};
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
            // etcd leaves the revision out of every answer of this service.
            header: Some(self.headers.at(0)),
            members: members
                .into_iter()
                .map(|member| Member {
                    id: member.id,
                    name: member.name,
                    peer_ur_ls: member.peer_urls,
                    client_ur_ls: member.client_urls,
                    is_learner: member.is_learner,
                })
                .collect(),
        }))
    }

    async fn member_add(
        &self,
        _request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        Err(not_yet("MemberAdd"))
    }

    async fn member_remove(
        &self,
        _request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(not_yet("MemberRemove"))
    }

    async fn member_update(
        &self,
        _request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(not_yet("MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(not_yet("MemberPromote"))
    }
}
