//! A transport that counts what passes through another one: bytes, failures, round trips.
//!
//! etcd: server/etcdserver/api/rafthttp/metrics.go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use prost::Message;
use quorate_proto::quorate::peer;

use super::{Answers, Call, Lane, PeerAddress, Transport};
use crate::model::tally::{PeerTally, Tally};

/// See the module.
pub struct Metered<T> {
    inner: T,
    tally: Arc<Tally>,
}

impl<T: Transport> Metered<T> {
    pub fn new(inner: T, tally: Arc<Tally>) -> Self {
        Self { inner, tally }
    }

    fn peer(&self, to: &PeerAddress) -> Arc<PeerTally> {
        self.tally.peer(to.id)
    }
}

/// Counts one request and its answer.
fn unary<A: Message + 'static>(peer: Arc<PeerTally>, sent: usize, call: Call<A>) -> Call<A> {
    peer.sent_bytes.add(sent as u64);
    async move {
        let answer = call.await;
        match &answer {
            Ok(answer) => peer.received_bytes.add(answer.encoded_len() as u64),
            Err(_) => peer.send_failures.add(1),
        }
        answer
    }
    .boxed()
}

/// Counts the messages of a stream as they are sent.
fn sending<R: Message + 'static>(
    peer: &Arc<PeerTally>,
    requests: BoxStream<'static, R>,
) -> BoxStream<'static, R> {
    let peer = Arc::clone(peer);
    let count = move |request: &R| peer.sent_bytes.add(request.encoded_len() as u64);
    requests.inspect(count).boxed()
}

/// Counts the answers of a stream, and that it could not be opened or broke.
fn answering<A: Message + 'static>(
    peer: Arc<PeerTally>,
    call: Call<Answers<A>>,
    on_answer: impl Fn() + Send + 'static,
) -> Call<Answers<A>> {
    async move {
        let answers = match call.await {
            Ok(answers) => answers,
            Err(error) => {
                peer.send_failures.add(1);
                return Err(error);
            }
        };
        let counted = answers.inspect(move |answer| match answer {
            Ok(answer) => {
                peer.received_bytes.add(answer.encoded_len() as u64);
                on_answer();
            }
            Err(_) => peer.send_failures.add(1),
        });
        Ok(counted.boxed())
    }
    .boxed()
}

impl<T: Transport> Transport for Metered<T> {
    fn append(
        &self,
        to: &PeerAddress,
        lane: Lane,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> Call<Answers<peer::AppendResponse>> {
        let peer = self.peer(to);
        let requests = sending(&peer, requests);
        if lane != Lane::Heartbeat {
            let call = self.inner.append(to, lane, requests);
            return answering(peer, call, || {});
        }
        // Heartbeats carry nothing and wait for no disk: they tell how far away the peer is.
        let sent = Arc::new(Mutex::new(VecDeque::new()));
        let noted = Arc::clone(&sent);
        let requests = requests.inspect(move |_| noted.lock().push_back(Instant::now()));
        let call = self.inner.append(to, lane, requests.boxed());
        let counted = Arc::clone(&peer);
        answering(peer, call, move || {
            if let Some(sent) = sent.lock().pop_front() {
                counted.round_trips.observe(sent.elapsed());
            }
        })
    }

    fn vote(&self, to: &PeerAddress, request: peer::VoteRequest) -> Call<peer::VoteResponse> {
        let sent = request.encoded_len();
        unary(self.peer(to), sent, self.inner.vote(to, request))
    }

    fn pre_vote(&self, to: &PeerAddress, request: peer::VoteRequest) -> Call<peer::VoteResponse> {
        let sent = request.encoded_len();
        unary(self.peer(to), sent, self.inner.pre_vote(to, request))
    }

    fn transfer_leader(
        &self,
        to: &PeerAddress,
        request: peer::TransferLeaderRequest,
    ) -> Call<peer::TransferLeaderResponse> {
        let sent = request.encoded_len();
        unary(self.peer(to), sent, self.inner.transfer_leader(to, request))
    }

    fn snapshot(
        &self,
        to: &PeerAddress,
        chunks: BoxStream<'static, peer::SnapshotChunk>,
    ) -> Call<peer::SnapshotResponse> {
        let peer = self.peer(to);
        let call = self.inner.snapshot(to, sending(&peer, chunks));
        let call = unary(Arc::clone(&peer), 0, call);
        async move {
            let started = Instant::now();
            let flight = Flight::begin(peer);
            let answer = call.await;
            match &answer {
                Ok(_) => {
                    flight.0.snapshots_sent.add(1);
                    flight.0.snapshot_sends.observe(started.elapsed());
                }
                Err(_) => flight.0.snapshots_failed.add(1),
            }
            answer
        }
        .boxed()
    }

    fn forward(
        &self,
        to: &PeerAddress,
        sections: BoxStream<'static, peer::ForwardRequest>,
    ) -> Call<Answers<peer::ForwardRefusal>> {
        let peer = self.peer(to);
        let call = self.inner.forward(to, sending(&peer, sections));
        answering(peer, call, || {})
    }

    fn read_index(&self, to: &PeerAddress) -> Call<peer::ReadIndexResponse> {
        unary(self.peer(to), 0, self.inner.read_index(to))
    }

    fn lease_renew(
        &self,
        to: &PeerAddress,
        request: peer::LeaseRenewRequest,
    ) -> Call<peer::LeaseRenewResponse> {
        let sent = request.encoded_len();
        unary(self.peer(to), sent, self.inner.lease_renew(to, request))
    }

    fn lease_times(
        &self,
        to: &PeerAddress,
        request: peer::LeaseTimesRequest,
    ) -> Call<peer::LeaseTimesResponse> {
        let sent = request.encoded_len();
        unary(self.peer(to), sent, self.inner.lease_times(to, request))
    }

    fn member_change(
        &self,
        to: &PeerAddress,
        request: peer::MemberChangeRequest,
    ) -> Call<peer::MemberChangeResponse> {
        let sent = request.encoded_len();
        unary(self.peer(to), sent, self.inner.member_change(to, request))
    }

    fn hash_kv(
        &self,
        to: &PeerAddress,
        request: peer::HashKvRequest,
    ) -> Call<peer::HashKvResponse> {
        let sent = request.encoded_len();
        unary(self.peer(to), sent, self.inner.hash_kv(to, request))
    }
}

/// A snapshot on its way, whose call may be dropped before its end.
struct Flight(Arc<PeerTally>);

impl Flight {
    fn begin(peer: Arc<PeerTally>) -> Self {
        peer.snapshots_in_flight.add(1);
        Self(peer)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.snapshots_in_flight.subtract(1);
    }
}
