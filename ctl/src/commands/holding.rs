//! Keeping a lease alive, and what is held under one: a session with a key in a queue.

use super::{get, lease};
use crate::outcome::Exit;
use crate::rpc::{Effect, Rpc, RpcError};
use bytes::Bytes;
use futures::StreamExt as _;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::request_op::Request;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// A broken stream is opened again after this, as in etcd's client (client/v3/lease.go).
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// How long a session waits for the first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// Renews a lease three times in its time to live until it is gone or nothing was heard of it for
/// that long; every answer goes to `on_response`.
///
/// # Errors
/// What `on_response` gives back.
pub async fn keep_alive(
    rpc: &Rpc,
    id: i64,
    first_answer: Duration,
    mut on_response: impl FnMut(&pb::LeaseKeepAliveResponse) -> Result<(), Exit>,
) -> Result<(), Exit> {
    let mut dead_at = Instant::now() + first_answer;
    loop {
        let question = pb::LeaseKeepAliveRequest { id };
        let Ok(opened) = timeout_at(dead_at, open_keep_alive(rpc, question)).await else {
            return Ok(());
        };
        if let Ok((requests, mut responses)) = opened {
            loop {
                let Ok(received) = timeout_at(dead_at, responses.message()).await else {
                    return Ok(());
                };
                let Ok(Some(response)) = received else { break };
                let Ok(ttl_s @ 1..) = u64::try_from(response.ttl) else {
                    return Ok(());
                };
                let ttl = Duration::from_secs(ttl_s);
                dead_at = Instant::now() + ttl;
                on_response(&response)?;
                sleep(ttl / 3).await;
                if requests.send(question).await.is_err() {
                    break;
                }
            }
        }
        if Instant::now() >= dead_at {
            return Ok(());
        }
        sleep(RECONNECT_PAUSE).await;
    }
}

type KeepAliveStream = (
    mpsc::Sender<pb::LeaseKeepAliveRequest>,
    Streaming<pb::LeaseKeepAliveResponse>,
);

/// Opens the stream with a first question on it: the server says nothing before it was asked.
async fn open_keep_alive(
    rpc: &Rpc,
    question: pb::LeaseKeepAliveRequest,
) -> Result<KeepAliveStream, Status> {
    let (sender, receiver) = mpsc::channel(1);
    let questions = futures::stream::iter([question]).chain(ReceiverStream::new(receiver));
    let request = rpc.request(questions);
    let stream = rpc.client().lease_raw().lease_keep_alive(request).await?;
    Ok((sender, stream.into_inner()))
}

/// A lease that is kept alive in the background.
#[derive(Debug)]
pub struct Session {
    rpc: Rpc,
    /// The lease.
    pub lease: i64,
    lost: watch::Receiver<bool>,
}

impl Session {
    /// Takes a lease of `ttl_s` seconds.
    ///
    /// # Errors
    /// What the server said.
    pub async fn new(rpc: &Rpc, ttl_s: i64) -> Result<Self, RpcError> {
        let lease = lease::grant_lease(rpc, None, ttl_s).await?.id;
        let (sender, lost) = watch::channel(false);
        let kept = rpc.clone();
        tokio::spawn(async move {
            let ended = keep_alive(&kept, lease, FIRST_ANSWER, |_| Ok(())).await;
            debug_assert!(ended.is_ok(), "answers are only counted");
            sender.send_replace(true);
        });
        Ok(Self {
            rpc: rpc.clone(),
            lease,
            lost,
        })
    }

    /// Waits until the lease is gone.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // The task that keeps the lease sends before it ends; if it died, the lease is lost too.
        lost.wait_for(|lost| *lost)
            .await
            .map(drop)
            .unwrap_or_default();
    }

    /// Enters the queue `name`, once a session; the value stands in the key.
    ///
    /// # Errors
    /// What the server said.
    pub async fn enter(&self, name: &[u8], value: &[u8]) -> Result<Place, RpcError> {
        let prefix = [name, b"/"].concat();
        let key = [prefix.as_slice(), format!("{:x}", self.lease).as_bytes()].concat();
        let key = Bytes::from(key);
        let place = Place {
            rpc: self.rpc.clone(),
            prefix: prefix.into(),
            key: key.clone(),
            entered_at: 0,
            revision: 0,
        };
        let put = pb::PutRequest {
            key: key.clone(),
            value: Bytes::copy_from_slice(value),
            lease: self.lease,
            ..Default::default()
        };
        let get = pb::RangeRequest {
            key,
            ..Default::default()
        };
        let request = pb::TxnRequest {
            compare: vec![place.created_at(0)],
            success: vec![operation(Request::RequestPut(put))],
            failure: vec![operation(Request::RequestRange(get))],
        };
        let response = place.txn(request).await?;
        let entered_at = response.header.unwrap_or_default().revision;
        let existing = response.responses.first().and_then(existing_revision);
        let revision = existing.unwrap_or(entered_at);
        Ok(Place {
            revision,
            entered_at,
            ..place
        })
    }
}

fn operation(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

fn existing_revision(operation: &pb::ResponseOp) -> Option<i64> {
    match &operation.response {
        Some(pb::response_op::Response::ResponseRange(range)) => {
            range.kvs.first().map(|pair| pair.create_revision)
        }
        _ => None,
    }
}

/// A key in a queue: the oldest one holds the lock, or leads.
#[derive(Debug)]
pub struct Place {
    rpc: Rpc,
    prefix: Bytes,
    /// The key.
    pub key: Bytes,
    /// The revision of the store when we entered.
    pub entered_at: i64,
    revision: i64,
}

impl Place {
    fn created_at(&self, revision: i64) -> pb::Compare {
        pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: self.key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::CreateRevision(revision)),
        }
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, RpcError> {
        let method = "/etcdserverpb.KV/Txn";
        self.rpc
            .call(
                Effect::Write,
                method,
                None,
                request,
                async |client, request| client.kv().txn(request).await,
            )
            .await
    }

    /// Waits until nobody is before us; tells whether somebody was.
    ///
    /// # Errors
    /// What the server said.
    pub async fn wait_for_turn(&self) -> Result<bool, RpcError> {
        let mut waited = false;
        loop {
            let request = pb::RangeRequest {
                key: self.prefix.clone(),
                range_end: crate::print::prefix_end(&self.prefix),
                limit: 1,
                sort_order: SortOrder::Descend.into(),
                sort_target: SortTarget::Create.into(),
                max_create_revision: self.revision - 1,
                ..Default::default()
            };
            let response = get::range(&self.rpc, None, request).await?;
            let header = response.header.unwrap_or_default();
            let Some(before) = response.kvs.into_iter().next() else {
                return Ok(waited);
            };
            waited = true;
            super::watch_stream::wait_for_delete(&self.rpc, before.key, header.revision).await?;
        }
    }

    /// Reads our own key.
    ///
    /// # Errors
    /// What the server said.
    pub async fn read(&self) -> Result<pb::RangeResponse, RpcError> {
        let request = pb::RangeRequest {
            key: self.key.clone(),
            ..Default::default()
        };
        get::range(&self.rpc, None, request).await
    }

    /// Leaves the queue; does nothing when the key is no longer ours.
    ///
    /// # Errors
    /// What the server said.
    pub async fn leave(&self) -> Result<(), RpcError> {
        let delete = pb::DeleteRangeRequest {
            key: self.key.clone(),
            ..Default::default()
        };
        let request = pb::TxnRequest {
            compare: vec![self.created_at(self.revision)],
            success: vec![operation(Request::RequestDeleteRange(delete))],
            failure: vec![],
        };
        self.txn(request).await.map(drop)
    }
}
