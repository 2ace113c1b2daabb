//! Appends to one peer, many in flight: one call of the transport for as long as it lasts.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream};
use futures::task::AtomicWaker;
use futures::{Stream, StreamExt};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use parking_lot::Mutex;
use quorate_proto::quorate::peer;

use super::codec;
use super::network::{append_to_wire, bounded, rpc_error};
use super::transport::{Answers, Lane, PeerAddress, PeerError, Transport};
use super::types::{LogId, TypeConfig};
use crate::model::limits::{APPENDS_IN_FLIGHT_MAX, PEER_STALL_MS};

type C = TypeConfig;

/// What openraft gets for its requests, in order.
pub type AppendResults<'s> = BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>;

/// A request that is not answered yet.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    previous: Option<LogId>,
    last: Option<LogId>,
    at: Instant,
}

impl Sent {
    pub fn of(request: &AppendEntriesRequest<C>) -> Self {
        let last = request.entries.last().map(|entry| entry.log_id);
        Self {
            previous: request.prev_log_id,
            last: last.or(request.prev_log_id),
            at: Instant::now(),
        }
    }

    pub fn outcome(self, answer: peer::AppendResponse) -> Result<StreamAppendResult<C>, PeerError> {
        use peer::append_response::Outcome;
        let malformed = || PeerError::Refused {
            member: 0,
            reason: "an append was answered with nothing".into(),
        };
        Ok(match answer.outcome.ok_or_else(malformed)? {
            Outcome::Success(_) => Ok(self.last),
            Outcome::PartialSuccess(id) => Ok(Some(codec::log_id_from_wire(&id))),
            // Nothing before the first entry conflicts.
            Outcome::Conflict(_) => {
                let previous = self.previous.ok_or_else(malformed)?;
                Err(StreamAppendError::Conflict(previous))
            }
            Outcome::HigherVote(vote) => {
                Err(StreamAppendError::HigherVote(codec::vote_from_wire(&vote)))
            }
        })
    }
}

/// Sends what `input` yields and gives back the results.
///
/// Nothing is dialled before there is something to send. That is more than thrift: openraft waits
/// between two attempts at a peer that cannot be reached inside `input`, so that whoever dials
/// first never waits and tries thousands of times a second.
pub async fn pipelined<'s, S>(
    transport: &Arc<dyn Transport>,
    to: &PeerAddress,
    lane: Lane,
    mut input: S,
    connect_limit: Duration,
) -> Result<AppendResults<'s>, RPCError<C>>
where
    S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
{
    let Some(first) = input.next().await else {
        return Ok(stream::empty().boxed());
    };
    let in_flight = Arc::new(Mutex::new(VecDeque::with_capacity(APPENDS_IN_FLIGHT_MAX)));
    let sent = Arc::clone(&in_flight);
    let requests = stream::once(async { first }).chain(input);
    let requests = requests.map(move |request| {
        sent.lock().push_back(Sent::of(&request));
        append_to_wire(request)
    });
    let (requests, lease) = leased(requests.boxed());
    let call = transport.append(to, lane, requests);
    let answers = bounded(to.id, connect_limit, call).await;
    let pipeline = Pipeline {
        member: to.id,
        in_flight,
        answers: answers.map_err(|error| rpc_error(&error))?,
        ended: false,
        _requests: lease,
    };
    let results = stream::unfold(pipeline, |mut pipeline| async move {
        let result = pipeline.result().await?;
        Some((result, pipeline))
    });
    Ok(results.boxed())
}

/// What one pipelined append keeps for the answering half.
struct Pipeline {
    member: u64,
    in_flight: Arc<Mutex<VecDeque<Sent>>>,
    answers: Answers<peer::AppendResponse>,
    ended: bool,
    _requests: Lease<peer::AppendRequest>,
}

impl Pipeline {
    /// The next answer, or an error when none comes for too long while one is due.
    async fn next(&mut self) -> Option<Result<peer::AppendResponse, PeerError>> {
        let stall = Duration::from_millis(PEER_STALL_MS);
        loop {
            match tokio::time::timeout(stall, self.answers.next()).await {
                Ok(answer) => return answer,
                Err(_) => {
                    let oldest = self.in_flight.lock().front().map(|sent| sent.at);
                    if oldest.is_some_and(|at| at.elapsed() >= stall) {
                        return Some(Err(PeerError::Timeout {
                            member: self.member,
                            timeout_ms: PEER_STALL_MS,
                        }));
                    }
                }
            }
        }
    }

    async fn result(&mut self) -> Option<Result<StreamAppendResult<C>, RPCError<C>>> {
        if self.ended {
            return None;
        }
        let result = match self.next().await? {
            Err(error) => Err(error),
            Ok(answer) => {
                let sent = self.in_flight.lock().pop_front();
                let unasked = || PeerError::Refused {
                    member: self.member,
                    reason: "an answer to nothing".into(),
                };
                sent.ok_or_else(unasked)
                    .and_then(|sent| sent.outcome(answer))
            }
        };
        // openraft ends a stream at the first answer that is not a success.
        self.ended = !matches!(result, Ok(Ok(_)));
        Some(result.map_err(|error| rpc_error(&error)))
    }
}

/// A stream that the transport reads for as long as the [`Lease`] beside it lives. A connection
/// may hold on to a call's requests after its answers were dropped; openraft's requests share
/// their state, under a lock, with those of the next call, which must not wait for them, nor lose
/// entries to them.
fn leased<T: Send + 'static>(inner: BoxStream<'static, T>) -> (BoxStream<'static, T>, Lease<T>) {
    let shared = Arc::new(Shared {
        inner: Mutex::new(Some(inner)),
        reader: AtomicWaker::new(),
    });
    (Leased(Arc::clone(&shared)).boxed(), Lease(shared))
}

struct Shared<T> {
    /// A lock for the length of a poll.
    inner: Mutex<Option<BoxStream<'static, T>>>,
    reader: AtomicWaker,
}

struct Leased<T>(Arc<Shared<T>>);

impl<T> Stream for Leased<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.reader.register(context.waker());
        match self.0.inner.lock().as_mut() {
            Some(inner) => inner.as_mut().poll_next(context),
            None => Poll::Ready(None),
        }
    }
}

/// Ends the stream beside it when it is dropped.
struct Lease<T>(Arc<Shared<T>>);

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        let inner = self.0.inner.lock().take();
        drop(inner);
        self.0.reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// Tells when it is dropped.
    struct Mark(Arc<Mutex<bool>>);

    impl Drop for Mark {
        fn drop(&mut self) {
            *self.0.lock() = true;
        }
    }

    #[tokio::test]
    async fn requests_end_with_their_lease_though_somebody_still_reads_them() {
        let gone = Arc::new(Mutex::new(false));
        let mark = Mark(Arc::clone(&gone));
        let inner = stream::once(async { 1 }).chain(stream::once(async move {
            let _mark = mark;
            std::future::pending().await
        }));
        let (mut requests, lease) = leased(inner.boxed());
        assert_eq!(requests.next().await, Some(1));
        let mut reading = tokio::spawn(async move { requests.next().await });
        tokio::task::yield_now().await;
        assert!((&mut reading).now_or_never().is_none() && !*gone.lock());
        drop(lease);
        assert!(*gone.lock());
        assert_eq!(reading.await.unwrap(), None);
    }
}
