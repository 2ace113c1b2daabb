//! The JSON gateway: each RPC as a POST with the request as JSON, proto field names, 64-bit
//! numbers as texts, bytes as base64.
//!
//! etcd: server/embed/serve.go, api/etcdserverpb/gw; grpc-gateway's errors and streams.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Incoming;
use prost::Message;
use quorate_proto::etcdserverpb::auth_server::Auth;
use quorate_proto::etcdserverpb::cluster_server::Cluster;
use quorate_proto::etcdserverpb::lease_server::Lease;
use quorate_proto::etcdserverpb::maintenance_server::Maintenance;
use quorate_proto::etcdserverpb::{
    LeaseKeepAliveRequest, RangeResponse, SnapshotRequest, WatchRequest, WatchResponse,
};
use quorate_proto::ready::k_v_server::KV;
use quorate_proto::v3electionpb::LeaderRequest;
use quorate_proto::v3electionpb::election_server::Election;
use quorate_proto::v3lockpb::lock_server::Lock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::body::ResponseBody;
use super::door::Services;
use super::http::{JSON, json, with_type};
use super::status::status;
use crate::model::Refusal;
use crate::replica::Replica;

/// What a learner serves besides serializable ranges, which the KV service sees to.
const LEARNER_PATHS: [&str; 3] = ["kv/range", "maintenance/status", "maintenance/snapshot"];
/// How much longer than the message its JSON may be.
const JSON_FACTOR: usize = 2;

/// Serves JSON.
pub struct Gateway {
    replica: Arc<Replica>,
    services: Arc<Services>,
    body_bytes_max: usize,
}

type Answer = Response<ResponseBody>;

impl Gateway {
    pub fn new(replica: Arc<Replica>, services: Arc<Services>) -> Self {
        Self {
            replica,
            body_bytes_max: services.message_bytes_max.saturating_mul(JSON_FACTOR),
            services,
        }
    }

    /// Answers a request for `path`, which stands behind `/v3/`.
    pub async fn serve(&self, path: &str, request: Request<Incoming>) -> Answer {
        if request.method() != Method::POST {
            return refuse(&Status::unimplemented("Method Not Allowed"));
        }
        if self.replica.is_learner() && !LEARNER_PATHS.contains(&path) {
            return refuse(&status(Refusal::NotSupportedForLearner));
        }
        let metadata = MetadataMap::from_headers(request.headers().clone());
        let body = match Limited::new(request.into_body(), self.body_bytes_max)
            .collect()
            .await
        {
            Ok(body) => body.to_bytes(),
            Err(error) => return refuse(&Status::invalid_argument(error.to_string())),
        };
        match path.split_once('/') {
            Some(("kv", "lease/revoke" | "lease/timetolive" | "lease/leases")) => {
                let rest = path.trim_start_matches("kv/lease/");
                self.lease(rest, body).await
            }
            Some(("kv", rest)) => self.kv(rest, body).await,
            Some(("lease", rest)) => self.lease(rest, body).await,
            Some(("cluster", rest)) => self.cluster(rest, body).await,
            Some(("maintenance", rest)) => self.maintenance(rest, body).await,
            Some(("auth", rest)) => self.auth(rest, body).await,
            Some(("lock", rest)) => self.lock(rest, body).await,
            Some(("election", rest)) => self.election(rest, body).await,
            None if path == "watch" => self.watch(&metadata, &body),
            Some(_) | None => unknown(),
        }
    }

    async fn kv(&self, path: &str, body: Bytes) -> Answer {
        let kv = &self.services.kv;
        match path {
            "range" => {
                let call = |request| async {
                    let ready = kv.range(request).await?.into_inner();
                    RangeResponse::decode(ready.into_bytes())
                        .map(tonic::Response::new)
                        .map_err(|error| Status::internal(error.to_string()))
                };
                unary(&body, call).await
            }
            "put" => unary(&body, |request| kv.put(request)).await,
            "deleterange" => unary(&body, |request| kv.delete_range(request)).await,
            "txn" => unary(&body, |request| kv.txn(request)).await,
            "compaction" => unary(&body, |request| kv.compact(request)).await,
            _ => unknown(),
        }
    }

    async fn lease(&self, path: &str, body: Bytes) -> Answer {
        let lease = &self.services.lease;
        match path {
            "grant" => unary(&body, |request| lease.lease_grant(request)).await,
            "revoke" => unary(&body, |request| lease.lease_revoke(request)).await,
            "timetolive" => unary(&body, |request| lease.lease_time_to_live(request)).await,
            "leases" => unary(&body, |request| lease.lease_leases(request)).await,
            "keepalive" => match parse::<LeaseKeepAliveRequest>(&body) {
                Ok(request) => match lease.keep_alive(request.id).await {
                    Ok(answer) => json(frame(Ok(answer))),
                    Err(status) => refuse(&status),
                },
                Err(status) => refuse(&status),
            },
            _ => unknown(),
        }
    }

    async fn cluster(&self, path: &str, body: Bytes) -> Answer {
        let cluster = &self.services.cluster;
        match path {
            "member/list" => unary(&body, |request| cluster.member_list(request)).await,
            "member/add" => unary(&body, |request| cluster.member_add(request)).await,
            "member/remove" => unary(&body, |request| cluster.member_remove(request)).await,
            "member/update" => unary(&body, |request| cluster.member_update(request)).await,
            "member/promote" => unary(&body, |request| cluster.member_promote(request)).await,
            _ => unknown(),
        }
    }

    async fn maintenance(&self, path: &str, body: Bytes) -> Answer {
        let maintenance = &self.services.maintenance;
        match path {
            "alarm" => unary(&body, |request| maintenance.alarm(request)).await,
            "status" => unary(&body, |request| maintenance.status(request)).await,
            "defragment" => unary(&body, |request| maintenance.defragment(request)).await,
            "hash" => unary(&body, |request| maintenance.hash(request)).await,
            "hashkv" => unary(&body, |request| maintenance.hash_kv(request)).await,
            "transfer-leadership" => unary(&body, |request| maintenance.move_leader(request)).await,
            "downgrade" => unary(&body, |request| maintenance.downgrade(request)).await,
            "snapshot" => match parse::<SnapshotRequest>(&body) {
                Ok(request) => match maintenance.snapshot(tonic::Request::new(request)).await {
                    Ok(chunks) => streamed(chunks.into_inner()),
                    Err(status) => refuse(&status),
                },
                Err(status) => refuse(&status),
            },
            _ => unknown(),
        }
    }

    async fn auth(&self, path: &str, body: Bytes) -> Answer {
        let auth = &self.services.auth;
        match path {
            "status" => unary(&body, |request| auth.auth_status(request)).await,
            "enable" => unary(&body, |request| auth.auth_enable(request)).await,
            "disable" => unary(&body, |request| auth.auth_disable(request)).await,
            "authenticate" => unary(&body, |request| auth.authenticate(request)).await,
            "user/add" => unary(&body, |request| auth.user_add(request)).await,
            "user/get" => unary(&body, |request| auth.user_get(request)).await,
            "user/list" => unary(&body, |request| auth.user_list(request)).await,
            "user/delete" => unary(&body, |request| auth.user_delete(request)).await,
            "user/changepw" => unary(&body, |request| auth.user_change_password(request)).await,
            "user/grant" => unary(&body, |request| auth.user_grant_role(request)).await,
            "user/revoke" => unary(&body, |request| auth.user_revoke_role(request)).await,
            "role/add" => unary(&body, |request| auth.role_add(request)).await,
            "role/get" => unary(&body, |request| auth.role_get(request)).await,
            "role/list" => unary(&body, |request| auth.role_list(request)).await,
            "role/delete" => unary(&body, |request| auth.role_delete(request)).await,
            "role/grant" => unary(&body, |request| auth.role_grant_permission(request)).await,
            "role/revoke" => unary(&body, |request| auth.role_revoke_permission(request)).await,
            _ => unknown(),
        }
    }

    async fn lock(&self, path: &str, body: Bytes) -> Answer {
        let lock = &self.services.lock;
        match path {
            "lock" => unary(&body, |request| lock.lock(request)).await,
            "unlock" => unary(&body, |request| lock.unlock(request)).await,
            _ => unknown(),
        }
    }

    async fn election(&self, path: &str, body: Bytes) -> Answer {
        let election = &self.services.election;
        match path {
            "campaign" => unary(&body, |request| election.campaign(request)).await,
            "proclaim" => unary(&body, |request| election.proclaim(request)).await,
            "leader" => unary(&body, |request| election.leader(request)).await,
            "resign" => unary(&body, |request| election.resign(request)).await,
            "observe" => match parse::<LeaderRequest>(&body) {
                Ok(request) => match election.observe(tonic::Request::new(request)).await {
                    Ok(leaders) => streamed(leaders.into_inner()),
                    Err(status) => refuse(&status),
                },
                Err(status) => refuse(&status),
            },
            _ => unknown(),
        }
    }

    /// One watch stream; the body holds one request or several, one behind the other.
    fn watch(&self, metadata: &MetadataMap, body: &Bytes) -> Answer {
        let requests = serde_json::Deserializer::from_slice(body).into_iter::<WatchRequest>();
        let requests: Result<Vec<_>, _> = requests.map(|request| request.map(Ok)).collect();
        let requests = match requests {
            Ok(requests) => requests,
            Err(error) => return refuse(&Status::invalid_argument(error.to_string())),
        };
        // The watchers live as long as the answer is read, not as long as the body is sent.
        let requests = stream::iter(requests).chain(stream::pending());
        match self.services.watch.serve(metadata, Box::pin(requests)) {
            Ok(responses) => streamed(responses.map(|ready| {
                WatchResponse::decode(ready?.into_bytes())
                    .map_err(|error| Status::internal(error.to_string()))
            })),
            Err(status) => refuse(&status),
        }
    }
}

/// Reads a request; nothing at all is an empty one.
fn parse<Q: DeserializeOwned + Default>(body: &Bytes) -> Result<Q, Status> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Q::default());
    }
    serde_json::from_slice(body).map_err(|error| Status::invalid_argument(error.to_string()))
}

async fn unary<Q, A, F>(body: &Bytes, call: impl FnOnce(tonic::Request<Q>) -> F) -> Answer
where
    Q: DeserializeOwned + Default,
    A: Serialize,
    F: Future<Output = Result<tonic::Response<A>, Status>>,
{
    let request = match parse(body) {
        Ok(request) => tonic::Request::new(request),
        Err(status) => return refuse(&status),
    };
    match call(request).await {
        Ok(answer) => match serde_json::to_string(answer.get_ref()) {
            Ok(text) => json(text),
            Err(error) => refuse(&Status::internal(error.to_string())),
        },
        Err(status) => refuse(&status),
    }
}

/// One message of a stream: a line of JSON.
fn frame<A: Serialize>(message: Result<A, Status>) -> String {
    let text = match message {
        Ok(message) => serde_json::to_value(message)
            .map(|result| serde_json::json!({ "result": result }).to_string()),
        Err(status) => Ok(serde_json::json!({ "error": error_object(&status) }).to_string()),
    };
    let mut text = text.unwrap_or_else(|error| {
        let status = Status::internal(error.to_string());
        serde_json::json!({ "error": error_object(&status) }).to_string()
    });
    text.push('\n');
    text
}

/// A stream of messages, which ends behind the first error.
fn streamed<A, S>(messages: S) -> Answer
where
    A: Serialize + 'static,
    S: futures::Stream<Item = Result<A, Status>> + Send + 'static,
{
    let frames = messages.map(|message| {
        let bytes = Bytes::from(frame(message));
        Ok::<_, Status>(Frame::data(bytes))
    });
    let body = tonic::body::Body::new(StreamBody::new(frames));
    let mut response = json(String::new());
    *response.body_mut() = ResponseBody::streamed(body);
    response
}

fn error_object(status: &Status) -> serde_json::Value {
    serde_json::json!({ "code": status.code() as i32, "message": status.message() })
}

/// grpc-gateway's answer to a path that leads nowhere.
fn unknown() -> Answer {
    refuse(&Status::not_found("Not Found"))
}

/// A refusal as JSON, under the HTTP status that grpc-gateway gives its code.
fn refuse(status: &Status) -> Answer {
    let mut answer = with_type(error_object(status).to_string(), JSON);
    *answer.status_mut() = http_status(status.code());
    answer
}

fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // nginx's "client closed request"; there is no name for it.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{PutRequest, RangeRequest, ResponseHeader};

    use super::*;

    #[test]
    fn requests_are_read_as_the_gateway_does() {
        let read = |text: &str| parse::<PutRequest>(&Bytes::from(text.to_owned()));
        assert_eq!(read("").expect("empty is fine"), PutRequest::default());
        assert_eq!(read(" {} ").expect("empty is fine"), PutRequest::default());
        let put = read(
            "{\"key\":\"Zm9v\",\"value\":\"YmFy\",\"lease\":\"12\",\"prevKv\":true,\"what\":1}",
        )
        .expect("both spellings of names, numbers as texts, unknown fields");
        assert_eq!(
            (put.key.as_ref(), put.value.as_ref()),
            (&b"foo"[..], &b"bar"[..])
        );
        assert!(put.lease == 12 && put.prev_kv);
        let range = "{\"key\":\"AA==\",\"sort_order\":\"DESCEND\",\"limit\":5}";
        let range = parse::<RangeRequest>(&Bytes::from(range)).expect("enums by name");
        assert!(range.sort_order == 2 && range.limit == 5);
        let wrong = read("{\"key\":\"%\"}").expect_err("that is not base64");
        assert_eq!(wrong.code(), Code::InvalidArgument);
    }

    #[test]
    fn frames_of_a_stream_are_lines() {
        let header = ResponseHeader {
            revision: 5,
            ..Default::default()
        };
        assert_eq!(frame(Ok(header)), "{\"result\":{\"revision\":\"5\"}}\n");
        assert_eq!(
            frame::<ResponseHeader>(Err(Status::unavailable("etcdserver: no leader"))),
            "{\"error\":{\"code\":14,\"message\":\"etcdserver: no leader\"}}\n"
        );
    }

    #[test]
    fn codes_have_the_status_of_grpc_gateway() {
        for (code, status) in [
            (Code::InvalidArgument, 400),
            (Code::OutOfRange, 400),
            (Code::NotFound, 404),
            (Code::Cancelled, 499),
            (Code::Unavailable, 503),
            (Code::Unimplemented, 501),
            (Code::Unknown, 500),
        ] {
            assert_eq!(http_status(code).as_u16(), status);
        }
    }
}
