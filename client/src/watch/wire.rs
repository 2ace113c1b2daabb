//! One watch stream: what is sent, what comes back, and what its endings mean.

use std::collections::{BTreeMap, VecDeque};

use futures::future::BoxFuture;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCancelRequest, WatchRequest, WatchResponse};
use tonic::{Code, Response, Status, Streaming};

use crate::error::Error;
use crate::retry::is_from_learner;

/// What belongs to one stream and dies with it.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) outbox: VecDeque<WatchRequest>,
    /// Creates without an answer yet, in the order in which they are answered.
    pub(super) creating: VecDeque<(i64, u64)>,
    pub(super) by_id: BTreeMap<i64, u64>,
    pub(super) answered: bool,
}

impl Wire {
    pub(super) fn post(&mut self, request: RequestUnion) {
        self.outbox.push_back(WatchRequest {
            request_union: Some(request),
        });
    }

    pub(super) fn cancel(&mut self, watch_id: i64) {
        self.post(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }
}

/// The answers of a stream that may not have begun: etcd sends nothing before the first create.
pub(super) enum Incoming {
    Opening(BoxFuture<'static, Result<Response<Streaming<WatchResponse>>, Status>>),
    Open(Box<Streaming<WatchResponse>>),
}

impl Incoming {
    /// Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, Status> {
        loop {
            match self {
                Self::Opening(opening) => {
                    *self = Self::Open(Box::new(opening.await?.into_inner()));
                }
                Self::Open(stream) => {
                    let message = stream.message().await?;
                    return message.ok_or_else(|| Status::unavailable("the watch stream ended"));
                }
            }
        }
    }

    /// Why requests are not taken any more.
    pub(super) async fn failure(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

/// Whether no other stream would fare better.
pub(super) fn is_final(status: &Status) -> bool {
    !is_from_learner(status)
        && matches!(
            status.code(),
            Code::InvalidArgument
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
                | Code::FailedPrecondition
                | Code::OutOfRange
        )
}

pub(super) fn refusal(status: &Status) -> Status {
    Status::new(status.code(), status.message())
}

/// A cancelled watch's error: reasons are bare texts, or have gRPC's form around them.
pub(super) fn why_canceled(response: &WatchResponse) -> Error {
    if response.compact_revision > 0 {
        return Error::Compacted {
            compact_revision: response.compact_revision,
        };
    }
    let reason = response.cancel_reason.as_str();
    let (code, text) = match reason
        .strip_prefix("rpc error: code = ")
        .and_then(|rest| rest.split_once(" desc = "))
    {
        Some(("PermissionDenied", text)) => (Code::PermissionDenied, text),
        Some(("Unauthenticated", text)) => (Code::Unauthenticated, text),
        Some(("InvalidArgument", text)) => (Code::InvalidArgument, text),
        Some((_, text)) => (Code::Unknown, text),
        None if reason.is_empty() => (Code::Cancelled, "etcdserver: watch canceled"),
        None => (Code::Cancelled, reason),
    };
    Error::Refused {
        code,
        text: text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancel_reasons_keep_their_code() {
        let canceled = |reason: &str| WatchResponse {
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..Default::default()
        };
        let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
        let error = why_canceled(&canceled(denied));
        assert_eq!(error.code(), Some(Code::PermissionDenied));
        assert_eq!(error.to_string(), "etcdserver: permission denied");
        let empty = why_canceled(&canceled("mvcc: watcher range is empty"));
        assert_eq!(empty.to_string(), "mvcc: watcher range is empty");
    }
}
