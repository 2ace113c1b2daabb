//! RangeStream: a range in chunks that grow towards the largest request, all from one view.
//!
//! etcd: server/etcdserver/v3_server.go (rangeStream, adjustChunkLimit).

use std::pin::Pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, stream};
use prost::Message;
use quorate_proto::codec::Ready;
use tonic::Status;

use super::kv::{blocking, encode_range, encode_stream_chunk, records};
use super::status::read_status;
use crate::machine::view::{EncodedRange, View};
use crate::model::kv::{KeyValue, RangeRequest, ResponseHeader};

/// How many pairs the first chunk holds.
const FIRST_CHUNK_LIMIT: i64 = 10;

/// The chunks of one call.
pub type RangeChunks = Pin<Box<dyn Stream<Item = Result<Ready, Status>> + Send>>;

/// What is left to send.
struct Rest {
    view: Arc<View>,
    /// Starts where the next chunk does, with the limit of the next chunk.
    request: RangeRequest,
    header: ResponseHeader,
    chunk_bytes: usize,
    /// How many pairs may come in all; none for all there are.
    limit: Option<i64>,
    sent: i64,
    /// All keys in the range, known from the first chunk.
    count: Option<i64>,
}

/// Answers a checked request from `view`. Header, `more` and `count` stand on the last chunk.
pub fn chunks(
    view: Arc<View>,
    mut request: RangeRequest,
    header: ResponseHeader,
    chunk_bytes: usize,
) -> RangeChunks {
    let limit = match request.limit {
        0 => None,
        limit => Some(limit),
    };
    if !request.count_only && limit.is_none_or(|limit| limit > FIRST_CHUNK_LIMIT) {
        request.limit = FIRST_CHUNK_LIMIT;
    }
    // Chunks follow one another by key, whatever target an unsorted request names.
    request.sort_order = 0;
    request.sort_target = 0;
    let rest = Rest {
        view,
        request,
        header,
        chunk_bytes,
        limit,
        sent: 0,
        count: None,
    };
    Box::pin(stream::try_unfold(Some(rest), |rest| async {
        match rest {
            Some(rest) => blocking(move || rest.next()).await?.map(Some),
            None => Ok(None),
        }
    }))
}

impl Rest {
    /// Reads one chunk; with it what is left, if anything.
    fn next(mut self) -> Result<(Ready, Option<Self>), Status> {
        let range = self
            .view
            .range_encoded(&self.request)
            .map_err(read_status)?;
        let count = *self.count.get_or_insert(range.count);
        let (read, last) =
            records(&range.kvs).fold((0, None), |(read, _), kv| (read + 1, Some(kv)));
        self.sent += read;
        let is_full = self
            .limit
            .is_some_and(|limit| limit > 0 && self.sent >= limit);
        let next_key = match last {
            Some(record) if range.more && !is_full => next_key(record)?,
            Some(_) | None => {
                let last = EncodedRange { count, ..range };
                let chunk = encode_stream_chunk(encode_range(Some(&self.header), last));
                return Ok((chunk, None));
            }
        };
        let size = range.kvs.len();
        let chunk = EncodedRange {
            kvs: range.kvs,
            more: false,
            count: 0,
        };
        self.request.key = next_key;
        self.request.limit = adjusted(self.request.limit, size, self.chunk_bytes);
        if let Some(limit) = self.limit {
            self.request.limit = self.request.limit.min(limit - self.sent);
        }
        Ok((encode_stream_chunk(encode_range(None, chunk)), Some(self)))
    }
}

/// The key right behind the one of an encoded record.
fn next_key(record: Bytes) -> Result<Bytes, Status> {
    let last = KeyValue::decode(record)
        .map_err(|error| Status::internal(format!("quorate: a stored record: {error}")))?;
    let mut key = BytesMut::with_capacity(last.key.len() + 1);
    key.put_slice(&last.key);
    key.put_u8(0);
    Ok(key.freeze())
}

/// The limit that brings the next chunk near `target_bytes`: doubled or halved only when the last
/// one was far from it, and never 0, which would mean all.
fn adjusted(limit: i64, last_bytes: usize, target_bytes: usize) -> i64 {
    let limit = if last_bytes < target_bytes / 2 {
        limit.saturating_mul(2)
    } else if last_bytes > target_bytes.saturating_mul(2) {
        limit / 2
    } else {
        limit
    };
    limit.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_and_shrink_towards_the_target() {
        assert_eq!(adjusted(10, 10, 1_000), 20);
        assert_eq!(adjusted(10, 500, 1_000), 10);
        assert_eq!(adjusted(10, 2_000, 1_000), 10);
        assert_eq!(adjusted(10, 2_001, 1_000), 5);
        assert_eq!(adjusted(1, 9_999, 1_000), 1);
    }
}
