//! The Maintenance service.
//!
//! etcd: server/etcdserver/api/v3rpc/maintenance.go.

use std::sync::Arc;
use std::time::Instant;

use quorate_proto::etcdserverpb::maintenance_server::Maintenance;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, SnapshotRequest, StatusRequest, StatusResponse,
};
use quorate_proto::{SNAPSHOT_COMPACT_REVISION, SNAPSHOT_REVISION};
use tonic::{Request, Response, Status};

use super::conditions;
use super::header::Headers;
use super::kv::blocking;
use super::snapshot::{SnapshotStream, Snapshots};
use super::status::{failure, read_status, status};
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
        let conditions = Arc::clone(&view.conditions);
        let (size, in_use) = blocking(move || view.db().size_bytes())
            .await?
            .map_err(|error| failure(&error))?;
        let raft = self.replica.status();
        let no_leader = (raft.leader == 0).then(|| Refusal::NoLeader.to_string());
        let alarms = conditions.alarms().iter().map(conditions::alarm_text);
        let errors = no_leader.into_iter().chain(alarms).collect();
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
            downgrade_info: Some(conditions::downgrade_info(&conditions)),
        }))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let view = self.replica.view();
        let revision = view.revision;
        let started = Instant::now();
        let hash = blocking(move || view.hash())
            .await?
            .map_err(|error| failure(&error))?;
        self.replica.tally().hashes.observe(started.elapsed());
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
        let answer = self.replica.hash_kv(asked).await.map_err(read_status)?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.headers.at(answer.newest)),
            hash: answer.hash,
            compact_revision: answer.compacted,
            hash_revision: answer.revision,
        }))
    }

    async fn defragment(
        &self,
        _request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        let db = self.replica.db();
        let tally = Arc::clone(self.replica.tally());
        tracing::info!("starting defragment");
        // What the published view still shows could not be given back.
        self.replica.renew_view().map_err(|error| failure(&error))?;
        let work = move || {
            let started = Instant::now();
            tally.defragments_in_flight.add(1);
            let done = db.compact();
            tally.defragments_in_flight.subtract(1);
            tally.defragments.observe(started.elapsed());
            done
        };
        blocking(work).await?.map_err(|error| failure(&error))?;
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
        let request = request.into_inner();
        let answer = conditions::alarm(&self.replica, &self.headers, request).await;
        answer.map(Response::new)
    }

    async fn snapshot(
        &self,
        _request: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotStream>, Status> {
        let version = self.release.storage_version.clone();
        let view = self.replica.view();
        let (revision, compacted) = (view.revision, view.compacted);
        let mut response = Response::new(self.snapshots.send(view, version)?);
        // etcd's messages have no place for them. Who names the file after its revision needs it
        // before the first byte; others do not look here.
        let metadata = response.metadata_mut();
        metadata.insert(SNAPSHOT_REVISION, revision.into());
        metadata.insert(SNAPSHOT_COMPACT_REVISION, compacted.into());
        Ok(response)
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let request = request.into_inner();
        let answer = conditions::downgrade(&self.replica, &self.headers, request).await;
        answer.map(Response::new)
    }
}
