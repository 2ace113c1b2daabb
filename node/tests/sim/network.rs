//! The network in memory: links that can be cut, lose and delay. A lost message of a stream ends
//! the stream, as with TCP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, future, stream};
use parking_lot::Mutex;
use quorate::raft::receive::PeerRefusal;
use quorate::raft::transport::{Answers, Call, Lane, PeerAddress, PeerError, Transport};
use quorate::replica::Replica;
use quorate_proto::quorate::peer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A member in one of its lives: what an earlier life sent is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    pub member: u64,
    pub number: u64,
}

struct State {
    random: StdRng,
    alive: BTreeMap<u64, (u64, Option<Arc<Replica>>)>,
    /// Links that carry nothing, as (from, to).
    cut: BTreeSet<(u64, u64)>,
    lost_percent: u32,
    delay_max: Duration,
}

/// All links between the members.
pub struct Network {
    state: Mutex<State>,
}

impl Network {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                random: StdRng::seed_from_u64(seed),
                alive: BTreeMap::new(),
                cut: BTreeSet::new(),
                lost_percent: 0,
                delay_max: Duration::ZERO,
            }),
        })
    }

    /// A new life of a member, in which it cannot be reached before [`Network::attach`].
    pub fn begin_life(self: &Arc<Self>, member: u64) -> Arc<Wire> {
        let mut state = self.state.lock();
        let slot = state.alive.entry(member).or_default();
        *slot = (slot.0 + 1, None);
        Arc::new(Wire {
            network: Arc::clone(self),
            from: Life {
                member,
                number: slot.0,
            },
        })
    }

    pub fn attach(&self, replica: &Arc<Replica>) {
        let mut state = self.state.lock();
        let slot = state.alive.entry(replica.member_id()).or_default();
        slot.1 = Some(Arc::clone(replica));
    }

    /// Ends a member's life: nothing of it arrives any more.
    pub fn end_life(&self, member: u64) {
        let mut state = self.state.lock();
        let slot = state.alive.entry(member).or_default();
        *slot = (slot.0 + 1, None);
    }

    pub fn cut(&self, links: impl IntoIterator<Item = (u64, u64)>) {
        self.state.lock().cut.extend(links);
    }

    pub fn disturb(&self, lost_percent: u32, delay_max: Duration) {
        let mut state = self.state.lock();
        state.lost_percent = lost_percent;
        state.delay_max = delay_max;
    }

    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.cut.clear();
        state.lost_percent = 0;
        state.delay_max = Duration::ZERO;
    }

    fn target(&self, member: u64) -> Result<(Life, Arc<Replica>), PeerError> {
        let state = self.state.lock();
        match state.alive.get(&member) {
            Some((number, Some(replica))) => Ok((
                Life {
                    member,
                    number: *number,
                },
                Arc::clone(replica),
            )),
            _ => Err(unreachable_member(member, "it is down")),
        }
    }

    /// Whether a message gets through now, and how long it takes.
    fn decide(&self, from: Life, to: Life) -> Result<Duration, &'static str> {
        let mut state = self.state.lock();
        for life in [from, to] {
            if state.alive.get(&life.member).map(|slot| slot.0) != Some(life.number) {
                return Err("connection reset");
            }
        }
        if state.cut.contains(&(from.member, to.member)) {
            return Err("no route");
        }
        if state.random.random_range(0..100) < state.lost_percent {
            return Err("lost");
        }
        let longest = u64::try_from(state.delay_max.as_micros()).expect("a short time");
        Ok(Duration::from_micros(
            state.random.random_range(0..=longest),
        ))
    }

    async fn pass(&self, from: Life, to: Life) -> Result<(), &'static str> {
        let delay = self.decide(from, to)?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
            // A link that was cut meanwhile loses what was on its way.
            self.decide(from, to)?;
        }
        Ok(())
    }
}

fn unreachable_member(member: u64, reason: &str) -> PeerError {
    PeerError::Unreachable {
        member,
        reason: reason.into(),
    }
}

fn refused(member: u64, refusal: &PeerRefusal) -> PeerError {
    PeerError::Refused {
        member,
        reason: refusal.to_string(),
    }
}

/// The network as one life of one member has it.
pub struct Wire {
    network: Arc<Network>,
    from: Life,
}

impl Wire {
    /// One question, one answer.
    fn ask<Q, A, F>(
        &self,
        to: &PeerAddress,
        question: Q,
        answer: impl FnOnce(Arc<Replica>, Q) -> F + Send + 'static,
    ) -> Call<A>
    where
        Q: Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<A, PeerRefusal>> + Send,
    {
        let (network, from, to) = (Arc::clone(&self.network), self.from, to.id);
        async move {
            let lost = |reason| unreachable_member(to, reason);
            let (life, replica) = network.target(to)?;
            network.pass(from, life).await.map_err(lost)?;
            let outcome = answer(replica, question).await;
            network.pass(life, from).await.map_err(lost)?;
            outcome.map_err(|refusal| refused(to, &refusal))
        }
        .boxed()
    }

    /// A stream of questions, a stream of answers; both end when a message is lost.
    fn converse<Q, A>(
        &self,
        to: &PeerAddress,
        questions: BoxStream<'static, Q>,
        answer: impl FnOnce(
            Arc<Replica>,
            BoxStream<'static, Q>,
        ) -> BoxStream<'static, Result<A, PeerRefusal>>
        + Send
        + 'static,
    ) -> Call<Answers<A>>
    where
        Q: Send + 'static,
        A: Send + 'static,
    {
        let (network, from, to) = (Arc::clone(&self.network), self.from, to.id);
        async move {
            let (life, replica) = network.target(to)?;
            let broken = Arc::new(AtomicBool::new(false));
            let there = until_lost(questions, &network, from, life, &broken);
            let back = answer(replica, there.boxed());
            let back = until_lost(back, &network, life, from, &broken);
            let answers = back.map(move |outcome| outcome.map_err(|r| refused(to, &r)));
            // The end of a broken stream is an error, that of a whole one is not.
            let end = stream::once(async move {
                let reset = || Err(unreachable_member(to, "connection reset"));
                broken.load(Ordering::SeqCst).then(reset)
            })
            .filter_map(future::ready);
            Ok(answers.chain(end).boxed())
        }
        .boxed()
    }
}

/// The messages of a stream until one does not get through.
fn until_lost<T: Send + 'static>(
    messages: impl Stream<Item = T> + Send + 'static,
    network: &Arc<Network>,
    from: Life,
    to: Life,
    broken: &Arc<AtomicBool>,
) -> impl Stream<Item = T> + Send + 'static {
    let (network, broken) = (Arc::clone(network), Arc::clone(broken));
    let passed = messages.then(move |message| {
        let (network, broken) = (Arc::clone(&network), Arc::clone(&broken));
        async move {
            if broken.load(Ordering::SeqCst) || network.pass(from, to).await.is_err() {
                broken.store(true, Ordering::SeqCst);
                return None;
            }
            Some(message)
        }
    });
    passed
        .take_while(|message| future::ready(message.is_some()))
        .filter_map(future::ready)
}

impl Transport for Wire {
    fn append(
        &self,
        to: &PeerAddress,
        _lane: Lane,
        requests: BoxStream<'static, peer::AppendRequest>,
    ) -> Call<Answers<peer::AppendResponse>> {
        self.converse(to, requests, |replica, requests| {
            replica.raft().receive_append(requests)
        })
    }

    fn vote(&self, to: &PeerAddress, request: peer::VoteRequest) -> Call<peer::VoteResponse> {
        self.ask(to, request, |replica, request| async move {
            replica.raft().receive_vote(request).await
        })
    }

    fn pre_vote(&self, to: &PeerAddress, request: peer::VoteRequest) -> Call<peer::VoteResponse> {
        self.ask(to, request, |replica, request| async move {
            replica.raft().receive_pre_vote(request).await
        })
    }

    fn transfer_leader(
        &self,
        to: &PeerAddress,
        request: peer::TransferLeaderRequest,
    ) -> Call<peer::TransferLeaderResponse> {
        self.ask(to, request, |replica, request| async move {
            replica.raft().receive_transfer_leader(request).await
        })
    }

    fn snapshot(
        &self,
        to: &PeerAddress,
        chunks: BoxStream<'static, peer::SnapshotChunk>,
    ) -> Call<peer::SnapshotResponse> {
        let (network, from, to) = (Arc::clone(&self.network), self.from, to.clone());
        let broken = Arc::new(AtomicBool::new(false));
        let chunks = match network.target(to.id) {
            Ok((life, _)) => until_lost(chunks, &network, from, life, &broken).boxed(),
            Err(error) => return future::ready(Err(error)).boxed(),
        };
        self.ask(&to, chunks, |replica, chunks| async move {
            replica.raft().receive_snapshot(chunks).await
        })
    }

    fn forward(
        &self,
        to: &PeerAddress,
        sections: BoxStream<'static, peer::ForwardRequest>,
    ) -> Call<Answers<peer::ForwardRefusal>> {
        self.converse(to, sections, |replica, sections| {
            replica.receive_forward(sections).map(Ok).boxed()
        })
    }

    fn read_index(&self, to: &PeerAddress) -> Call<peer::ReadIndexResponse> {
        self.ask(to, (), |replica, ()| async move {
            replica.receive_read_index().await
        })
    }

    fn lease_renew(
        &self,
        to: &PeerAddress,
        request: peer::LeaseRenewRequest,
    ) -> Call<peer::LeaseRenewResponse> {
        self.ask(to, request, |replica, request| async move {
            replica.receive_lease_renew(request).await
        })
    }

    fn lease_times(
        &self,
        to: &PeerAddress,
        request: peer::LeaseTimesRequest,
    ) -> Call<peer::LeaseTimesResponse> {
        self.ask(to, request, |replica, request| async move {
            replica.receive_lease_times(request).await
        })
    }

    fn member_change(
        &self,
        to: &PeerAddress,
        request: peer::MemberChangeRequest,
    ) -> Call<peer::MemberChangeResponse> {
        self.ask(to, request, |replica, request| async move {
            replica.receive_member_change(request).await
        })
    }

    fn hash_kv(
        &self,
        to: &PeerAddress,
        request: peer::HashKvRequest,
    ) -> Call<peer::HashKvResponse> {
        self.ask(to, request, |replica, request| async move {
            replica.receive_hash_kv(request).await
        })
    }
}
