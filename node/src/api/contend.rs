//! What Lock and Election share: contenders are keys under one prefix, each bound to a lease, and
//! the one that was created first holds what they contend for. No state of its own: everything is
//! a txn, a read or a watch of this member.
//!
//! etcd: client/v3/concurrency/{session,key,mutex,election}.go, which its server calls. Whatever
//! goes wrong in there reaches the client with code Unknown.

use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::response_op::Response;
use tonic::Status;

use super::header::Headers;
use crate::model::kv::{
    Command, Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, PutRequest, RangeRequest,
    RangeResponse, Reply, RequestOp, ResponseHeader, TxnRequest, TxnResponse, command,
};
use crate::model::limits::LOCK_LEASE_TTL_SECONDS;
use crate::model::{KeyRange, Refusal};
use crate::replica::Replica;
use crate::watch::{Body, WatchSpec};

/// This member, as a contender uses it.
#[derive(Clone)]
pub(super) struct Contest {
    pub(super) replica: Arc<Replica>,
    pub(super) headers: Headers,
}

impl Contest {
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        let headers = Headers::new(Arc::clone(&replica));
        Self { replica, headers }
    }

    /// The caller's lease, or a new one that nobody keeps alive.
    pub(super) async fn lease(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let grant = LeaseGrantRequest {
            ttl: LOCK_LEASE_TTL_SECONDS,
            id: rand::random_range(1..=i64::MAX),
        };
        match self.propose(command::Kind::LeaseGrant(grant)).await? {
            Reply::LeaseGrant(granted) => Ok(granted.id),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn txn(&self, txn: TxnRequest) -> Result<Outcome, Status> {
        match self.propose(command::Kind::Txn(txn)).await? {
            Reply::Txn(response) => Ok(Outcome { response }),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn delete(&self, key: Bytes) -> Result<i64, Status> {
        let delete = DeleteRangeRequest {
            key,
            ..Default::default()
        };
        match self.propose(command::Kind::DeleteRange(delete)).await? {
            Reply::DeleteRange(response) => Ok(revision(response.header.as_ref())),
            other => Err(unexpected(&other)),
        }
    }

    async fn propose(&self, kind: command::Kind) -> Result<Reply, Status> {
        let command = Command { kind: Some(kind) };
        self.replica
            .propose(command)
            .await
            .map_err(|refusal| unknown(&refusal))
    }

    /// A linearizable read.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.replica
            .barrier()
            .await
            .map_err(|refusal| unknown(&refusal))?;
        let view = self.replica.view();
        let read = tokio::task::spawn_blocking(move || view.range(&request)).await;
        let read = read.map_err(|error| unknown(&error))?;
        read.map_err(|error| unknown(&error))
    }

    /// The contender that was created first, with the revision of the read.
    pub(super) async fn first(&self, prefix: &Bytes) -> Result<(Option<KeyValue>, i64), Status> {
        let response = self.range(first_created(prefix)).await?;
        let read_at = revision(response.header.as_ref());
        Ok((response.kvs.into_iter().next(), read_at))
    }

    /// Waits until every contender older than `created` is gone.
    ///
    /// Each waits for the one right before it, so that a release wakes one waiter alone.
    pub(super) async fn wait_for_older(&self, prefix: &Bytes, created: i64) -> Result<(), Status> {
        loop {
            let response = self.range(last_created_before(prefix, created)).await?;
            let read_at = revision(response.header.as_ref());
            let Some(predecessor) = response.kvs.into_iter().next() else {
                return Ok(());
            };
            self.wait_for_deletion(predecessor.key, read_at).await?;
        }
    }

    /// Returns once `key` was deleted at or after `from`, or when a compaction hides whether it
    /// was: the caller looks again.
    async fn wait_for_deletion(&self, key: Bytes, from: i64) -> Result<(), Status> {
        let mut stream = self.replica.hub().subscribe();
        let spec = WatchSpec {
            no_put: true,
            ..WatchSpec::new(KeyRange::One(key), from)
        };
        stream.create(spec).map_err(|error| unknown(&error))?;
        loop {
            let delivery = stream.next().await.map_err(|error| unknown(&error))?;
            if !matches!(delivery.body, Body::Progress) {
                return Ok(());
            }
        }
    }
}

/// What a txn answered.
pub(super) struct Outcome {
    response: TxnResponse,
}

impl Outcome {
    pub(super) fn succeeded(&self) -> bool {
        self.response.succeeded
    }

    pub(super) fn revision(&self) -> i64 {
        revision(self.response.header.as_ref())
    }

    /// The first record that the range at `index` found.
    pub(super) fn found(&self, index: usize) -> Option<&KeyValue> {
        match self.response.responses.get(index)?.response.as_ref()? {
            Response::ResponseRange(range) => range.kvs.first(),
            _ => None,
        }
    }
}

/// Gives up a contender's key when its caller goes away while it waits.
pub(super) struct Abandon {
    contest: Contest,
    key: Bytes,
    created: i64,
    armed: bool,
}

impl Abandon {
    pub(super) fn new(contest: &Contest, key: Bytes, created: i64) -> Self {
        Self {
            contest: contest.clone(),
            key,
            created,
            armed: true,
        }
    }

    /// The wait is over: the key stays.
    pub(super) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        let runtime = match (self.armed, tokio::runtime::Handle::try_current()) {
            (true, Ok(runtime)) => runtime,
            // Without a runtime the process is ending; then the lease frees the key.
            _ => return,
        };
        let contest = self.contest.clone();
        let resign = resign(self.key.clone(), self.created);
        runtime.spawn(async move {
            if let Err(error) = contest.txn(resign).await {
                tracing::warn!(%error, "a contender's key is left to its lease");
            }
        });
    }
}

/// `<name>/`
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// `<prefix><lease in hexadecimal>`, the sign before it if the lease is negative.
pub(super) fn key(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    let suffix = format!("{sign}{:x}", lease.unsigned_abs());
    [prefix, suffix.as_bytes()].concat().into()
}

/// Every key that starts with `prefix`, which ends in `/`.
pub(super) fn prefix_end(prefix: &Bytes) -> Bytes {
    let name = prefix.strip_suffix(b"/").unwrap_or(prefix);
    // `0` follows `/`.
    [name, b"0"].concat().into()
}

/// The oldest contender.
pub(super) fn first_created(prefix: &Bytes) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..Default::default()
    }
}

fn last_created_before(prefix: &Bytes, created: i64) -> RangeRequest {
    RangeRequest {
        sort_order: SortOrder::Descend.into(),
        max_create_revision: created - 1,
        ..first_created(prefix)
    }
}

/// `key` has this create revision; 0 = there is no such key.
pub(super) fn created_at(key: Bytes, create_revision: i64) -> Compare {
    Compare {
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(create_revision)),
        ..Default::default()
    }
}

/// Deletes a contender's key if it is still the same one.
pub(super) fn resign(key: Bytes, created: i64) -> TxnRequest {
    let delete = DeleteRangeRequest {
        key: key.clone(),
        ..Default::default()
    };
    TxnRequest {
        compare: vec![created_at(key, created)],
        success: vec![operation(Request::RequestDeleteRange(delete))],
        failure: Vec::new(),
    }
}

pub(super) fn put(key: Bytes, value: Bytes, lease: i64) -> RequestOp {
    operation(Request::RequestPut(PutRequest {
        key,
        value,
        lease,
        ..Default::default()
    }))
}

pub(super) fn get(request: RangeRequest) -> RequestOp {
    operation(Request::RequestRange(request))
}

pub(super) fn get_key(key: Bytes) -> RangeRequest {
    RangeRequest {
        key,
        ..Default::default()
    }
}

fn operation(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

pub(super) fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

pub(super) fn unknown(error: &dyn std::error::Error) -> Status {
    Status::unknown(error.to_string())
}

/// The machine answers a command with its own kind of reply.
fn unexpected(reply: &Reply) -> Status {
    tracing::error!(?reply, "a reply of another command");
    unknown(&Refusal::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_etcd() {
        let prefix = prefix(b"lock");
        assert_eq!(key(&prefix, 0x1f), "lock/1f");
        assert_eq!(key(&prefix, -3), "lock/-3");
        assert_eq!(key(&prefix, i64::MIN), "lock/-8000000000000000");
        assert_eq!(prefix_end(&prefix), "lock0");
        assert!(KeyRange::new(&prefix, &prefix_end(&prefix)).contains(b"lock/1f"));
        assert!(!KeyRange::new(&prefix, &prefix_end(&prefix)).contains(b"lock2/1f"));
    }
}
