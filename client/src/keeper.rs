//! The task that renews one lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_proto::etcdserverpb as pb;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{debug, warn};

use crate::client::Client;
use crate::lease::{Renewal, State};
use crate::limits;
use crate::retry::Backoff;

/// The task of one [`crate::KeepAlive`].
pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) id: i64,
    pub(crate) renewal: Renewal,
    pub(crate) state: watch::Sender<State>,
    pub(crate) revokes_on_drop: Arc<AtomicBool>,
}

impl Keeper {
    pub(crate) async fn run(mut self, stopped: oneshot::Receiver<()>) {
        tokio::select! {
            // The sender is never used but to be dropped.
            _ = stopped => {
                if self.revokes_on_drop.load(Ordering::Relaxed)
                    && let Err(error) = self.client.revoke_lease(self.id).await
                {
                    warn!(lease = %format!("{:x}", self.id), %error, "could not revoke");
                }
            }
            () = self.keep() => {
                self.state.send_replace(State::Lost);
            }
        }
    }

    /// Returns when the lease is lost.
    async fn keep(&mut self) {
        let mut backoff = Backoff::new(limits::RECONNECT_PAUSE_MAX);
        let mut due = self.next_due();
        loop {
            tokio::time::sleep_until(due.min(self.renewal.until)).await;
            if Instant::now() >= self.renewal.until {
                return;
            }
            let before = self.renewal.count;
            match self.stream().await {
                Ended::Lost => return,
                Ended::Broken(status) => {
                    debug!(lease = %format!("{:x}", self.id), %status, "keep-alive stream ended");
                }
            }
            if self.renewal.count > before {
                backoff = Backoff::new(limits::RECONNECT_PAUSE_MAX);
            }
            due = Instant::now() + backoff.next();
        }
    }

    fn next_due(&self) -> Instant {
        let period = ttl(self.renewal.ttl_seconds);
        self.renewal.until - period + period / 3
    }

    /// Renews over one stream until it breaks.
    async fn stream(&mut self) -> Ended {
        let (requests, outgoing) = mpsc::channel(1);
        let request = pb::LeaseKeepAliveRequest { id: self.id };
        let patience = (ttl(self.renewal.ttl_seconds) / 3).max(limits::SILENCE);
        let mut sent = Instant::now();
        if requests.send(request).await.is_err() {
            return Ended::Broken(Status::unavailable("the stream takes no requests"));
        }
        // etcd answers the call itself only with the first renewal.
        let mut lease = self.client.lease_raw();
        let opening = lease.lease_keep_alive(ReceiverStream::new(outgoing));
        let limit = (sent + patience).min(self.renewal.until);
        let mut answers = match tokio::time::timeout_at(limit, opening).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Ended::Broken(status),
            Err(_) => return Ended::Broken(Status::unavailable("no answer")),
        };
        loop {
            let limit = (sent + patience).min(self.renewal.until);
            let answer = match tokio::time::timeout_at(limit, answers.message()).await {
                Ok(Ok(Some(answer))) => answer,
                Ok(Ok(None)) => return Ended::Broken(Status::unavailable("the stream ended")),
                Ok(Err(status)) => return Ended::Broken(status),
                Err(_) => return Ended::Broken(Status::unavailable("no answer")),
            };
            if answer.ttl <= 0 {
                return Ended::Lost;
            }
            self.renewal = Renewal {
                count: self.renewal.count + 1,
                ttl_seconds: answer.ttl,
                header: answer.header.unwrap_or_default(),
                until: sent + ttl(answer.ttl),
            };
            self.state.send_replace(State::Alive(self.renewal));
            tokio::time::sleep_until(self.next_due()).await;
            sent = Instant::now();
            if requests.send(request).await.is_err() {
                return Ended::Broken(Status::unavailable("the stream takes no requests"));
            }
        }
    }
}

enum Ended {
    Lost,
    Broken(Status),
}

/// A TTL as a span of time.
pub(crate) fn ttl(seconds: i64) -> Duration {
    // A clock of years is a clock that never ends.
    Duration::from_secs(seconds.clamp(0, i64::from(u32::MAX)) as u64)
}
