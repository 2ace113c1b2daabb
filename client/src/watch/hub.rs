//! The task that serves all watches of a client over one stream.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchResponse};
use quorate_proto::mvccpb::Event;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};
use tracing::debug;

use super::wire::{Incoming, Wire, is_final, refusal, why_canceled};
use super::{WatchUpdate, hub_is_gone};
use crate::channel::Channel;
use crate::error::Error;
use crate::limits;
use crate::retry::Backoff;

/// The ID with which the server speaks to all watches of a stream, or refuses to make one.
const BROADCAST_ID: i64 = -1;

/// The client's end of the task, which ends on drop.
pub(crate) struct Hub {
    commands: mpsc::Sender<Command>,
    task: AbortHandle,
}

pub(super) enum Command {
    Open(Open),
    Progress,
}

pub(super) struct Open {
    pub(super) request: WatchCreateRequest,
    pub(super) updates: mpsc::Sender<WatchUpdate>,
    pub(super) queued_bytes: Arc<AtomicUsize>,
    pub(super) ended: Arc<OnceLock<Error>>,
    pub(super) opened: oneshot::Sender<Result<(), Error>>,
    pub(super) dropped: oneshot::Receiver<()>,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hub {
    pub(crate) fn start(client: WatchClient<Channel>) -> Self {
        let (commands, inbox) = mpsc::channel(limits::WATCH_COMMANDS_QUEUED_MAX);
        let task = Task {
            client,
            inbox,
            watchers: BTreeMap::new(),
            next_key: 0,
            next_wire_id: 1,
            wire: Wire::default(),
            dropped: FuturesUnordered::new(),
            drained: FuturesUnordered::new(),
        };
        Self {
            commands,
            task: tokio::spawn(task.run()).abort_handle(),
        }
    }

    pub(super) async fn send(&self, command: Command) -> Result<(), Error> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| hub_is_gone())
    }
}

/// A watch as the task knows it, whatever stream it is on.
struct Watcher {
    request: WatchCreateRequest,
    /// The first revision that was not handed over yet.
    next: i64,
    place: Place,
    /// Pieces of an update that is not complete.
    fragments: Vec<Event>,
    updates: mpsc::Sender<WatchUpdate>,
    queued_bytes: Arc<AtomicUsize>,
    ended: Arc<OnceLock<Error>>,
    opened: Option<oneshot::Sender<Result<(), Error>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not on the server: a stream is yet to come.
    Nowhere,
    /// Asked for, or created, under this ID.
    OnWire(i64),
    /// Off the stream until its consumer has taken all that is queued.
    Lagging,
}

struct Task {
    client: WatchClient<Channel>,
    inbox: mpsc::Receiver<Command>,
    watchers: BTreeMap<u64, Watcher>,
    next_key: u64,
    next_wire_id: i64,
    wire: Wire,
    dropped: FuturesUnordered<BoxFuture<'static, u64>>,
    drained: FuturesUnordered<BoxFuture<'static, u64>>,
}

impl Task {
    async fn run(mut self) {
        let mut backoff = Backoff::new(limits::RECONNECT_PAUSE_MAX);
        loop {
            if self.watchers.is_empty() {
                let Some(command) = self.inbox.recv().await else {
                    return;
                };
                self.obey(command);
                continue;
            }
            let Some(status) = self.serve().await else {
                continue;
            };
            debug!(%status, "watch stream ended");
            if self.wire.answered {
                backoff = Backoff::new(limits::RECONNECT_PAUSE_MAX);
            }
            if is_final(&status) {
                for key in self.watchers.keys().copied().collect::<Vec<_>>() {
                    self.end(key, Error::of_read(refusal(&status)));
                }
                continue;
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Runs one stream until it breaks (with why) or until nobody watches any more.
    async fn serve(&mut self) -> Option<Status> {
        self.wire = Wire::default();
        for key in self.watchers.keys().copied().collect::<Vec<_>>() {
            self.create(key);
        }
        let (requests, outgoing) = mpsc::channel(limits::WATCH_REQUESTS_QUEUED_MAX);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let with_leader = tonic::metadata::MetadataValue::from_static("true");
        request.metadata_mut().insert("hasleader", with_leader);
        let mut client = self.client.clone();
        let mut incoming = Incoming::Opening(Box::pin(async move { client.watch(request).await }));
        while !self.watchers.is_empty() {
            let is_open = self.wire.outbox.len() < limits::WATCH_REQUESTS_QUEUED_MAX;
            tokio::select! {
                permit = requests.reserve(), if !self.wire.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(request) = self.wire.outbox.pop_front() {
                            permit.send(request);
                        }
                    }
                    Err(_) => return Some(incoming.failure().await),
                },
                message = incoming.next() => match message {
                    Ok(response) => self.take(response),
                    Err(status) => return Some(status),
                },
                // The inbox closes with the client, which also ends this task.
                Some(command) = self.inbox.recv(), if is_open => self.obey(command),
                Some(key) = self.dropped.next(), if is_open => self.forget(key),
                Some(key) = self.drained.next(), if is_open => self.create_again(key),
            }
        }
        None
    }

    fn obey(&mut self, command: Command) {
        let open = match command {
            Command::Open(open) => open,
            Command::Progress => {
                let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                return self.wire.post(request);
            }
        };
        let key = self.next_key;
        self.next_key += 1;
        let dropped = open.dropped;
        self.dropped.push(Box::pin(async move {
            // The sender is never used but to be dropped.
            match dropped.await {
                Ok(()) | Err(_) => key,
            }
        }));
        let watcher = Watcher {
            next: open.request.start_revision,
            request: open.request,
            place: Place::Nowhere,
            fragments: Vec::new(),
            updates: open.updates,
            queued_bytes: open.queued_bytes,
            ended: open.ended,
            opened: Some(open.opened),
        };
        self.watchers.insert(key, watcher);
        self.create(key);
    }

    /// Asks the server for the watch, from the first revision that was not handed over.
    fn create(&mut self, key: u64) {
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        if watcher.place == Place::Lagging {
            return;
        }
        let id = self.next_wire_id;
        self.next_wire_id += 1;
        watcher.place = Place::OnWire(id);
        watcher.fragments.clear();
        let request = WatchCreateRequest {
            watch_id: id,
            start_revision: watcher.next,
            ..watcher.request.clone()
        };
        self.wire.creating.push_back((id, key));
        self.wire.post(RequestUnion::CreateRequest(request));
    }

    fn create_again(&mut self, key: u64) {
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.place = Place::Nowhere;
        }
        self.create(key);
    }

    /// The consumer dropped its watch.
    fn forget(&mut self, key: u64) {
        if let Some(watcher) = self.watchers.remove(&key)
            && let Place::OnWire(id) = watcher.place
            && self.wire.by_id.remove(&id).is_some()
        {
            self.wire.cancel(id);
        }
    }

    fn end(&mut self, key: u64, error: Error) {
        let Some(watcher) = self.watchers.remove(&key) else {
            return;
        };
        if let Place::OnWire(id) = watcher.place {
            self.wire.by_id.remove(&id);
        }
        match watcher.opened {
            Some(opened) => {
                if opened.send(Err(error)).is_err() {
                    debug!("nobody waits for this watch any more");
                }
            }
            None => {
                if watcher.ended.set(error).is_err() {
                    debug!("this watch ended twice");
                }
            }
        }
    }

    fn take(&mut self, response: WatchResponse) {
        self.wire.answered = true;
        if response.created {
            self.created(response);
        } else if response.watch_id == BROADCAST_ID {
            let all: Vec<u64> = self.wire.by_id.values().copied().collect();
            for key in all {
                self.hand_over(key, &response, Vec::new());
            }
        } else if let Some(&key) = self.wire.by_id.get(&response.watch_id) {
            if response.canceled {
                self.end(key, why_canceled(&response));
            } else {
                self.collect(key, response);
            }
        }
    }

    fn created(&mut self, response: WatchResponse) {
        let Some((id, key)) = self.wire.creating.pop_front() else {
            return;
        };
        if response.canceled {
            return self.end(key, why_canceled(&response));
        }
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return self.wire.cancel(id);
        };
        self.wire.by_id.insert(id, key);
        if let Some(opened) = watcher.opened.take()
            && opened.send(Ok(())).is_err()
        {
            debug!("nobody waits for this watch any more");
        }
    }

    /// Puts pieces together until an update is complete.
    fn collect(&mut self, key: u64, mut response: WatchResponse) {
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        let mut events = std::mem::take(&mut watcher.fragments);
        events.append(&mut response.events);
        if response.fragment {
            watcher.fragments = events;
            return;
        }
        self.hand_over(key, &response, events);
    }

    fn hand_over(&mut self, key: u64, response: &WatchResponse, mut events: Vec<Event>) {
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        let header = response.header.unwrap_or_default();
        let is_progress = events.is_empty();
        events.retain(|event| mod_revision(event) >= watcher.next);
        if events.is_empty() && !is_progress {
            return;
        }
        let after = events.last().map_or(header.revision, mod_revision) + 1;
        match watcher.queue(WatchUpdate { header, events }) {
            Ok(()) => watcher.next = watcher.next.max(after),
            // As from a server that is not able to tell how far it is.
            Err(Full) if is_progress => {}
            Err(Full) => self.lag(key),
        }
    }

    /// Takes a watch with a slow consumer off the stream: what was not handed over is read
    /// again from history once there is room.
    fn lag(&mut self, key: u64) {
        let Some(watcher) = self.watchers.get_mut(&key) else {
            return;
        };
        if let Place::OnWire(id) = watcher.place
            && self.wire.by_id.remove(&id).is_some()
        {
            self.wire.cancel(id);
        }
        watcher.place = Place::Lagging;
        let updates = watcher.updates.clone();
        self.drained.push(Box::pin(async move {
            // All of it: the consumer has caught up.
            let room = limits::WATCH_UPDATES_QUEUED_MAX;
            match updates.reserve_many(room).await {
                // A closed queue means a dropped watch, of which `dropped` tells.
                Ok(_) | Err(_) => key,
            }
        }));
    }
}

/// There is no room for an update.
struct Full;

impl Watcher {
    fn queue(&self, update: WatchUpdate) -> Result<(), Full> {
        let size = update.size();
        let queued = self.queued_bytes.fetch_add(size, Ordering::Relaxed);
        let has_room = queued == 0 || queued + size <= limits::WATCH_BYTES_QUEUED_MAX;
        let sent = if has_room {
            self.updates.try_send(update)
        } else {
            Err(TrySendError::Full(update))
        };
        match sent {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
                Err(Full)
            }
            // Nobody takes it; the watch's place in `dropped` is about to tell.
            Err(TrySendError::Closed(_)) => Ok(()),
        }
    }
}

fn mod_revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}
