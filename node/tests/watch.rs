//! Watch, Lock and Election through real gRPC on loopback, against a member in this process.
//!
//! With `QUORATE_TEST_ENDPOINT=http://host:port` the same expectations are put to that server, for
//! instance to a real etcd with an empty store.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::request_op::Request as Op;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use quorate_proto::v3lockpb::lock_client::LockClient;
use quorate_proto::v3lockpb::{LockRequest, UnlockRequest};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

/// Every answer must come within this time.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server to talk to; stops when dropped, if it is ours.
struct Member {
    channel: Channel,
    _server: Option<quorate::server::Server>,
    _directory: tempfile::TempDir,
}

impl Member {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (server, endpoint) = match std::env::var("QUORATE_TEST_ENDPOINT") {
            Ok(endpoint) => (None, endpoint),
            Err(_) => {
                let (client, peer) = (free_url(), free_url());
                let server = start_server(directory.path(), &client, &peer).await;
                (Some(server), client)
            }
        };
        let endpoint = tonic::transport::Endpoint::from_shared(endpoint).unwrap();
        let channel = within(endpoint.connect()).await.unwrap();
        let member = Self {
            channel,
            _server: server,
            _directory: directory,
        };
        // The first linearizable read waits for the election.
        member.revision().await;
        member
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    async fn revision(&self) -> i64 {
        let request = RangeRequest {
            key: "nothing".into(),
            ..Default::default()
        };
        let response = within(self.kv().range(request)).await.unwrap().into_inner();
        response.header.unwrap().revision
    }

    async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> i64 {
        let request = PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        };
        let response = within(self.kv().put(request)).await.unwrap().into_inner();
        response.header.unwrap().revision
    }

    async fn delete(&self, key: &'static str, range_end: &'static str) {
        let request = delete_request(key, range_end);
        within(self.kv().delete_range(request)).await.unwrap();
    }

    async fn compact(&self, revision: i64) {
        let request = CompactionRequest {
            revision,
            physical: false,
        };
        within(self.kv().compact(request)).await.unwrap();
    }

    async fn lease(&self) -> i64 {
        let request = LeaseGrantRequest { ttl: 600, id: 0 };
        let mut client = LeaseClient::new(self.channel.clone());
        within(client.lease_grant(request))
            .await
            .unwrap()
            .into_inner()
            .id
    }

    async fn revoke(&self, id: i64) {
        let mut client = LeaseClient::new(self.channel.clone());
        let revoked = client.lease_revoke(LeaseRevokeRequest { id });
        within(revoked).await.unwrap();
    }

    /// The keys that start with `prefix`, which ends in `/`.
    async fn keys(&self, prefix: &str) -> Vec<Bytes> {
        let request = RangeRequest {
            key: Bytes::copy_from_slice(prefix.as_bytes()),
            range_end: prefix.replace('/', "0").into(),
            ..Default::default()
        };
        let response = within(self.kv().range(request)).await.unwrap().into_inner();
        response.kvs.into_iter().map(|kv| kv.key).collect()
    }

    /// Waits until there are as many keys.
    async fn wait_for_keys(&self, prefix: &str, count: usize) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while self.keys(prefix).await.len() != count {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{count} keys under {prefix}"
            );
            tokio::task::yield_now().await;
        }
    }
}

async fn start_server(
    directory: &std::path::Path,
    client: &str,
    peer: &str,
) -> quorate::server::Server {
    let arguments = [
        format!("--data-dir={}/data", directory.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ];
    let action = quorate::config::read(&arguments, std::iter::empty()).unwrap();
    let quorate::config::Action::Run(config) = action else {
        panic!("these flags run a member");
    };
    quorate::server::Server::start(*config).await.unwrap()
}

fn free_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("an answer in time")
}

fn delete_request(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        prev_kv: false,
    }
}

/// One watch stream. etcd opens the answering side with the first answer alone.
struct Watcher {
    requests: mpsc::Sender<WatchRequest>,
    opening: Option<JoinHandle<Result<Response<Streaming<WatchResponse>>, Status>>>,
    responses: Option<Streaming<WatchResponse>>,
}

impl Watcher {
    fn open(member: &Member) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let client = WatchClient::new(member.channel.clone());
        let mut client = client.max_decoding_message_size(64 << 20);
        let requests_out = ReceiverStream::new(receiver);
        let opening = tokio::spawn(async move { client.watch(requests_out).await });
        Self {
            requests,
            opening: Some(opening),
            responses: None,
        }
    }

    async fn ask(&self, request: RequestUnion) {
        let request_union = Some(request);
        self.requests
            .send(WatchRequest { request_union })
            .await
            .unwrap();
    }

    async fn create(&mut self, request: WatchCreateRequest) -> WatchResponse {
        self.ask(RequestUnion::CreateRequest(request)).await;
        self.next().await
    }

    async fn cancel(&self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
            .await;
    }

    async fn progress(&self) {
        self.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}))
            .await;
    }

    async fn next(&mut self) -> WatchResponse {
        if let Some(opening) = self.opening.take() {
            let opened = within(opening).await.unwrap().unwrap();
            self.responses = Some(opened.into_inner());
        }
        let responses = self.responses.as_mut().unwrap();
        let response = within(responses.message()).await.unwrap();
        let response = response.expect("the stream goes on");
        let header = response.header.unwrap();
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0);
        response
    }

    async fn shown(&mut self) -> String {
        show(&self.next().await)
    }

    /// Asks for progress until it is told; whatever else comes before it fails.
    async fn expect_progress(&mut self, revision: i64) {
        self.progress().await;
        assert_eq!(self.shown().await, format!("-1 @{revision}"));
    }
}

/// `id @revision`, what is set, then the events: `+key=value(previous)` or `-key(previous)`.
fn show(response: &WatchResponse) -> String {
    let revision = response.header.unwrap().revision;
    let mut shown = format!("{} @{revision}", response.watch_id);
    for (is_set, name) in [
        (response.created, "created"),
        (response.canceled, "canceled"),
        (response.fragment, "fragment"),
    ] {
        if is_set {
            shown += &format!(" {name}");
        }
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
            _ => format!(" -{}", text(&kv.key)),
        };
        if let Some(previous) = &event.prev_kv {
            shown += &format!("({})", text(&previous.value));
        }
    }
    shown
}

fn on(key: &'static str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.into(),
        ..Default::default()
    }
}

fn range(key: &'static str, end: &'static str) -> WatchCreateRequest {
    WatchCreateRequest {
        range_end: end.into(),
        ..on(key)
    }
}

fn from(start_revision: i64, request: WatchCreateRequest) -> WatchCreateRequest {
    WatchCreateRequest {
        start_revision,
        ..request
    }
}

fn put_op(key: &'static str, value: &'static str) -> RequestOp {
    RequestOp {
        request: Some(Op::RequestPut(PutRequest {
            key: key.into(),
            value: value.into(),
            ..Default::default()
        })),
    }
}

/// Creations that are told of, and canceled at once.
async fn expect_refused_creations(stream: &mut Watcher, taken: WatchCreateRequest, revision: i64) {
    for (request, reason) in [
        (
            taken,
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
        (range("b", "a"), "mvcc: watcher range is empty"),
        (
            from(-1, on("a")),
            "etcdserver: mvcc: required revision has been compacted",
        ),
    ] {
        assert_eq!(
            show(&stream.create(request).await),
            format!("-1 @{revision} created canceled ({reason})")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_watchers_from_created_to_canceled() {
    let member = Member::start().await;
    let at = member.revision().await;
    let mut stream = Watcher::open(&member);
    assert_eq!(
        show(&stream.create(range("forms/", "forms0")).await),
        format!("0 @{at} created")
    );
    member.put("forms/a", "1").await;
    assert_eq!(stream.shown().await, format!("0 @{} +forms/a=1", at + 1));
    let txn = TxnRequest {
        success: vec![
            put_op("forms/a", "2"),
            put_op("forms/b", "3"),
            put_op("elsewhere", "4"),
        ],
        ..Default::default()
    };
    within(member.kv().txn(txn)).await.unwrap();
    assert_eq!(
        stream.shown().await,
        format!("0 @{} +forms/a=2 +forms/b=3", at + 2)
    );
    // History with the pairs before, on the same stream, under an ID of the client's choice.
    let history = WatchCreateRequest {
        prev_kv: true,
        watch_id: 9,
        filters: vec![FilterType::Nodelete.into()],
        ..from(at + 1, range("forms/", "forms0"))
    };
    assert_eq!(
        show(&stream.create(history.clone()).await),
        format!("9 @{} created", at + 2)
    );
    let events = "+forms/a=1 +forms/a=2(1) +forms/b=3";
    assert_eq!(stream.shown().await, format!("9 @{} {events}", at + 2));
    expect_refused_creations(&mut stream, history, at + 2).await;
    member.delete("forms/", "forms0").await;
    assert_eq!(
        stream.shown().await,
        format!("0 @{} -forms/a -forms/b", at + 3)
    );
    stream.expect_progress(at + 3).await;
    stream.cancel(1234).await;
    stream.cancel(0).await;
    assert_eq!(stream.shown().await, format!("0 @{} canceled", at + 3));
    member.put("forms/a", "5").await;
    assert_eq!(stream.shown().await, format!("9 @{} +forms/a=5", at + 4));
    let future = from(at + 6, on("forms/a"));
    assert_eq!(
        show(&stream.create(future).await),
        format!("1 @{} created", at + 4)
    );
    stream.progress().await;
    member.put("forms/a", "6").await;
    assert_eq!(stream.shown().await, format!("9 @{} +forms/a=6(5)", at + 5));
    member.put("forms/a", "7").await;
    let mut both = [stream.shown().await, stream.shown().await];
    both.sort_unstable();
    let expected = format!("1 @{} +forms/a=7|9 @{} +forms/a=7(6)", at + 6, at + 6);
    assert_eq!(both.join("|"), expected);
    stream.expect_progress(at + 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_start_is_canceled_and_holds_its_id() {
    let member = Member::start().await;
    for value in ["1", "2", "3"] {
        member.put("compacted", value).await;
    }
    let at = member.revision().await;
    // Nothing is written after the compaction: the watcher must learn of it all the same.
    member.compact(at).await;
    let mut stream = Watcher::open(&member);
    let created = stream.create(from(at - 1, on("compacted"))).await;
    assert_eq!(show(&created), format!("0 @{at} created"));
    assert_eq!(
        stream.shown().await,
        format!("0 @0 canceled compacted {at}")
    );
    let at_compaction = WatchCreateRequest {
        prev_kv: true,
        ..from(at, on("compacted"))
    };
    assert_eq!(
        show(&stream.create(at_compaction).await),
        format!("1 @{at} created")
    );
    assert_eq!(stream.shown().await, format!("1 @{at} +compacted=3"));
    stream.progress().await;
    stream.cancel(0).await;
    assert_eq!(stream.shown().await, format!("0 @{at} canceled"));
    stream.expect_progress(at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_late_misses_nothing() {
    const PUTS: i64 = 2_000;
    let member = Member::start().await;
    let mut stream = Watcher::open(&member);
    let at = member.revision().await;
    stream.create(on("late")).await;
    stream.create(from(at + 1, range("lat", "latf"))).await;
    // Far more than the windows of the connection hold.
    let value = Bytes::from(vec![b'x'; 4_096]);
    for _ in 0..PUTS {
        member.put("late", value.clone()).await;
    }
    let mut seen = [Vec::new(), Vec::new()];
    let expected: Vec<i64> = (at + 1..=at + PUTS).collect();
    while seen.iter().any(|seen| seen.last() != expected.last()) {
        let response = stream.next().await;
        let watcher = usize::try_from(response.watch_id).unwrap();
        let revisions = response
            .events
            .iter()
            .map(|e| e.kv.as_ref().unwrap().mod_revision);
        seen[watcher].extend(revisions);
    }
    assert!(seen.iter().all(|seen| *seen == expected));
    stream.expect_progress(at + PUTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_are_cut_between_events() {
    let member = Member::start().await;
    let at = member.revision().await;
    let value = Bytes::from(vec![b'x'; 1_100_000]);
    for key in ["fragment/a", "fragment/b", "fragment/c"] {
        member.put(key, value.clone()).await;
    }
    let mut stream = Watcher::open(&member);
    let whole = WatchCreateRequest {
        fragment: true,
        prev_kv: true,
        ..range("fragment/", "fragment0")
    };
    stream.create(whole).await;
    // Each event holds the megabyte that was deleted: one to a fragment.
    member.delete("fragment/", "fragment0").await;
    for (key, is_last) in [("a", false), ("b", false), ("c", true)] {
        let part = stream.next().await;
        assert_eq!((part.watch_id, part.header.unwrap().revision), (0, at + 4));
        assert_eq!((part.fragment, part.events.len()), (!is_last, 1), "{key}");
        assert!(part.encoded_len() > 1_000_000);
        assert_eq!(
            part.events[0].kv.as_ref().unwrap().key,
            format!("fragment/{key}")
        );
    }
}

fn lock_client(member: &Member) -> LockClient<Channel> {
    LockClient::new(member.channel.clone())
}

async fn lock(member: &Member, name: &'static str, lease: i64) -> Result<Bytes, Status> {
    let name = Bytes::from_static(name.as_bytes());
    let mut client = lock_client(member);
    let locked = within(client.lock(LockRequest { name, lease }))
        .await?
        .into_inner();
    assert!(locked.header.unwrap().revision > 0);
    Ok(locked.key)
}

async fn unlock(member: &Member, key: Bytes) {
    within(lock_client(member).unlock(UnlockRequest { key }))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_pass_in_the_order_of_asking() {
    let member = std::sync::Arc::new(Member::start().await);
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(member.lease().await);
    }
    let first = lock(&member, "mutex", leases[0]).await.unwrap();
    assert_eq!(first, format!("mutex/{:x}", leases[0]));
    // Who holds it gets it again.
    assert_eq!(lock(&member, "mutex", leases[0]).await.unwrap(), first);
    let mut waiting = Vec::new();
    for (lease, count) in leases[1..].iter().copied().zip(2..) {
        let waiter = member.clone();
        waiting.push(tokio::spawn(
            async move { lock(&waiter, "mutex", lease).await },
        ));
        member.wait_for_keys("mutex/", count).await;
    }
    // The second goes away while it waits, and gives up its place.
    waiting[0].abort();
    member.wait_for_keys("mutex/", 3).await;
    // The third's lease ends while it waits: it must not believe that it holds the lock.
    member.revoke(leases[2]).await;
    unlock(&member, first).await;
    let expired = waiting.remove(1).await.unwrap().unwrap_err();
    assert_eq!(
        (expired.code(), expired.message()),
        (Code::Unknown, "mutex: session is expired")
    );
    let last = waiting.remove(1).await.unwrap().unwrap();
    assert_eq!(last, format!("mutex/{:x}", leases[3]));
    unlock(&member, last).await;
    assert!(member.keys("mutex/").await.is_empty());
    let own = lock(&member, "mutex", 0).await.unwrap();
    assert_eq!(member.keys("mutex/").await, [own]);
    let unknown = lock(&member, "mutex", 123).await.unwrap_err();
    assert_eq!(
        (unknown.code(), unknown.message()),
        (Code::Unknown, "etcdserver: requested lease not found")
    );
}

async fn campaign(member: &Member, lease: i64, value: &'static str) -> LeaderKey {
    let request = CampaignRequest {
        name: "chair".into(),
        lease,
        value: value.into(),
    };
    let mut client = ElectionClient::new(member.channel.clone());
    let response = within(client.campaign(request)).await.unwrap().into_inner();
    response.leader.unwrap()
}

async fn leader_value(member: &Member) -> Result<Bytes, Status> {
    let request = LeaderRequest {
        name: "chair".into(),
    };
    let mut client = ElectionClient::new(member.channel.clone());
    Ok(within(client.leader(request))
        .await?
        .into_inner()
        .kv
        .unwrap()
        .value)
}

async fn proclaim(member: &Member, leader: Option<LeaderKey>) -> Result<(), Status> {
    let request = ProclaimRequest {
        leader,
        value: "word".into(),
    };
    let mut client = ElectionClient::new(member.channel.clone());
    within(client.proclaim(request)).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn elections_are_led_observed_and_resigned() {
    let member = std::sync::Arc::new(Member::start().await);
    let unknown = |status: Status| (status.code() == Code::Unknown, status.message().to_owned());
    let said = |text: &str| (true, text.to_owned());
    let nobody = leader_value(&member).await.unwrap_err();
    assert_eq!(unknown(nobody), said("election: no leader"));
    let request = LeaderRequest {
        name: "chair".into(),
    };
    let mut client = ElectionClient::new(member.channel.clone());
    let mut observer = client.clone();
    let observed = tokio::spawn(async move { observer.observe(request).await });

    let (one, two) = (member.lease().await, member.lease().await);
    let first = campaign(&member, one, "one").await;
    assert_eq!(first.key, format!("chair/{one:x}"));
    assert_eq!((first.name.as_ref(), first.lease), (&b"chair"[..], one));
    // Standing again is no new candidacy, but a new value is proclaimed.
    let again = campaign(&member, one, "uno").await;
    assert_eq!(
        (again.key.clone(), again.rev),
        (first.key.clone(), first.rev)
    );
    let other = member.clone();
    let second = tokio::spawn(async move { campaign(&other, two, "two").await });
    member.wait_for_keys("chair/", 2).await;
    assert_eq!(leader_value(&member).await.unwrap(), "uno");
    proclaim(&member, Some(first.clone())).await.unwrap();
    assert_eq!(leader_value(&member).await.unwrap(), "word");

    let resign = ResignRequest {
        leader: Some(first.clone()),
    };
    within(client.resign(resign.clone())).await.unwrap();
    let second = within(second).await.unwrap();
    assert_eq!(second.lease, two);
    assert_eq!(leader_value(&member).await.unwrap(), "two");
    let too_late = proclaim(&member, Some(first)).await.unwrap_err();
    assert_eq!(unknown(too_late), said("election: not leader"));
    // To resign twice is no error, and takes nothing from the next leader.
    within(client.resign(resign)).await.unwrap();
    assert_eq!(leader_value(&member).await.unwrap(), "two");
    let missing = proclaim(&member, None).await.unwrap_err();
    assert_eq!(unknown(missing), said("\"leader\" field must be provided"));

    // Proclamations of the past may be skipped, the newest never; none comes twice or late.
    let mut observed = within(observed).await.unwrap().unwrap().into_inner();
    let order = ["one", "uno", "word", "two"];
    let mut last = 0;
    while last < order.len() {
        let leader = within(observed.message()).await.unwrap().unwrap();
        let value = leader.kv.unwrap().value;
        let place = order.iter().position(|known| *known == value).unwrap() + 1;
        assert!(place > last, "{value:?} after {}", order[last - 1]);
        last = place;
    }
}
