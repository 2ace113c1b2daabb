//! The Maintenance service.
//!
//! etcd: server/etcdserver/api/v3rpc/maintenance.go.

use std::sync::Arc;

use quorate_proto::etcdserverpb::alarm_request::AlarmAction;
use quorate_proto::etcdserverpb::maintenance_server::Maintenance;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, StatusRequest, StatusResponse,
};
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::kv::blocking;
use super::snapshot::{SnapshotStream, Snapshots};
use super::status::{failure, not_yet, read_status, status};
use crate::model::Refusal;
use crate::replica::Replica;

/// What `Status` tells besides where raft and the store stand.
#[derive(Debug, Clone)]
pub struct Release {
    /// The release of etcd that we are compatible with.
    pub version: String,
    pub storage_version: String,
    pub quota_bytes: i64,
}

/// Maintenance as clients see it.
pub struct MaintenanceService {
    replica: Arc<Replica>,
    headers: Headers,
    release: Release,
    snapshots: Snapshots,
}

impl MaintenanceService {
    pub fn new(replica: Arc<Replica>, release: Release) -> Self {
        Self {
            headers: Headers::new(Arc::clone(&replica)),
            replica,
            release,
            snapshots: Snapshots::new(),
        }
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = SnapshotStream;

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let view = self.replica.view();
        let (size, in_use) = blocking(move || view.db().size_bytes())
            .await?
            .map_err(|error| failure(&error))?;
        let raft = self.replica.status();
        let errors = if raft.leader == 0 {
            vec![Refusal::NoLeader.to_string()]
        } else {
            Vec::new()
        };
        Ok(Response::new(StatusResponse {
            header: Some(self.headers.now()),
            version: self.release.version.clone(),
            db_size: i64::try_from(size).unwrap_or(i64::MAX),
            leader: raft.leader,
            raft_index: raft.committed_index,
            raft_term: raft.term,
            raft_applied_index: raft.applied_index,
            errors,
            db_size_in_use: i64::try_from(in_use).unwrap_or(i64::MAX),
            is_learner: raft.is_learner,
            storage_version: self.release.storage_version.clone(),
            db_size_quota: self.release.quota_bytes,
            downgrade_info: Some(DowngradeInfo::default()),
        }))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let view = self.replica.view();
        let revision = view.revision;
        let hash = blocking(move || view.hash())
            .await?
            .map_err(|error| failure(&error))?;
        Ok(Response::new(HashResponse {
            header: Some(self.headers.at(revision)),
            hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let asked = request.into_inner().revision;
        let view = self.replica.view();
        let revision = view.revision;
        let (hash, compact_revision, hash_revision) = blocking(move || view.hash_kv(asked))
            .await?
            .map_err(read_status)?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.headers.at(revision)),
            hash,
            compact_revision,
            hash_revision,
        }))
    }

    async fn defragment(
        &self,
        _request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        let view = self.replica.view();
        tracing::info!("starting defragment");
        blocking(move || view.db().flush().and_then(|()| view.db().compact()))
            .await?
            .map_err(|error| failure(&error))?;
        tracing::info!("finished defragment");
        // etcd sends no header with it.
        Ok(Response::new(DefragmentResponse::default()))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        if !self.replica.status().is_leader {
            return Err(status(Refusal::NotLeader));
        }
        let target = request.into_inner().target_id;
        self.replica.move_leader(target).await.map_err(status)?;
        // etcd sends no header with it.
        Ok(Response::new(MoveLeaderResponse::default()))
    }

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        match AlarmAction::try_from(request.into_inner().action) {
            // Nothing raises an alarm yet, so that there is none.
            Ok(AlarmAction::Get) => Ok(Response::new(AlarmResponse {
                header: Some(self.headers.now()),
                alarms: Vec::new(),
            })),
            Ok(AlarmAction::Activate) => Err(not_yet("activating an alarm")),
            Ok(AlarmAction::Deactivate) => Err(not_yet("deactivating an alarm")),
            // etcd: server/etcdserver/apply/apply.go answers nothing to an action it does not
            // know.
            Err(_) => Ok(Response::new(AlarmResponse {
                header: Some(self.headers.now()),
                alarms: Vec::new(),
            })),
        }
    }

    async fn snapshot(
        &self,
        _request: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotStream>, Status> {
        let version = self.release.storage_version.clone();
        let stream = self.snapshots.send(self.replica.view(), version)?;
        Ok(Response::new(stream))
    }

    async fn downgrade(
        &self,
        _request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        Err(not_yet("Downgrade"))
    }
}
