//! Watches on one stream: created in order, resumed where they stood when the connection breaks.

use crate::rpc::{Rpc, RpcError};
use bytes::Bytes;
use futures::StreamExt as _;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::mvccpb::event::EventType;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status, Streaming};

/// Between two tries to open the stream.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// Requests on their way to the server.
const REQUESTS_MAX: usize = 16;
/// The ID that means all watches of a stream.
const ALL_WATCHES: i64 = -1;

/// What came for a watch.
#[derive(Debug)]
pub enum Notice {
    /// An answer for the watch of this number, and what is wrong when it is the last one.
    Response(usize, pb::WatchResponse, Option<String>),
    /// A watch ended without a word.
    Closed,
}

/// Watches, numbered in the order they were added.
#[derive(Debug)]
pub struct WatchStream {
    rpc: Rpc,
    require_leader: bool,
    watches: Vec<Watch>,
    live: Option<Live>,
    /// Progress was asked for while the stream was not open.
    progress_wanted: bool,
    ready: VecDeque<Notice>,
}

#[derive(Debug)]
struct Watch {
    create: pb::WatchCreateRequest,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be created on the stream.
    Pending,
    Created(i64),
    Ended,
}

#[derive(Debug)]
struct Live {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl WatchStream {
    /// A stream without watches; with `require_leader` it ends when the member has no leader.
    pub fn new(rpc: &Rpc, require_leader: bool) -> Self {
        Self {
            rpc: rpc.clone(),
            require_leader,
            watches: Vec::new(),
            live: None,
            progress_wanted: false,
            ready: VecDeque::new(),
        }
    }

    /// Adds a watch; gives back its number.
    pub async fn add(&mut self, create: pb::WatchCreateRequest) -> usize {
        let request = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create.clone())),
        };
        self.watches.push(Watch {
            create,
            state: State::Pending,
        });
        self.send(request).await;
        self.watches.len() - 1
    }

    /// Asks the server how far it is; the answer goes to all watches.
    pub async fn request_progress(&mut self) {
        self.progress_wanted = self.live.is_none();
        self.send(progress_request()).await;
    }

    /// Sends on the open stream. A stream that is broken is opened by [`Self::next`], which sends
    /// all watches anew.
    async fn send(&mut self, request: pb::WatchRequest) {
        if let Some(live) = &self.live
            && live.requests.send(request).await.is_err()
        {
            self.live = None;
        }
    }

    /// What comes next. May be dropped at any point and called again.
    ///
    /// # Errors
    /// When the server refuses the stream.
    pub async fn next(&mut self) -> Result<Notice, RpcError> {
        loop {
            if let Some(notice) = self.ready.pop_front() {
                return Ok(notice);
            }
            let received = match &mut self.live {
                Some(live) => live.responses.message().await,
                None => match self.open().await {
                    Ok(live) => {
                        self.live = Some(live);
                        continue;
                    }
                    Err(status) => Err(status),
                },
            };
            match received {
                Ok(Some(response)) => self.take(response),
                Ok(None) => self.live = None,
                Err(status) if is_final(&status) => return Err(RpcError::from_status(&status)),
                Err(_) => {
                    self.live = None;
                    sleep(REOPEN_PAUSE).await;
                }
            }
        }
    }

    /// Opens the stream with all watches on it. The server says nothing before it was asked
    /// something, so the questions are there from the start.
    async fn open(&mut self) -> Result<Live, Status> {
        let mut questions = Vec::new();
        for watch in self
            .watches
            .iter_mut()
            .filter(|watch| watch.state != State::Ended)
        {
            watch.state = State::Pending;
            let create = RequestUnion::CreateRequest(watch.create.clone());
            questions.push(pb::WatchRequest {
                request_union: Some(create),
            });
        }
        let progress_asked = self.progress_wanted;
        questions.extend(progress_asked.then(progress_request));
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let questions = futures::stream::iter(questions).chain(ReceiverStream::new(receiver));
        let mut request = self.rpc.request(questions);
        if self.require_leader {
            let value = MetadataValue::from_static("true");
            request.metadata_mut().insert("hasleader", value);
        }
        let response = self.rpc.client().watch_raw().watch(request).await?;
        self.progress_wanted &= !progress_asked;
        Ok(Live {
            requests,
            responses: response.into_inner(),
        })
    }

    fn take(&mut self, response: pb::WatchResponse) {
        if response.created {
            self.take_created(response);
            return;
        }
        if response.watch_id == ALL_WATCHES {
            for number in 0..self.watches.len() {
                if matches!(self.watches[number].state, State::Created(_)) {
                    self.give(number, response.clone());
                }
            }
            return;
        }
        let state = State::Created(response.watch_id);
        let number = self.watches.iter().position(|watch| watch.state == state);
        // An answer for a watch that ended just now has no reader any more.
        let Some(number) = number else { return };
        if response.canceled && response.compact_revision == 0 {
            self.watches[number].state = State::Ended;
            self.ready.push_back(Notice::Closed);
            return;
        }
        self.give(number, response);
    }

    /// Answers to creations come in the order of the requests.
    fn take_created(&mut self, response: pb::WatchResponse) {
        let pending = self
            .watches
            .iter()
            .position(|watch| watch.state == State::Pending);
        let Some(number) = pending else { return };
        let watch = &mut self.watches[number];
        if response.canceled {
            watch.state = State::Ended;
            let last = pb::WatchResponse {
                header: Some(pb::ResponseHeader::default()),
                canceled: true,
                ..Default::default()
            };
            self.ready
                .push_back(Notice::Response(number, last, Some(response.cancel_reason)));
            return;
        }
        watch.state = State::Created(response.watch_id);
        if watch.create.start_revision == 0 {
            watch.create.start_revision = response.header.unwrap_or_default().revision + 1;
        }
    }

    fn give(&mut self, number: usize, response: pb::WatchResponse) {
        let watch = &mut self.watches[number];
        let revision = response.header.unwrap_or_default().revision;
        let last_event = response.events.last().and_then(|event| event.kv.as_ref());
        watch.create.start_revision = match last_event {
            Some(pair) => pair.mod_revision + 1,
            None => watch.create.start_revision.max(revision + 1),
        };
        let mut error = None;
        if response.canceled {
            watch.state = State::Ended;
            error = Some("etcdserver: mvcc: required revision has been compacted".to_owned());
        }
        self.ready
            .push_back(Notice::Response(number, response, error));
    }
}

fn progress_request() -> pb::WatchRequest {
    pb::WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
    }
}

/// Whether opening the stream again would be in vain (client/v3/client.go, `isHaltErr`).
fn is_final(status: &Status) -> bool {
    let made_here = std::error::Error::source(status).is_some();
    let passes = matches!(status.code(), Code::Unavailable | Code::Internal);
    status.message() == "etcdserver: no leader" || !(made_here || passes)
}

/// Waits until a key is deleted, looking at what happened from `revision` on.
///
/// # Errors
/// When the watch fails.
pub async fn wait_for_delete(rpc: &Rpc, key: Bytes, revision: i64) -> Result<(), RpcError> {
    let mut stream = WatchStream::new(rpc, false);
    let create = pb::WatchCreateRequest {
        key,
        start_revision: revision,
        ..Default::default()
    };
    stream.add(create).await;
    loop {
        match stream.next().await? {
            Notice::Response(_, _, Some(reason)) => {
                return Err(RpcError::from_status(&Status::cancelled(reason)));
            }
            Notice::Closed => {
                let text = "lost watcher waiting for delete";
                return Err(RpcError::from_status(&Status::cancelled(text)));
            }
            Notice::Response(_, response, None) => {
                let deleted = EventType::Delete as i32;
                if response.events.iter().any(|event| event.r#type == deleted) {
                    return Ok(());
                }
            }
        }
    }
}
