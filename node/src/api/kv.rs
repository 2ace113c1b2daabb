//! The KV service.
//!
//! Reads come from one [`View`], so that header and data agree; small ones are answered on the
//! worker itself, ranges of keys on a thread that may block.
//!
//! etcd: server/etcdserver/api/v3rpc/key.go, server/etcdserver/v3_server.go.

use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use quorate_proto::codec::Ready;
use quorate_proto::ready::k_v_server::KV;
use tonic::{Request, Response, Status};

use super::header::Headers;
use super::parse;
use super::range_stream::RangeChunks;
use super::status::{read_status, status};
use crate::machine::view::{EncodedRange, View};
use crate::model::Refusal;
use crate::model::kv::{
    Command, CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    PutRequest, PutResponse, RangeRequest, Reply, ResponseHeader, TxnRequest, TxnResponse, command,
};
use crate::model::tally::RequestType;
use crate::replica::Replica;

/// What a client may ask of KV.
#[derive(Debug, Clone, Copy)]
pub struct KvLimits {
    pub txn_ops_max: usize,
    pub request_bytes_max: usize,
}

/// KV as clients see it.
pub struct KvService {
    replica: Arc<Replica>,
    headers: Headers,
    limits: KvLimits,
}

impl KvService {
    pub fn new(replica: Arc<Replica>, limits: KvLimits) -> Self {
        Self {
            headers: Headers::new(Arc::clone(&replica)),
            replica,
            limits,
        }
    }

    /// A view that is fit for a read: this member's own for a serializable one, otherwise one
    /// that holds all that was acknowledged before.
    async fn view_for(&self, serializable: bool) -> Result<Arc<View>, Status> {
        if !serializable {
            if self.replica.is_learner() {
                return Err(status(Refusal::NotSupportedForLearner));
            }
            self.replica.barrier().await.map_err(status)?;
        }
        Ok(self.replica.view())
    }

    /// Sends a command of a size that may be sent into the log, and waits for its reply.
    async fn propose<M: Message>(
        &self,
        request: M,
        wrap: impl FnOnce(M) -> command::Kind,
    ) -> Result<Reply, Status> {
        parse::check_size(&request, self.limits.request_bytes_max).map_err(status)?;
        let command = Command {
            kind: Some(wrap(request)),
        };
        self.replica.propose(command).await.map_err(status)
    }
}

#[tonic::async_trait]
impl KV for KvService {
    type RangeStreamStream = RangeChunks;

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<Ready>, Status> {
        let request = request.into_inner();
        let started = Instant::now();
        parse::kv::range(&request).map_err(status)?;
        let view = self.view_for(request.serializable).await?;
        let revision = view.revision;
        let reading = Instant::now();
        let answer = if request.range_end.is_empty() {
            view.range_encoded(&request)
        } else {
            blocking(move || view.range_encoded(&request)).await?
        };
        self.replica.tally().ranges.add(1);
        self.replica.tally().read(reading, answer.is_ok());
        self.replica
            .tally()
            .request(RequestType::RANGE, started, answer.is_ok());
        let answer = answer.map_err(read_status)?;
        let header = self.headers.at(revision);
        Ok(Response::new(encode_range(Some(&header), answer)))
    }

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeChunks>, Status> {
        let request = request.into_inner();
        parse::kv::range_stream(&request)?;
        let view = self.view_for(request.serializable).await?;
        let header = self.headers.at(view.revision);
        let chunk_bytes = self.limits.request_bytes_max;
        let chunks = super::range_stream::chunks(view, request, header, chunk_bytes);
        Ok(Response::new(chunks))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        parse::kv::put(&request).map_err(status)?;
        match self.propose(request, command::Kind::Put).await? {
            Reply::Put(mut reply) => {
                reply.header = self.headers.fill(reply.header);
                Ok(Response::new(reply))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        parse::kv::delete_range(&request).map_err(status)?;
        match self.propose(request, command::Kind::DeleteRange).await? {
            Reply::DeleteRange(mut reply) => {
                reply.header = self.headers.fill(reply.header);
                Ok(Response::new(reply))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        parse::txn::txn(&request, self.limits.txn_ops_max).map_err(status)?;
        let mut reply = if parse::txn::is_read_only(&request) {
            let started = Instant::now();
            let view = self.view_for(parse::txn::is_serializable(&request)).await?;
            let reply = blocking(move || view.txn(&request)).await?;
            let kind = RequestType::READ_ONLY_TXN;
            self.replica.tally().request(kind, started, reply.is_ok());
            reply.map_err(read_status)?
        } else {
            match self.propose(request, command::Kind::Txn).await? {
                Reply::Txn(reply) => reply,
                other => return Err(unexpected(&other)),
            }
        };
        reply.header = self.headers.fill(reply.header);
        Ok(Response::new(reply))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let request = request.into_inner();
        let (revision, physical) = (request.revision, request.physical);
        match self.propose(request, command::Kind::Compaction).await? {
            Reply::Compaction(mut reply) => {
                if physical {
                    super::scrub::finished(&self.replica, revision).await?;
                }
                reply.header = self.headers.fill(reply.header);
                Ok(Response::new(reply))
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// Runs a read on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    // It fails only when the read panicked (which ends the process) or the runtime is going away.
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| status(Refusal::Stopped))
}

/// The reply of another command: a bug of ours, told as one.
pub fn unexpected(reply: &Reply) -> Status {
    tracing::error!(?reply, "a command got the reply of another");
    Status::internal("quorate: the reply is of another kind than the request")
}

/// An encoded RangeResponse, with the records as they lie on disk.
pub fn encode_range(header: Option<&ResponseHeader>, range: EncodedRange) -> Ready {
    // Both ends together need little; the records are not copied.
    let mut ends = BytesMut::with_capacity(64);
    if let Some(header) = header {
        encode_key(1, WireType::LengthDelimited, &mut ends);
        encode_varint(header.encoded_len() as u64, &mut ends);
        header.encode_raw(&mut ends);
    }
    let head = ends.split().freeze();
    if range.more {
        encode_key(3, WireType::Varint, &mut ends);
        ends.put_u8(1);
    }
    if range.count != 0 {
        encode_key(4, WireType::Varint, &mut ends);
        encode_varint(range.count as u64, &mut ends);
    }
    let mut ready = Ready::new(head);
    ready.push(range.kvs);
    ready.push(ends.freeze());
    ready
}

/// Wraps an encoded RangeResponse into a RangeStreamResponse.
pub fn encode_stream_chunk(range: Ready) -> Ready {
    let length = range.len() as u64;
    let mut head = BytesMut::with_capacity(1 + encoded_len_varint(length));
    encode_key(1, WireType::LengthDelimited, &mut head);
    encode_varint(length, &mut head);
    let mut chunk = Ready::new(head.freeze());
    chunk.push(range.into_bytes());
    chunk
}

/// The records of an encoded range, one by one, each without its tag and length.
pub fn records(kvs: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut rest = kvs.clone();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        prost::encoding::decode_key(&mut rest).ok()?;
        let length = prost::encoding::decode_varint(&mut rest).ok()?;
        let length = usize::try_from(length).ok()?;
        (length <= rest.len()).then(|| rest.split_to(length))
    })
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{RangeResponse, RangeStreamResponse};
    use quorate_proto::mvccpb::KeyValue;

    use super::*;

    fn range_of(keys: &[&'static str], more: bool, count: i64) -> (RangeResponse, EncodedRange) {
        let kvs: Vec<KeyValue> = keys
            .iter()
            .map(|key| KeyValue {
                key: Bytes::from_static(key.as_bytes()),
                value: Bytes::from(vec![b'v'; 300]),
                mod_revision: 7,
                ..Default::default()
            })
            .collect();
        let plain = RangeResponse {
            kvs,
            ..Default::default()
        };
        let encoded = EncodedRange {
            kvs: plain.encode_to_vec().into(),
            more,
            count,
        };
        (plain, encoded)
    }

    #[test]
    fn a_spliced_answer_decodes_to_the_answer() {
        let header = ResponseHeader {
            cluster_id: u64::MAX,
            member_id: 2,
            revision: 3,
            raft_term: 4,
        };
        for (keys, more, count) in [(&["a", "b"][..], true, 200), (&[][..], false, 0)] {
            let (plain, encoded) = range_of(keys, more, count);
            let spliced = encode_range(Some(&header), encoded).into_bytes();
            let decoded = RangeResponse::decode(spliced).expect("it is a message");
            let expected = RangeResponse {
                header: Some(header),
                more,
                count,
                ..plain
            };
            assert_eq!(decoded, expected);
        }
    }

    #[test]
    fn a_chunk_holds_a_range() {
        let (plain, encoded) = range_of(&["a"], false, 0);
        let chunk = encode_stream_chunk(encode_range(None, encoded)).into_bytes();
        let decoded = RangeStreamResponse::decode(chunk).expect("it is a message");
        assert_eq!(decoded.range_response, Some(plain));
    }

    #[test]
    fn records_are_found_one_by_one() {
        let (plain, encoded) = range_of(&["a", "b", "c"], false, 0);
        let found: Vec<KeyValue> = records(&encoded.kvs)
            .map(|record| KeyValue::decode(record).expect("it is a record"))
            .collect();
        assert_eq!(found, plain.kvs);
    }
}
