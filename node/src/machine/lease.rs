//! Leases: which exist, and which keys they hold. Deadlines are the leader's, elsewhere.
//!
//! etcd: server/lease/lessor.go.

use super::revision::Revision;
use super::{Applied, Machine, header};
use crate::model::kv::{
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, Reply,
};
use crate::model::limits::LEASE_TTL_SECONDS_MAX;
use crate::model::{LeaseChange, Refusal};
use crate::storage::layout::LeaseRow;
use crate::storage::{Batch, Error};

impl Machine {
    /// The door has chosen an ID where the caller gave none, and raised a TTL that is too short.
    pub(super) fn grant(
        &mut self,
        batch: &mut Batch,
        request: &LeaseGrantRequest,
    ) -> Result<Applied, Error> {
        if request.id == 0 {
            return Ok(Applied::refused(Refusal::LeaseNotFound));
        }
        if request.ttl > LEASE_TTL_SECONDS_MAX {
            return Ok(Applied::refused(Refusal::LeaseTtlTooLarge));
        }
        if batch.reader().lease(request.id)?.is_some() {
            return Ok(Applied::refused(Refusal::LeaseExists));
        }
        let row = LeaseRow {
            ttl_seconds: request.ttl,
            remaining_seconds: 0,
        };
        batch.put_lease(request.id, row);
        let mut applied = Applied::done(Reply::LeaseGrant(LeaseGrantResponse {
            header: header(self.revision),
            id: request.id,
            ttl: request.ttl,
            error: String::new(),
        }));
        applied.lease_changes.push(LeaseChange::Granted {
            id: request.id,
            ttl_seconds: request.ttl,
        });
        Ok(applied)
    }

    /// Deletes the lease and, in one revision and in their order, the keys that it holds.
    pub(super) fn revoke(
        &mut self,
        batch: &mut Batch,
        request: &LeaseRevokeRequest,
    ) -> Result<Applied, Error> {
        let reader = batch.reader();
        if reader.lease(request.id)?.is_none() {
            return Ok(Applied::refused(Refusal::LeaseNotFound));
        }
        let keys = reader.lease_keys(request.id)?;
        let mut revision = Revision::begin(batch, self.revision);
        for key in &keys {
            if let Some(head) = revision.batch.reader().head(key)? {
                revision.delete(key, &head);
            }
        }
        revision.batch.delete_lease(request.id);
        let mut applied = self.end(revision, |revision| {
            Reply::LeaseRevoke(LeaseRevokeResponse {
                header: header(revision),
            })
        });
        applied
            .lease_changes
            .push(LeaseChange::Revoked { id: request.id });
        Ok(applied)
    }

    /// Keeps what remains of leases' TTLs, for the next leader. Unknown leases are passed over.
    pub(super) fn checkpoint(
        &mut self,
        batch: &mut Batch,
        request: &LeaseCheckpointRequest,
    ) -> Result<Applied, Error> {
        let mut applied = Applied::done(Reply::Done);
        for checkpoint in &request.checkpoints {
            let Some(row) = batch.reader().lease(checkpoint.id)? else {
                continue;
            };
            batch.put_lease(
                checkpoint.id,
                LeaseRow {
                    remaining_seconds: checkpoint.remaining_ttl,
                    ..row
                },
            );
            applied.lease_changes.push(LeaseChange::Checkpointed {
                id: checkpoint.id,
                remaining_seconds: checkpoint.remaining_ttl,
            });
        }
        Ok(applied)
    }
}
