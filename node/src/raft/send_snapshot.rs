//! Sends a checkpoint to a member that fell behind the log.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, future, stream};
use openraft::errors::{ReplicationClosed, StreamingError, Unreachable};
use openraft::network::Backoff;
use openraft::raft::SnapshotResponse;

use super::applier::blocking;
use super::codec;
use super::network::bounded;
use super::snapshot::{self, Snapshot, SnapshotData};
use super::transport::{Lane, PeerAddress, PeerError, Transport};
use super::types::{TypeConfig, Vote};

/// How long the receiver may take to say that it is there.
const REACH_LIMIT: Duration = Duration::from_secs(2);
/// The pause before an absent receiver is looked for again.
const REACH_PAUSE: Duration = Duration::from_millis(500);

/// How long openraft waits after an attempt that failed: each one flushes the state and links its
/// files, while nothing is applied.
pub fn backoff() -> Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const DOUBLINGS: usize = 4;
    let growing = (0..DOUBLINGS).map(|doublings| FIRST * (1 << doublings));
    Backoff::new(growing.chain(std::iter::repeat(FIRST * (1 << DOUBLINGS))))
}

/// Whether the receiver answers at all.
async fn reach(transport: &Arc<dyn Transport>, to: &PeerAddress) -> Result<(), PeerError> {
    let probe = transport.append(to, Lane::Snapshot, stream::empty().boxed());
    bounded(to.id, REACH_LIMIT, probe).await.map(drop)
}

async fn until_reached(transport: &Arc<dyn Transport>, to: &PeerAddress) {
    while reach(transport, to).await.is_err() {
        tokio::time::sleep(REACH_PAUSE).await;
    }
}

/// Sends a checkpoint; fails when the receiver takes nothing for too long. While it is away, this
/// waits, and fails when it is back, so that openraft asks for a checkpoint of that moment.
pub async fn send_snapshot(
    transport: &Arc<dyn Transport>,
    to: &PeerAddress,
    vote: Vote,
    snapshot: Snapshot,
    cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
    stall: Duration,
) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
    let member = to.id;
    let SnapshotData::Held(held) = snapshot.snapshot else {
        let error = "the snapshot has no checkpoint to send";
        return Err(StreamingError::Unreachable(Unreachable::from_string(error)));
    };
    let mut cancel = pin!(cancel);
    // All of the state is read to be measured: not before somebody is there to take it.
    if let Err(error) = reach(transport, to).await {
        // What is frozen would be old by the time, and keeps replaced files from being deleted.
        drop(held);
        tokio::select! {
            closed = &mut cancel => return Err(StreamingError::Closed(closed)),
            () = until_reached(transport, to) => {}
        }
        return Err(StreamingError::Unreachable(Unreachable::new(&error)));
    }
    let held = blocking(move || held.measured()).await.map_err(|error| {
        tracing::error!(%error, "cannot read a checkpoint");
        StreamingError::Unreachable(Unreachable::new(&error))
    })?;
    let (started, moved) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mark = Arc::clone(&moved);
    let chunks = snapshot::chunks(&vote, &snapshot.meta, Arc::new(held));
    let chunks = chunks.scan((), move |(), chunk| {
        let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        mark.store(elapsed, Ordering::Relaxed);
        // The receiver misses the rest and refuses what it has.
        let chunk = chunk.inspect_err(|error| tracing::error!(%error, "cannot read a checkpoint"));
        future::ready(chunk.ok())
    });
    let call = transport.snapshot(to, chunks.boxed());
    let stalled = async {
        loop {
            let last = Duration::from_millis(moved.load(Ordering::Relaxed));
            match (last + stall).checked_sub(started.elapsed()) {
                Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
                _ => return,
            }
        }
    };
    let answer = tokio::select! {
        closed = &mut cancel => return Err(StreamingError::Closed(closed)),
        () = stalled => Err(PeerError::Timeout {
            member,
            timeout_ms: u64::try_from(stall.as_millis()).unwrap_or(u64::MAX),
        }),
        answer = call => answer,
    };
    let answer = answer.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))?;
    let vote = answer.vote.unwrap_or_default();
    Ok(SnapshotResponse::new(codec::vote_from_wire(&vote)))
}
