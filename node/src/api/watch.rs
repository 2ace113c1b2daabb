//! The Watch service.
//!
//! etcd: server/etcdserver/api/v3rpc/watch.go.

mod leader;
mod render;
mod session;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use quorate_proto::codec::Ready;
use quorate_proto::etcdserverpb::WatchRequest;
use quorate_proto::ready::watch_server::Watch;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

pub(super) use self::leader::LeaderWatch;
use self::render::Renderer;
use self::session::Session;
use super::header::Headers;
use super::metadata::requires_leader;
use super::status::status as refusal_status;
use crate::model::Refusal;
use crate::model::limits::{
    GRPC_OVERHEAD_BYTES, REQUEST_BYTES_MAX, WATCH_PROGRESS_INTERVAL_MS,
    WATCH_PROGRESS_INTERVAL_MS_MIN,
};
use crate::replica::Replica;

/// What the flags say about watching.
#[derive(Debug, Clone, Copy)]
pub struct WatchSettings {
    /// `--watch-progress-notify-interval`.
    pub progress_interval: Duration,
    /// `--election-timeout`; a stream that requires a leader ends after three without one.
    pub election_timeout: Duration,
    /// Where a fragmented response is cut: `--max-request-bytes` and what gRPC may carry above.
    pub response_bytes_max: usize,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            progress_interval: Duration::from_millis(WATCH_PROGRESS_INTERVAL_MS),
            election_timeout: Duration::from_secs(1),
            response_bytes_max: REQUEST_BYTES_MAX + GRPC_OVERHEAD_BYTES,
        }
    }
}

impl WatchSettings {
    /// An interval below etcd's least is raised to it, with a warning.
    pub fn checked(mut self) -> Self {
        let least = Duration::from_millis(WATCH_PROGRESS_INTERVAL_MS_MIN);
        if self.progress_interval < least {
            tracing::warn!(
                min_watch_progress_notify_interval = ?least,
                "adjusting watch progress notify interval to minimum period"
            );
            self.progress_interval = least;
        }
        self
    }
}

/// What a watch answers.
pub type WatchResponses = Pin<Box<dyn Stream<Item = Result<Ready, Status>> + Send>>;

/// Serves watches of one member.
#[derive(Clone)]
pub struct WatchService {
    replica: Arc<Replica>,
    settings: WatchSettings,
}

impl WatchService {
    pub fn new(replica: Arc<Replica>, settings: WatchSettings) -> Self {
        let settings = settings.checked();
        Self { replica, settings }
    }

    /// Serves one stream of requests, from gRPC or from the JSON gateway.
    ///
    /// # Errors
    /// `etcdserver: no leader` when a leader is required and there is none, and
    /// `etcdserver: rpc not supported for learner`.
    pub fn serve<R>(&self, metadata: &MetadataMap, requests: R) -> Result<WatchResponses, Status>
    where
        R: Stream<Item = Result<WatchRequest, Status>> + Unpin + Send + 'static,
    {
        if self.replica.is_learner() {
            return Err(refusal_status(Refusal::NotSupportedForLearner));
        }
        let leader = requires_leader(metadata).then(|| {
            let receiver = self.replica.subscribe_leader();
            LeaderWatch::new(receiver, self.settings.election_timeout * 3)
        });
        if leader.as_ref().is_some_and(LeaderWatch::is_leaderless) {
            return Err(refusal_status(Refusal::NoLeader));
        }
        let headers = Headers::new(self.replica.clone());
        let header = move |revision| headers.at(revision);
        let renderer = Renderer::new(Box::new(header), self.settings.response_bytes_max);
        let stream = self.replica.hub().subscribe();
        let interval = self.settings.progress_interval;
        let session = Session::new(requests, stream, renderer, interval, leader);
        Ok(Box::pin(session.into_responses()))
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = WatchResponses;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        Ok(Response::new(self.serve(&metadata, requests)?))
    }
}
