//! The body of a call, looked into before it is sent.
//!
//! A unary call has its one message ready at once. Taken out beforehand, it can be sent to a
//! second endpoint when the first certainly did not take it, it goes out in one frame with the
//! end of the stream, and a message over the limit is an error of the call, not of the wire.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// See the module.
pub(crate) enum RequestBody {
    /// All there is; `None` once it was handed out.
    Whole(Option<Bytes>),
    /// A stream, and its beginning if that was ready.
    Stream { first: Option<Bytes>, rest: Body },
}

impl RequestBody {
    pub(crate) fn whole(message: Bytes) -> Self {
        Self::Whole(Some(message))
    }

    /// Looks into `body`.
    ///
    /// # Errors
    /// What the encoder says of the first message, for example that it is too large.
    pub(crate) async fn look_into(mut body: Body) -> Result<Self, Status> {
        let Some(first) = poll_now(&mut body).await? else {
            return Ok(Self::Stream {
                first: None,
                rest: body,
            });
        };
        let Some(first) = first else {
            return Ok(Self::Whole(None));
        };
        match poll_now(&mut body).await? {
            Some(None) => Ok(Self::Whole(Some(first))),
            Some(Some(second)) => Ok(Self::Stream {
                // Both were ready; nothing is lost by sending them as one piece.
                first: Some([first, second].concat().into()),
                rest: body,
            }),
            None => Ok(Self::Stream {
                first: Some(first),
                rest: body,
            }),
        }
    }

    /// The same body again, if it lies here whole.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Whole(message) => Some(Self::Whole(message.clone())),
            Self::Stream { .. } => None,
        }
    }
}

/// What is ready now: `None` if nothing yet, `Some(None)` at the end.
async fn poll_now(body: &mut Body) -> Result<Option<Option<Bytes>>, Status> {
    poll_fn(|cx| {
        Poll::Ready(match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => Ok(None),
            Poll::Ready(None) => Ok(Some(None)),
            Poll::Ready(Some(Err(status))) => Err(status),
            // A client's body has no trailers.
            Poll::Ready(Some(Ok(frame))) => Ok(Some(frame.into_data().ok())),
        })
    })
    .await
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Whole(message) => Poll::Ready(message.take().map(|m| Ok(Frame::data(m)))),
            Self::Stream { first, rest } => {
                if let Some(first) = first.take() {
                    return Poll::Ready(Some(Ok(Frame::data(first))));
                }
                Poll::Ready(ready!(Pin::new(rest).poll_frame(cx)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(message) => {
                SizeHint::with_exact(message.as_ref().map_or(0, |m| m.len() as u64))
            }
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}
