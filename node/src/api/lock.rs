//! The Lock service.
//!
//! etcd: server/etcdserver/api/v3lock/lock.go, client/v3/concurrency/mutex.go.

use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::v3lockpb::lock_server::Lock;
use quorate_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::contend::{self, Abandon, Contest};
use crate::model::kv::TxnRequest;
use crate::replica::Replica;

/// etcd: `ErrSessionExpired`.
const SESSION_EXPIRED: &str = "mutex: session is expired";

/// Serves locks; all of their state is keys.
#[derive(Clone)]
pub struct LockService {
    contest: Contest,
}

impl LockService {
    pub fn new(replica: Arc<Replica>) -> Self {
        Self {
            contest: Contest::new(replica),
        }
    }

    /// Enters the queue for a lock and waits for its turn. Returns the key and the revision for
    /// the header.
    async fn acquire(&self, name: &[u8], lease: i64) -> Result<(Bytes, i64), Status> {
        let lease = self.contest.lease(lease).await?;
        let prefix = contend::prefix(name);
        let key = contend::key(&prefix, lease);
        let owner = contend::get(contend::first_created(&prefix));
        let entered = self
            .contest
            .txn(TxnRequest {
                compare: vec![contend::created_at(key.clone(), 0)],
                success: vec![
                    contend::put(key.clone(), Bytes::new(), lease),
                    owner.clone(),
                ],
                failure: vec![contend::get(contend::get_key(key.clone())), owner],
            })
            .await?;
        let created = if entered.succeeded() {
            entered.revision()
        } else {
            entered.found(0).map_or(0, |own| own.create_revision)
        };
        let owner = entered.found(1);
        if owner.is_none_or(|owner| owner.create_revision == created) {
            return Ok((key, entered.revision()));
        }
        let abandon = Abandon::new(&self.contest, key.clone(), created);
        self.contest.wait_for_older(&prefix, created).await?;
        // The lease may have ended while we waited: then somebody else may hold the lock by now.
        let own = self.contest.range(contend::get_key(key.clone())).await?;
        let standing = own.kvs.first();
        if standing.is_none_or(|own| own.create_revision != created) {
            return Err(Status::unknown(SESSION_EXPIRED));
        }
        abandon.disarm();
        Ok((key, contend::revision(own.header.as_ref())))
    }
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let LockRequest { name, lease } = request.into_inner();
        let (key, revision) = self.acquire(&name, lease).await?;
        Ok(Response::new(LockResponse {
            header: Some(self.contest.headers.at(revision)),
            key,
        }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(contend::unknown(&crate::model::Refusal::EmptyKey));
        }
        let revision = self.contest.delete(key).await?;
        Ok(Response::new(UnlockResponse {
            header: Some(self.contest.headers.at(revision)),
        }))
    }
}
