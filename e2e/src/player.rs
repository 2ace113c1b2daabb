//! Plays a script to one server, and puts the answers into a form that two servers can share.
//!
//! Masked are only cluster and member IDs, terms, and how much time a lease has left.

use crate::rpc::{self, KvClient, LeaseClient, MaintenanceClient};
use crate::script::Step;
use crate::wait;
use crate::watcher::{Stream, request};
use anyhow::{Context, Result};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::response_op;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Response, Status};

/// How long a call may take; large values on a busy machine are slow.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What one server answered: text that must equal the other server's, and the revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    pub text: String,
    pub revision: i64,
}

/// One server under a script.
#[derive(Debug)]
pub struct Player {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    port: u16,
    watch: Option<Stream>,
    /// What each watcher was told since the last comparison, by watch ID.
    told: BTreeMap<i64, Vec<String>>,
    /// The watchers that were created and not cancelled.
    live: BTreeSet<i64>,
    revision: i64,
    compacted: i64,
}

impl Player {
    /// A player for the member with this client port.
    ///
    /// # Errors
    /// When the address is no URI.
    pub fn new(port: u16) -> Result<Self> {
        let channel = rpc::channel(port, TIMEOUT)?;
        Ok(Self {
            kv: rpc::kv(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
            port,
            watch: None,
            told: BTreeMap::new(),
            live: BTreeSet::new(),
            revision: 1,
            compacted: 0,
        })
    }

    /// Makes one call.
    ///
    /// # Errors
    /// When the server does not answer at all; its refusals are answers.
    pub async fn play(&mut self, step: &Step) -> Result<Played> {
        let text = match step {
            Step::Range(range) => rendered(self.kv.range(range.clone()).await, mask_range),
            Step::RangeStream(range) => self.range_stream(range.clone()).await,
            Step::Put(put) => rendered(self.kv.put(put.clone()).await, |put| mask(&mut put.header)),
            Step::Delete(delete) => {
                let answer = self.kv.delete_range(delete.clone()).await;
                rendered(answer, |delete| mask(&mut delete.header))
            }
            Step::Txn(txn) => rendered(self.kv.txn(txn.clone()).await, mask_txn),
            Step::Compact(compact) => {
                self.sync().await?;
                let answer = self.kv.compact(*compact).await;
                if answer.is_ok() {
                    self.compacted = compact.revision;
                }
                rendered(answer, |compact| mask(&mut compact.header))
            }
            Step::HashKv(hash) => {
                let answer = self.maintenance.hash_kv(*hash).await;
                rendered(answer, |hash| mask(&mut hash.header))
            }
            Step::Watch(create) => self.create_watch(create.clone()).await?,
            Step::WatchCancel(watch_id) => self.cancel_watch(*watch_id).await?,
            Step::WatchSync => {
                self.sync().await?;
                format!("{:#?}", std::mem::take(&mut self.told))
            }
            _ => self.play_lease(step).await?,
        };
        self.revision = self.revision.max(revision_in(&text));
        Ok(Played {
            text,
            revision: self.revision,
        })
    }

    async fn play_lease(&mut self, step: &Step) -> Result<String> {
        Ok(match step {
            Step::LeaseGrant(grant) => {
                let answer = self.lease.lease_grant(*grant).await;
                rendered(answer, |grant| mask(&mut grant.header))
            }
            Step::LeaseRevoke(revoke) => {
                let answer = self.lease.lease_revoke(*revoke).await;
                rendered(answer, |revoke| mask(&mut revoke.header))
            }
            Step::LeaseTimeToLive(query) => {
                let answer = self.lease.lease_time_to_live(*query).await;
                rendered(answer, |lease| {
                    mask(&mut lease.header);
                    // The time left differs from moment to moment; that there is some does not.
                    lease.ttl = lease.ttl.signum();
                    lease.keys.sort();
                })
            }
            Step::Leases => {
                let answer = self.lease.lease_leases(pb::LeaseLeasesRequest {}).await;
                rendered(answer, |leases| {
                    mask(&mut leases.header);
                    leases.leases.sort_by_key(|lease| lease.id);
                })
            }
            Step::LeaseKeepAlive(keep) => self.keep_alive(*keep).await?,
            other => anyhow::bail!("{other:?} is no call on leases"),
        })
    }

    async fn range_stream(&mut self, range: pb::RangeRequest) -> String {
        let mut stream = match self.kv.range_stream(range).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return refusal(&status),
        };
        let mut whole = pb::RangeResponse::default();
        loop {
            match stream.message().await {
                Ok(Some(chunk)) => {
                    let chunk = chunk.range_response.unwrap_or_default();
                    whole.kvs.extend(chunk.kvs);
                    whole.header = chunk.header.or(whole.header);
                    whole.count = whole.count.max(chunk.count);
                    whole.more |= chunk.more;
                }
                Ok(None) => break,
                Err(status) => return refusal(&status),
            }
        }
        mask(&mut whole.header);
        format!("{whole:#?}")
    }

    async fn keep_alive(&mut self, keep: pb::LeaseKeepAliveRequest) -> Result<String> {
        let requests = tokio_stream::once(keep);
        let mut stream = match self.lease.lease_keep_alive(requests).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(refusal(&status)),
        };
        Ok(match stream.message().await {
            Ok(Some(mut answer)) => {
                mask(&mut answer.header);
                format!("{answer:#?}")
            }
            Ok(None) => "the stream ended".to_owned(),
            Err(status) => refusal(&status),
        })
    }

    /// Creates a watcher and waits until it is created, so that the order is the same everywhere.
    async fn create_watch(&mut self, create: pb::WatchCreateRequest) -> Result<String> {
        if create.start_revision > 0 && create.start_revision < self.compacted {
            return self.watch_compacted(create).await;
        }
        match &mut self.watch {
            Some(stream) => {
                let union = RequestUnion::CreateRequest(create);
                stream.requests.send(request(union)).await?;
            }
            None => self.watch = Some(Stream::open(self.port, create).await?),
        }
        loop {
            let (answer, text) = self.next_watch_answer().await?;
            if answer.created {
                return Ok(text);
            }
        }
    }

    /// On a stream of its own: etcd reports no progress on one that had a compacted watcher.
    async fn watch_compacted(&self, create: pb::WatchCreateRequest) -> Result<String> {
        let mut stream = Stream::open(self.port, create).await?;
        let mut text = String::new();
        loop {
            let mut answer = next_answer(&mut stream).await?;
            mask(&mut answer.header);
            text += &format!("{answer:#?}");
            if answer.canceled {
                return Ok(text);
            }
        }
    }

    async fn cancel_watch(&mut self, watch_id: i64) -> Result<String> {
        // Until everything was told, so that both servers tell the same before the end.
        self.sync().await?;
        let Some(stream) = &mut self.watch else {
            return Ok("no stream".to_owned());
        };
        let union = RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id });
        stream.requests.send(request(union)).await?;
        if !self.live.remove(&watch_id) {
            // Nothing is answered to that; the next comparison would show if it were.
            return Ok("no such watcher".to_owned());
        }
        loop {
            let (answer, text) = self.next_watch_answer().await?;
            if answer.canceled {
                return Ok(text);
            }
        }
    }

    /// Waits for one answer on the watch stream and files it.
    async fn next_watch_answer(&mut self) -> Result<(pb::WatchResponse, String)> {
        let answer = next_answer(self.watch.as_mut().context("a watch stream")?).await?;
        let text = self.file(answer.clone());
        Ok((answer, text))
    }

    fn file(&mut self, mut answer: pb::WatchResponse) -> String {
        mask(&mut answer.header);
        if answer.created && !answer.canceled {
            self.live.insert(answer.watch_id);
        }
        if is_progress(&answer) {
            // How often a progress report comes, and when, is nobody's promise.
            return String::new();
        }
        let told = self.told.entry(answer.watch_id).or_default();
        if answer.created || answer.canceled {
            let text = format!("{answer:#?}");
            told.push(text.clone());
            return text;
        }
        for event in &answer.events {
            told.push(format!("{event:?}"));
        }
        String::new()
    }

    /// Asks for progress until all watchers are known to be up to date.
    async fn sync(&mut self) -> Result<()> {
        if self.live.is_empty() {
            return Ok(());
        }
        let target = rpc::linearizable_read(self.port).await?;
        wait::until("watchers that are up to date", TIMEOUT, async || {
            let stream = self.watch.as_mut().context("a watch stream")?;
            stream.ask_progress().await?;
            let wait = Duration::from_millis(20);
            while let Ok(answer) = tokio::time::timeout(wait, stream.answers.message()).await {
                let answer = answer?.context("the watch stream ended")?;
                let progress = is_progress(&answer);
                let revision = answer.header.as_ref().map_or(0, |h| h.revision);
                if progress && revision >= target {
                    return Ok(Some(()));
                }
                if !progress {
                    self.file(answer);
                    return Ok(None);
                }
            }
            Ok(None)
        })
        .await
    }
}

fn is_progress(answer: &pb::WatchResponse) -> bool {
    !answer.created && !answer.canceled && answer.events.is_empty()
}

async fn next_answer(stream: &mut Stream) -> Result<pb::WatchResponse> {
    let answer = tokio::time::timeout(TIMEOUT, stream.answers.message());
    let answer = answer.await.context("a watch answer")??;
    answer.context("the watch stream ended")
}

fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// An answer as text, after `mask`; a refusal by its code and message.
pub fn rendered<T: Debug>(
    answer: Result<Response<T>, Status>,
    mask: impl FnOnce(&mut T),
) -> String {
    match answer {
        Ok(answer) => {
            let mut answer = answer.into_inner();
            mask(&mut answer);
            format!("{answer:#?}")
        }
        Err(status) => refusal(&status),
    }
}

/// Clears what differs between servers from a header.
pub fn mask(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        // Whether they are set is part of the contract; to what is not.
        header.cluster_id = header.cluster_id.min(1);
        header.member_id = header.member_id.min(1);
        header.raft_term = header.raft_term.min(1);
    }
}

fn mask_range(answer: &mut pb::RangeResponse) {
    mask(&mut answer.header);
}

fn mask_txn(answer: &mut pb::TxnResponse) {
    mask(&mut answer.header);
    for op in &mut answer.responses {
        match &mut op.response {
            Some(response_op::Response::ResponseRange(inner)) => mask(&mut inner.header),
            Some(response_op::Response::ResponsePut(inner)) => mask(&mut inner.header),
            Some(response_op::Response::ResponseDeleteRange(inner)) => mask(&mut inner.header),
            Some(response_op::Response::ResponseTxn(inner)) => mask_txn(inner),
            None => {}
        }
    }
}

/// The header's revision in a rendered answer; 0 when there is none.
fn revision_in(text: &str) -> i64 {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("revision: "));
    let digits = line.and_then(|line| line.trim_end_matches(',').parse().ok());
    digits.unwrap_or(0)
}
