//! Watches that survive lost connections: nothing lost, nothing twice.

mod hub;
mod wire;

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest};
use quorate_proto::mvccpb::{Event, KeyValue};
use tokio::sync::{mpsc, oneshot};

use crate::client::Client;
use crate::error::Error;
use crate::kv::{Answer, from_key_range, prefix_range, to_bytes};

pub(crate) use hub::Hub;
use hub::{Command, Open};

/// What a watch says: events of whole revisions, or progress.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchUpdate {
    /// The server's header. Its revision is the store's when the server sent this, which may
    /// lie behind the events while a watch catches up with history.
    pub header: ResponseHeader,
    /// In order. Empty for progress: every event up to the header's revision was delivered.
    pub events: Vec<Event>,
}

impl WatchUpdate {
    /// Whether this only says how far the watch is.
    pub fn is_progress(&self) -> bool {
        self.events.is_empty()
    }

    /// Roughly what it takes in memory, in bytes.
    fn size(&self) -> usize {
        let pair = |kv: &KeyValue| kv.key.len() + kv.value.len();
        let pairs = |event: &Event| {
            event.kv.as_ref().map_or(0, pair) + event.prev_kv.as_ref().map_or(0, pair)
        };
        self.events.iter().map(pairs).sum()
    }
}

/// A watch that is being described. Await it to open it.
#[derive(Debug)]
#[must_use = "it is opened when awaited"]
pub struct WatchBuilder {
    client: Client,
    request: WatchCreateRequest,
}

/// A running watch: a [`Stream`] of updates. Dropping it cancels it on the server.
///
/// All watches of a client share one stream to one member. When it breaks, the watch goes on at
/// another member with the revision after the last one delivered. A consumer that is too slow
/// does not hold up the others: its watch is taken off the stream and later goes on where it
/// stopped, so memory stays bounded. The member that serves must have a leader
/// (`hasleader`), so that a member cut off from its cluster does not keep us waiting.
///
/// The stream ends after an error: [`Error::Compacted`] when the history it needs is gone, or
/// [`Error::Refused`] when the server will not serve it.
///
/// ```no_run
/// # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
/// let page = client.get("/services/").prefix().await?;
/// let revision = page.header.unwrap_or_default().revision;
/// let mut watch = client.watch("/services/").prefix().start_revision(revision + 1).await?;
/// while let Some(update) = watch.next().await {
///     for event in update?.events {
///         println!("{event:?}");
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Watch {
    updates: mpsc::Receiver<WatchUpdate>,
    /// What lies in `updates`; the hub adds, we take off.
    queued_bytes: Arc<AtomicUsize>,
    ended: Arc<OnceLock<Error>>,
    is_over: bool,
    start_revision: i64,
    client: Client,
    /// Dropped with the watch, which tells the hub.
    _alive: oneshot::Sender<()>,
}

impl Client {
    /// Watches a key, or a range. See [`Watch`].
    pub fn watch(&self, key: impl AsRef<[u8]>) -> WatchBuilder {
        WatchBuilder {
            client: self.clone(),
            request: WatchCreateRequest {
                key: to_bytes(key),
                ..Default::default()
            },
        }
    }
}

impl WatchBuilder {
    /// All keys that begin with the key.
    pub fn prefix(mut self) -> Self {
        self.request.range_end = prefix_range(&mut self.request.key);
        self
    }

    /// The key and all after it.
    pub fn from_key(mut self) -> Self {
        self.request.range_end = from_key_range(&mut self.request.key);
        self
    }

    /// The keys from the key up to `end`, without `end`.
    pub fn until(mut self, end: impl AsRef<[u8]>) -> Self {
        self.request.range_end = to_bytes(end);
        self
    }

    /// From this revision on, history included. Without, from the store's current revision
    /// (which one linearizable read asks for): every write after the call is seen.
    pub fn start_revision(mut self, revision: i64) -> Self {
        self.request.start_revision = revision;
        self
    }

    /// With the pair that each event replaced.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// With progress now and then, while nothing happens. A server says nothing before the
    /// store has come to the watch's first revision: for a watch from now on, before the next
    /// write of whatever key.
    pub fn progress_notify(mut self) -> Self {
        self.request.progress_notify = true;
        self
    }

    /// Without puts.
    pub fn no_put(mut self) -> Self {
        self.request.filters.push(FilterType::Noput.into());
        self
    }

    /// Without deletes.
    pub fn no_delete(mut self) -> Self {
        self.request.filters.push(FilterType::Nodelete.into());
        self
    }

    /// Lets the server cut large updates into pieces on the wire; they are put together here.
    pub fn fragment(mut self) -> Self {
        self.request.fragment = true;
        self
    }

    async fn open(mut self) -> Result<Watch, Error> {
        if self.request.start_revision == 0 {
            // The revision in the answer to a create is read after the watch began, so it may
            // name a revision whose events are yet to come: only a revision we name ourselves
            // makes a watch that can be resumed exactly.
            let key = match &self.request.key {
                key if key.is_empty() => Bytes::from_static(b"\0"),
                key => key.clone(),
            };
            let now = self.client.get(key).keys_only().limit(1).await?;
            self.request.start_revision = now.header.unwrap_or_default().revision + 1;
        }
        let start_revision = self.request.start_revision;
        let (updates_sender, updates) = mpsc::channel(crate::limits::WATCH_UPDATES_QUEUED_MAX);
        let (opened_sender, opened) = oneshot::channel();
        let (alive, dropped) = oneshot::channel();
        let ended = Arc::new(OnceLock::new());
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let open = Open {
            request: self.request,
            updates: updates_sender,
            queued_bytes: Arc::clone(&queued_bytes),
            ended: Arc::clone(&ended),
            opened: opened_sender,
            dropped,
        };
        let hub = self.client.hub();
        let limit = self.client.config().request_timeout;
        let answer = async {
            hub.send(Command::Open(open)).await?;
            opened.await.map_err(|_| hub_is_gone())?
        };
        tokio::time::timeout(limit, answer)
            .await
            .map_err(|_| Error::Unreachable {
                text: format!("the watch was not opened within {limit:?}"),
            })??;
        Ok(Watch {
            updates,
            queued_bytes,
            ended,
            is_over: false,
            start_revision,
            client: self.client,
            _alive: alive,
        })
    }
}

impl IntoFuture for WatchBuilder {
    type Output = Result<Watch, Error>;
    type IntoFuture = Answer<Watch>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

fn hub_is_gone() -> Error {
    Error::Unreachable {
        text: "the client's watch task ended".to_owned(),
    }
}

impl Watch {
    /// The next update, or the error that ends the watch, or `None` after that. Safe to cancel:
    /// what is not returned stays queued.
    pub async fn next(&mut self) -> Option<Result<WatchUpdate, Error>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// The first revision that the watch covers.
    pub fn start_revision(&self) -> i64 {
        self.start_revision
    }

    /// Asks the server how far all watches of the client are. Each watch that is up to date
    /// gets an update with [`WatchUpdate::is_progress`]; a server that is not able to tell
    /// at the moment (see [`WatchBuilder::progress_notify`]) sends none, so ask again.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if the client's watch task is gone.
    pub async fn request_progress(&self) -> Result<(), Error> {
        self.client.hub().send(Command::Progress).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<WatchUpdate, Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(update) = ready!(self.updates.poll_recv(cx)) {
            self.queued_bytes
                .fetch_sub(update.size(), Ordering::Relaxed);
            return Poll::Ready(Some(Ok(update)));
        }
        self.is_over = true;
        let error = self.ended.get().cloned().unwrap_or_else(hub_is_gone);
        Poll::Ready(Some(Err(error)))
    }
}

impl Stream for Watch {
    type Item = Result<WatchUpdate, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}
