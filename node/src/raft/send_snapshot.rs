//! Sends a checkpoint to a member that fell behind the log.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt, future};
use openraft::errors::{ReplicationClosed, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;

use super::applier::blocking;
use super::codec;
use super::snapshot::{self, Snapshot, SnapshotData};
use super::transport::{PeerAddress, PeerError, Transport};
use super::types::{TypeConfig, Vote};

/// Sends a checkpoint; fails when the receiver takes nothing for too long.
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
        closed = cancel => return Err(StreamingError::Closed(closed)),
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
