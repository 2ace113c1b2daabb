//! One client's watch stream: requests in, responses out, in one task and with nothing spawned.
//! When the client goes away, the stream is dropped, and all that belongs to it.

use std::collections::VecDeque;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use quorate_proto::codec::Ready;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::leader::LeaderWatch;
use super::render::Renderer;
use crate::api::status::status;
use crate::model::{KeyRange, Refusal};
use crate::watch::{Failed, WatchSpec, WatchStream};

pub(super) struct Session<R> {
    /// None once the client has sent its last request; events go on.
    requests: Option<R>,
    stream: WatchStream,
    renderer: Renderer,
    responses: VecDeque<Ready>,
    progress_interval: Duration,
    progress_due: Instant,
    leader: Option<LeaderWatch>,
}

/// What a session that has nothing to do was woken by.
enum Woken<I> {
    Request(Option<I>),
    Queued,
    ProgressDue,
    Leaderless,
}

impl<R> Session<R>
where
    R: Stream<Item = Result<WatchRequest, Status>> + Unpin + Send,
{
    pub(super) fn new(
        requests: R,
        stream: WatchStream,
        renderer: Renderer,
        progress_interval: Duration,
        leader: Option<LeaderWatch>,
    ) -> Self {
        // Up to a tenth more, so that streams that were opened together do not tick together.
        let progress_interval = progress_interval.mul_f64(1.0 + rand::random::<f64>() / 10.0);
        Self {
            requests: Some(requests),
            stream,
            renderer,
            responses: VecDeque::new(),
            progress_due: Instant::now() + progress_interval,
            progress_interval,
            leader,
        }
    }

    /// The responses, until the client or the node ends the stream.
    pub(super) fn into_responses(self) -> impl Stream<Item = Result<Ready, Status>> + Send {
        futures::stream::unfold(Some(self), |session| async {
            let mut session = session?;
            match session.next().await {
                Ok(response) => Some((Ok(response), Some(session))),
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Ready, Status> {
        loop {
            if let Some(response) = self.responses.pop_front() {
                return Ok(response);
            }
            if let Some(delivery) = self.stream.pop() {
                self.renderer.deliver(delivery, &mut self.responses);
            } else if self.stream.work().map_err(stopped)? {
                // What it made is popped next.
            } else if self.look_around()? {
                // One request or tick for each time that the queue is taken.
            } else if self.stream.is_lagging() {
                self.stream.catch_up().await.map_err(stopped)?;
                self.stream.refill();
            } else if !self.stream.refill() {
                self.wait().await?;
            }
        }
    }

    /// Does what is due beside the events, without waiting. Returns whether there was anything.
    fn look_around(&mut self) -> Result<bool, Status> {
        if Instant::now() >= self.progress_due {
            self.notify_progress();
            return Ok(true);
        }
        let request = self
            .requests
            .as_mut()
            .map(|requests| requests.next().now_or_never());
        match request.flatten() {
            Some(request) => {
                self.take_request(request)?;
                // An end of the requests is no work.
                Ok(self.requests.is_some())
            }
            None => Ok(false),
        }
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let request = async {
            match &mut self.requests {
                Some(requests) => requests.next().await,
                None => std::future::pending().await,
            }
        };
        let leaderless = async {
            match &mut self.leader {
                Some(leader) => leader.given_up().await,
                None => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            biased;
            request = request => Woken::Request(request),
            () = self.stream.queued() => Woken::Queued,
            () = tokio::time::sleep_until(self.progress_due) => Woken::ProgressDue,
            () = leaderless => Woken::Leaderless,
        };
        match woken {
            Woken::Request(request) => self.take_request(request)?,
            Woken::Queued => {}
            Woken::ProgressDue => self.notify_progress(),
            Woken::Leaderless => return Err(status(Refusal::NoLeader)),
        }
        Ok(())
    }

    fn notify_progress(&mut self) {
        self.progress_due = Instant::now() + self.progress_interval;
        self.stream.notify_progress();
    }

    fn take_request(
        &mut self,
        request: Option<Result<WatchRequest, Status>>,
    ) -> Result<(), Status> {
        let request = match request {
            Some(Ok(request)) => request,
            Some(Err(error)) if error.code() == Code::Cancelled => {
                return Err(Status::cancelled("etcdserver: watch canceled"));
            }
            Some(Err(error)) => return Err(error),
            None => {
                self.requests = None;
                return Ok(());
            }
        };
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => {
                if self.stream.cancel(cancel.watch_id) {
                    let revision = self.stream.published();
                    let response = self.renderer.canceled(cancel.watch_id, revision);
                    self.responses.push_back(response);
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => self.stream.request_progress(),
            None => tracing::info!("a watch request that asks for nothing was ignored"),
        }
        Ok(())
    }

    fn create(&mut self, create: WatchCreateRequest) {
        let response = match self.stream.create(spec(create)) {
            Ok(created) => self.renderer.created(created),
            Err(error) => self.renderer.not_created(error, self.stream.published()),
        };
        self.responses.push_back(response);
    }
}

fn spec(create: WatchCreateRequest) -> WatchSpec {
    let filtered = |filter: FilterType| create.filters.contains(&i32::from(filter));
    let (no_put, no_delete) = (filtered(FilterType::Noput), filtered(FilterType::Nodelete));
    // The smallest key there is.
    let key = match create.key {
        key if key.is_empty() => bytes::Bytes::from_static(b"\0"),
        key => key,
    };
    WatchSpec {
        watch_id: create.watch_id,
        range: KeyRange::new(&key, &create.range_end),
        start_revision: create.start_revision,
        no_put,
        no_delete,
        prev_kv: create.prev_kv,
        progress_notify: create.progress_notify,
        fragment: create.fragment,
    }
}

fn stopped(_: Failed) -> Status {
    status(Refusal::Stopped)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use prost::Message;
    use quorate_proto::etcdserverpb::{WatchCancelRequest, WatchProgressRequest, WatchResponse};
    use tokio::sync::{mpsc, watch};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::api::watch::WatchResponses;
    use crate::machine::testing::{Rig, compact, delete, put};
    use crate::model::kv::{ResponseHeader, command};
    use crate::watch::Hub;

    const TERM: u64 = 3;

    /// A real store with its hub, and one client's stream.
    struct Door {
        rig: Rig,
        hub: Arc<Hub>,
        requests: mpsc::Sender<Result<WatchRequest, Status>>,
        responses: WatchResponses,
    }

    impl Door {
        fn new() -> Self {
            Self::with(Duration::from_secs(600), 1 << 20, None)
        }

        fn with(
            progress_interval: Duration,
            response_bytes_max: usize,
            leader: Option<LeaderWatch>,
        ) -> Self {
            let rig = Rig::new();
            let hub = Hub::new(&Arc::new(rig.view()));
            let (requests, receiver) = mpsc::channel(16);
            let header = |revision| ResponseHeader {
                cluster_id: 1,
                member_id: 2,
                revision,
                raft_term: TERM,
            };
            let renderer = Renderer::new(Box::new(header), response_bytes_max);
            let requests_in = ReceiverStream::new(receiver);
            let stream = hub.subscribe();
            let session = Session::new(requests_in, stream, renderer, progress_interval, leader);
            Self {
                rig,
                hub,
                requests,
                responses: Box::pin(session.into_responses()),
            }
        }

        fn commit(&mut self, kind: command::Kind) -> i64 {
            let applied = self.rig.apply(kind);
            applied.outcome.expect("a request that is not refused");
            let view = Arc::new(self.rig.view());
            let events = applied.events.into_iter().map(Arc::new).collect();
            self.hub.publish(&view, events);
            view.revision
        }

        async fn ask(&mut self, request: RequestUnion) {
            let request = WatchRequest {
                request_union: Some(request),
            };
            self.requests.send(Ok(request)).await.unwrap();
        }

        /// Creates a watcher and takes the answer.
        async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
            self.ask(RequestUnion::CreateRequest(request)).await;
            self.next().await
        }

        async fn progress(&mut self) {
            self.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}))
                .await;
        }

        async fn cancel(&mut self, watch_id: i64) {
            let cancel = WatchCancelRequest { watch_id };
            self.ask(RequestUnion::CancelRequest(cancel)).await;
        }

        async fn try_next(&mut self) -> Result<WatchResponse, Status> {
            let next = tokio::time::timeout(Duration::from_secs(20), self.responses.next());
            let response = next.await.expect("a response in time");
            let bytes = response.expect("the stream has not ended")?.into_bytes();
            Ok(WatchResponse::decode(bytes).unwrap())
        }

        async fn next(&mut self) -> WatchResponse {
            let response = self.try_next().await.unwrap();
            let header = response.header.unwrap();
            assert_eq!(
                (header.cluster_id, header.member_id, header.raft_term),
                (1, 2, TERM)
            );
            response
        }

        /// Nothing comes before the answer to a progress request.
        async fn expect_nothing(&mut self) {
            self.progress().await;
            let response = self.next().await;
            assert_eq!(show(&response), format!("-1 @{}", self.hub.published()));
        }
    }

    fn on(key: &'static str, start_revision: i64) -> WatchCreateRequest {
        WatchCreateRequest {
            key: key.into(),
            start_revision,
            ..Default::default()
        }
    }

    fn prefixed(start_revision: i64) -> WatchCreateRequest {
        WatchCreateRequest {
            range_end: "b".into(),
            ..on("a", start_revision)
        }
    }

    /// `id @revision`, what is set, then the events: `+key=value(previous)` or `-key(previous)`.
    fn show(response: &WatchResponse) -> String {
        let revision = response.header.unwrap().revision;
        let mut shown = format!("{} @{revision}", response.watch_id);
        let flags = [
            (response.created, "created"),
            (response.canceled, "canceled"),
            (response.fragment, "fragment"),
        ];
        for (_, name) in flags.iter().filter(|(is_set, _)| *is_set) {
            shown += &format!(" {name}");
        }
        if response.compact_revision != 0 {
            shown += &format!(" compacted {}", response.compact_revision);
        }
        if !response.cancel_reason.is_empty() {
            shown += &format!(" ({})", response.cancel_reason);
        }
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        for event in &response.events {
            let kv = event.kv.as_ref().unwrap();
            shown += &match event.r#type {
                0 => format!(" +{}={}", text(&kv.key), text(&kv.value)),
                _ => {
                    assert_eq!((kv.create_revision, kv.version, kv.value.len()), (0, 0, 0));
                    format!(" -{}", text(&kv.key))
                }
            };
            if let Some(previous) = &event.prev_kv {
                shown += &format!("({})", text(&previous.value));
            }
        }
        shown
    }

    #[tokio::test]
    async fn created_events_canceled() {
        let mut door = Door::new();
        assert_eq!(show(&door.create(on("a", 0)).await), "0 @1 created");
        assert_eq!(show(&door.create(prefixed(0)).await), "1 @1 created");
        door.commit(put("a", "1", 0));
        let mut both = [show(&door.next().await), show(&door.next().await)];
        both.sort_unstable();
        assert_eq!(both, ["0 @2 +a=1", "1 @2 +a=1"]);
        door.commit(put("ab", "2", 0));
        assert_eq!(show(&door.next().await), "1 @3 +ab=2");
        door.commit(delete("a", b"b"));
        let mut both = [show(&door.next().await), show(&door.next().await)];
        both.sort_unstable();
        assert_eq!(both, ["0 @4 -a", "1 @4 -a -ab"]);
        door.cancel(77).await;
        door.cancel(1).await;
        assert_eq!(show(&door.next().await), "1 @4 canceled");
        door.commit(put("ab", "3", 0));
        door.expect_nothing().await;
        door.cancel(0).await;
        assert_eq!(show(&door.next().await), "0 @5 canceled");
        // With no watcher left there is nobody to tell of progress.
        door.progress().await;
        assert_eq!(show(&door.create(on("a", 0)).await), "2 @5 created");
    }

    #[tokio::test]
    async fn refused_watchers_are_created_and_canceled() {
        let mut door = Door::new();
        let with_id = WatchCreateRequest {
            watch_id: 7,
            ..on("a", 0)
        };
        assert_eq!(show(&door.create(with_id.clone()).await), "7 @1 created");
        assert_eq!(
            show(&door.create(with_id).await),
            "-1 @1 created canceled (mvcc: duplicate watch ID provided on the WatchStream)"
        );
        let empty = WatchCreateRequest {
            range_end: "a".into(),
            ..on("b", 0)
        };
        assert_eq!(
            show(&door.create(empty).await),
            "-1 @1 created canceled (mvcc: watcher range is empty)"
        );
        assert_eq!(
            show(&door.create(on("a", -1)).await),
            "-1 @1 created canceled (etcdserver: mvcc: required revision has been compacted)"
        );
        door.expect_nothing().await;
    }

    #[tokio::test]
    async fn history_then_live_and_compacted_starts() {
        let mut door = Door::new();
        for value in ["1", "2", "3"] {
            door.commit(put("a", value, 0));
        }
        // No key stands for the smallest; a single zero byte as the end for all behind it.
        let everything = WatchCreateRequest {
            range_end: Bytes::from_static(b"\0"),
            prev_kv: true,
            ..on("", 2)
        };
        assert_eq!(show(&door.create(everything).await), "0 @4 created");
        assert_eq!(show(&door.next().await), "0 @4 +a=1 +a=2(1) +a=3(2)");
        door.commit(delete("a", b""));
        assert_eq!(show(&door.next().await), "0 @5 -a(3)");
        door.commit(compact(4));
        assert_eq!(show(&door.create(on("a", 3)).await), "1 @5 created");
        assert_eq!(show(&door.next().await), "1 @0 canceled compacted 4");
        // At the compacted revision itself history goes on; what came before is gone.
        let at = WatchCreateRequest {
            prev_kv: true,
            ..on("a", 4)
        };
        assert_eq!(show(&door.create(at).await), "2 @5 created");
        assert_eq!(show(&door.next().await), "2 @5 +a=3 -a(3)");
        // As in etcd, a watcher that has ended holds its ID, and progress, until it is canceled.
        door.progress().await;
        door.cancel(1).await;
        assert_eq!(show(&door.next().await), "1 @5 canceled");
        door.expect_nothing().await;
    }

    #[tokio::test]
    async fn filters_and_future_starts() {
        let mut door = Door::new();
        let filtered = |filter: FilterType| WatchCreateRequest {
            filters: vec![filter.into(), 99],
            ..on("a", 0)
        };
        door.create(filtered(FilterType::Noput)).await;
        door.create(filtered(FilterType::Nodelete)).await;
        assert_eq!(show(&door.create(on("a", 4)).await), "2 @1 created");
        door.commit(put("a", "1", 0));
        assert_eq!(show(&door.next().await), "1 @2 +a=1");
        // One watcher starts in the future: no progress for anybody.
        door.progress().await;
        door.commit(delete("a", b""));
        assert_eq!(show(&door.next().await), "0 @3 -a");
        door.commit(put("a", "2", 0));
        let mut both = [show(&door.next().await), show(&door.next().await)];
        both.sort_unstable();
        assert_eq!(both, ["1 @4 +a=2", "2 @4 +a=2"]);
        door.expect_nothing().await;
    }

    #[tokio::test]
    async fn large_responses_are_cut_only_if_asked() {
        let mut door = Door::with(Duration::from_secs(600), 300, None);
        door.create(prefixed(0)).await;
        let request = WatchCreateRequest {
            fragment: true,
            ..prefixed(0)
        };
        door.create(request).await;
        let value: &'static str = "x".repeat(100).leak();
        for key in ["a1", "a2", "a3"] {
            door.commit(put(key, value, 0));
            door.next().await;
            door.next().await;
        }
        door.cancel(0).await;
        door.next().await;
        door.commit(delete("a", b"b"));
        assert_eq!(show(&door.next().await), "1 @5 -a1 -a2 -a3");
        // History brings all three puts in one response of over 300 bytes, and the small deletes.
        let request = WatchCreateRequest {
            fragment: true,
            ..prefixed(2)
        };
        assert_eq!(show(&door.create(request).await), "2 @5 created");
        let mut keys = Vec::new();
        loop {
            let part = door.next().await;
            assert!(part.encoded_len() < 300);
            assert_eq!((part.watch_id, part.header.unwrap().revision), (2, 5));
            keys.extend(part.events.into_iter().map(|event| event.kv.unwrap().key));
            if !part.fragment {
                break;
            }
            assert!(keys.len() < 6, "the last part says that it is the last");
        }
        assert_eq!(keys, ["a1", "a2", "a3", "a1", "a2", "a3"]);
        door.create(prefixed(2)).await;
        assert_eq!(door.next().await.events.len(), 6);
    }

    #[tokio::test]
    async fn progress_is_told_to_quiet_watchers_alone() {
        let mut door = Door::with(Duration::from_millis(100), 1 << 20, None);
        door.create(on("a", 0)).await;
        let request = WatchCreateRequest {
            progress_notify: true,
            ..on("a", 0)
        };
        door.create(request).await;
        assert_eq!(show(&door.next().await), "1 @1");
        door.commit(put("b", "1", 0));
        // A tick that was due may still speak of revision 1.
        let mut next = show(&door.next().await);
        while next == "1 @1" {
            next = show(&door.next().await);
        }
        assert_eq!(next, "1 @2");
    }

    #[tokio::test]
    async fn a_stream_that_requires_a_leader_ends_without_one() {
        let (leader, receiver) = watch::channel(5);
        let patience = Duration::from_millis(50);
        let leader_watch = LeaderWatch::new(receiver, patience);
        let mut door = Door::with(Duration::from_secs(600), 1 << 20, Some(leader_watch));
        door.create(on("a", 0)).await;
        leader.send(0).unwrap();
        leader.send(5).unwrap();
        door.commit(put("a", "1", 0));
        assert_eq!(show(&door.next().await), "0 @2 +a=1");
        leader.send(0).unwrap();
        let status = door.try_next().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "etcdserver: no leader");
        assert_eq!(
            door.hub.counts(),
            crate::watch::WatchCounts {
                events_sent: 1,
                ..Default::default()
            }
        );
    }

    #[tokio::test]
    async fn a_client_that_goes_away_leaves_nothing_behind() {
        let mut door = Door::new();
        for _ in 0..10_000 {
            door.create(on("a", 0)).await;
        }
        assert_eq!(door.hub.counts().watchers, 10_000);
        // The end of the requests alone is not the end of the stream.
        let (requests, _) = mpsc::channel(1);
        door.requests = requests;
        door.commit(put("a", "1", 0));
        for _ in 0..10_000 {
            assert_eq!(door.next().await.events.len(), 1);
        }
        door.responses = Box::pin(futures::stream::empty());
        let counts = door.hub.counts();
        assert_eq!(
            (counts.streams, counts.watchers, counts.events_sent),
            (0, 0, 10_000)
        );
    }
}
