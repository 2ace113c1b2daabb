//! The bodies of calls, counted as they pass: messages, bytes, and the code at the end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use super::calls::{Calls, Flow, Method};
use super::status::too_large_message;

/// The length of what stands before each message: a flag and four bytes of length.
const PREFIX_BYTES: usize = 5;
const GRPC_STATUS: &str = "grpc-status";

/// Finds messages in a stream of bytes that may be cut anywhere.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX_BYTES],
    prefix_length: usize,
    /// What is left of the message that has begun.
    remaining: usize,
}

impl Messages {
    /// Counts the messages that begin in `data`, and the bytes of messages in it.
    fn count(&mut self, mut data: &[u8]) -> (u64, u64) {
        let (mut messages, mut bytes) = (0, 0);
        while !data.is_empty() {
            if self.remaining > 0 {
                let taken = self.remaining.min(data.len());
                self.remaining -= taken;
                bytes += taken as u64;
                data = &data[taken..];
                continue;
            }
            let wanted = (PREFIX_BYTES - self.prefix_length).min(data.len());
            self.prefix[self.prefix_length..][..wanted].copy_from_slice(&data[..wanted]);
            self.prefix_length += wanted;
            data = &data[wanted..];
            if self.prefix_length == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.remaining = u32::from_be_bytes(length) as usize;
                self.prefix_length = 0;
                messages += 1;
            }
        }
        (messages, bytes)
    }
}

/// One call on its way.
struct Call {
    method: Arc<Method>,
    calls: Arc<Calls>,
    started: Instant,
    messages: Messages,
}

/// The body of a request.
pub struct RequestBody<B> {
    inner: B,
    call: Call,
}

impl<B> RequestBody<B> {
    /// Counts the start of a call.
    pub fn new(inner: B, method: &Arc<Method>, calls: &Arc<Calls>) -> Self {
        method.started.inc();
        Self {
            inner,
            call: Call {
                method: Arc::clone(method),
                calls: Arc::clone(calls),
                started: Instant::now(),
                messages: Messages::default(),
            },
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let (messages, bytes) = self.call.messages.count(data);
            self.call.method.received.inc_by(messages);
            self.call.calls.received_bytes.inc_by(bytes);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer: of a call, or of anything else, which is not counted.
pub struct ResponseBody {
    inner: tonic::body::Body,
    /// Taken when the end is counted.
    call: Option<Call>,
}

impl ResponseBody {
    /// A body that is not a call's.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        let body = http_body_util::Full::new(bytes.into());
        Self {
            inner: tonic::body::Body::new(body),
            call: None,
        }
    }

    /// A body that comes in pieces and is not a call's.
    pub fn streamed(inner: tonic::body::Body) -> Self {
        Self { inner, call: None }
    }

    /// The body of a call that has begun at `started`.
    pub fn of_call(
        response: http::Response<tonic::body::Body>,
        method: &Arc<Method>,
        calls: &Arc<Calls>,
        started: Instant,
    ) -> http::Response<Self> {
        let (mut parts, inner) = response.into_parts();
        // A refusal has no body: everything stands in the headers.
        let code = code_of(&parts.headers);
        let call = match code {
            Some(code) => {
                let code = rewrite(&mut parts.headers, code);
                if method.flow == Flow::Unary {
                    // As etcd's interceptor, which counts an answer to every request.
                    method.sent.inc();
                }
                method.finish(code, started);
                None
            }
            None => Some(Call {
                method: Arc::clone(method),
                calls: Arc::clone(calls),
                started,
                messages: Messages::default(),
            }),
        };
        http::Response::from_parts(parts, Self { inner, call })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &mut frame
            && let Some(call) = &mut self.call
        {
            if let Some(data) = frame.data_ref() {
                let (messages, bytes) = call.messages.count(data);
                call.method.sent.inc_by(messages);
                call.calls.sent_bytes.inc_by(bytes);
            } else if let Some(trailers) = frame.trailers_mut() {
                let code = code_of(trailers).unwrap_or(Code::Unknown);
                let code = rewrite(trailers, code);
                call.method.finish(code, call.started);
                self.call = None;
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // The client went away before the end.
        if let Some(call) = self.call.take() {
            call.method.finish(Code::Cancelled, call.started);
        }
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(GRPC_STATUS)
        .map(|code| Code::from_bytes(code.as_bytes()))
}

/// Puts grpc-go's words for a message over the limit in the place of tonic's; returns the code.
fn rewrite(headers: &mut HeaderMap, code: Code) -> Code {
    if code != Code::OutOfRange {
        return code;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return code;
    };
    let Some(told) = too_large_message(&status) else {
        return code;
    };
    match told.add_header(headers) {
        Ok(()) => told.code(),
        Err(_) => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(lengths: &[usize]) -> Vec<u8> {
        let mut data = Vec::new();
        for length in lengths {
            data.push(0);
            data.extend_from_slice(&u32::try_from(*length).expect("short").to_be_bytes());
            data.extend(std::iter::repeat_n(7, *length));
        }
        data
    }

    #[test]
    fn messages_are_found_wherever_the_stream_is_cut() {
        let data = framed(&[0, 3, 300, 0, 1]);
        for cut in 1..data.len() {
            let mut messages = Messages::default();
            let mut total = (0, 0);
            for piece in data.chunks(cut) {
                let (count, bytes) = messages.count(piece);
                total = (total.0 + count, total.1 + bytes);
            }
            assert_eq!(total, (5, 304), "cut every {cut}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_rewritten_in_place() {
        let status = Status::out_of_range(
            "Error, decoded message length too large: found 3 bytes, the limit is: 2 bytes",
        );
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).expect("it is short");
        assert_eq!(
            rewrite(&mut headers, Code::OutOfRange),
            Code::ResourceExhausted
        );
        let told = Status::from_header_map(&headers).expect("a status");
        assert_eq!(
            told.message(),
            "grpc: received message larger than max (3 vs. 2)"
        );
        assert_eq!(headers.get_all(GRPC_STATUS).iter().count(), 1);
    }
}
