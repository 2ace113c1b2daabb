//! One client: calls members at random and tells the oracle what it asked and what it was told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate::model::Refusal;
use quorate::model::kv::{
    Command, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, Reply, RequestOp, TxnRequest, command,
};
use quorate::replica::Replica;
use quorate_proto::etcdserverpb::{compare, request_op, response_op};
use rand::Rng;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::oracle::{Answer, Oracle, Question};

/// Keys that the clients fight for.
const KEYS: u32 = 6;
/// How long a client waits for an answer; after that, the outcome is unknown to it.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

struct Client {
    id: u64,
    calls: u64,
    oracle: Arc<Oracle>,
    random: StdRng,
}

/// Calls until `end`.
pub async fn run(
    id: u64,
    cluster: Arc<Cluster>,
    oracle: Arc<Oracle>,
    random: StdRng,
    end: CancellationToken,
) {
    let mut client = Client {
        id,
        calls: 0,
        oracle,
        random,
    };
    while !end.is_cancelled() {
        let member = client.random.random_range(0..cluster.members.len());
        if let Some((_, replica)) = cluster.replica(cluster.members[member]) {
            client.call(&replica).await;
        }
        let pause = client.random.random_range(1..10);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

impl Client {
    async fn call(&mut self, replica: &Replica) {
        self.calls += 1;
        let key = Bytes::from(format!("key-{}", self.random.random_range(0..KEYS)));
        match self.random.random_range(0..20) {
            0..6 => self.put(replica, key, 0).await,
            6..8 => self.delete(replica, key).await,
            8..12 => self.compare_and_put(replica, key).await,
            12..17 => self.read(replica).await,
            17..19 => self.read_stale(replica),
            _ => self.lease(replica).await,
        }
    }

    /// A value that no other call writes.
    fn value(&self, part: &str) -> Bytes {
        Bytes::from(format!("{}-{}{part}", self.id, self.calls))
    }

    async fn put(&mut self, replica: &Replica, key: Bytes, lease: i64) {
        let value = self.value(&String::from_utf8_lossy(&key));
        let put = PutRequest {
            key: key.clone(),
            value: value.clone(),
            lease,
            ..PutRequest::default()
        };
        let ask = self.oracle.ask(Question::Put { key, value });
        let answer = match propose(replica, command::Kind::Put(put)).await {
            Ok(Reply::Put(reply)) => Answer::Written(revision(reply.header)),
            outcome => unanswered(outcome),
        };
        self.oracle.answer(ask, answer);
    }

    async fn delete(&mut self, replica: &Replica, key: Bytes) {
        let delete = DeleteRangeRequest {
            key: key.clone(),
            ..DeleteRangeRequest::default()
        };
        let ask = self.oracle.ask(Question::Delete { key: key.clone() });
        let answer = match propose(replica, command::Kind::DeleteRange(delete)).await {
            Ok(Reply::DeleteRange(reply)) if reply.deleted == 1 => {
                Answer::Written(revision(reply.header))
            }
            Ok(Reply::DeleteRange(reply)) => Answer::Read {
                revision: revision(reply.header),
                found: vec![(key, None)],
            },
            outcome => unanswered(outcome),
        };
        self.oracle.answer(ask, answer);
    }

    /// Reads a key, then writes it if nobody else has.
    async fn compare_and_put(&mut self, replica: &Replica, key: Bytes) {
        let seen = range(replica, &key).into_iter().next();
        let mod_revision = seen.map_or(0, |kv| kv.mod_revision);
        let value = self.value("");
        let txn = TxnRequest {
            compare: vec![Compare {
                result: compare::CompareResult::Equal.into(),
                target: compare::CompareTarget::Mod.into(),
                key: key.clone(),
                target_union: Some(compare::TargetUnion::ModRevision(mod_revision)),
                ..Compare::default()
            }],
            success: vec![RequestOp {
                request: Some(request_op::Request::RequestPut(PutRequest {
                    key: key.clone(),
                    value: value.clone(),
                    ..PutRequest::default()
                })),
            }],
            failure: vec![RequestOp {
                request: Some(request_op::Request::RequestRange(RangeRequest {
                    key: key.clone(),
                    ..RangeRequest::default()
                })),
            }],
        };
        let ask = self.oracle.ask(Question::CompareAndPut {
            key: key.clone(),
            value,
            mod_revision,
        });
        let answer = match propose(replica, command::Kind::Txn(txn)).await {
            Ok(Reply::Txn(reply)) if reply.succeeded => Answer::Written(revision(reply.header)),
            Ok(Reply::Txn(reply)) => {
                let Some(response_op::Response::ResponseRange(read)) =
                    reply.responses.into_iter().next().and_then(|r| r.response)
                else {
                    panic!("a failed txn without its read");
                };
                let kv = read.kvs.into_iter().next();
                Answer::Read {
                    revision: revision(reply.header),
                    found: vec![(key, kv)],
                }
            }
            outcome => unanswered(outcome),
        };
        self.oracle.answer(ask, answer);
    }

    /// A linearizable read of all keys.
    async fn read(&mut self, replica: &Replica) {
        let ask = self.oracle.ask(Question::Read);
        let answer = match tokio::time::timeout(CALL_TIMEOUT, replica.barrier()).await {
            Ok(Ok(())) => read_all(replica),
            Ok(Err(_)) | Err(_) => Answer::Unknown,
        };
        self.oracle.answer(ask, answer);
    }

    /// A serializable read of all keys: it may be old, but it must have been true.
    fn read_stale(&mut self, replica: &Replica) {
        let ask = self.oracle.ask(Question::ReadStale);
        self.oracle.answer(ask, read_all(replica));
    }

    /// A lease with two keys that ends by itself or is revoked.
    async fn lease(&mut self, replica: &Replica) {
        let lease = i64::try_from(self.id * 1_000_000 + self.calls).expect("a small number");
        let grant = LeaseGrantRequest { id: lease, ttl: 1 };
        let granted = propose(replica, command::Kind::LeaseGrant(grant)).await;
        if !matches!(granted, Ok(Reply::LeaseGrant(_))) {
            return;
        }
        for part in ["a", "b"] {
            let key = Bytes::from(format!("lease-{lease}-{part}"));
            self.put(replica, key, lease).await;
        }
        if self.random.random_bool(0.3) {
            let revoke = LeaseRevokeRequest { id: lease };
            // Whatever comes of it, the lease ends.
            if let Err(refusal) = propose(replica, command::Kind::LeaseRevoke(revoke)).await {
                assert_ne!(refusal, Refusal::EmptyKey);
            }
        }
    }
}

/// Proposes a command; a client that gives up knows nothing.
async fn propose(replica: &Replica, kind: command::Kind) -> Result<Reply, Refusal> {
    let command = Command { kind: Some(kind) };
    tokio::time::timeout(CALL_TIMEOUT, replica.propose(command))
        .await
        .unwrap_or(Err(Refusal::Timeout))
}

/// What a refusal says about a write.
fn unanswered(outcome: Result<Reply, Refusal>) -> Answer {
    match outcome {
        Err(
            Refusal::NoLeader
            | Refusal::NotLeader
            | Refusal::TooManyRequests
            | Refusal::LeaseNotFound,
        ) => Answer::Refused,
        Err(
            Refusal::Timeout
            | Refusal::TimeoutLeaderFailure
            | Refusal::TimeoutConnectionLost
            | Refusal::TimeoutWaitAppliedIndex
            | Refusal::LeaderChanged
            | Refusal::Stopped,
        ) => Answer::Unknown,
        other => panic!("an answer that fits no question: {other:?}"),
    }
}

fn read_all(replica: &Replica) -> Answer {
    let view = replica.view();
    let keys = (0..KEYS).map(|number| Bytes::from(format!("key-{number}")));
    let found = keys.map(|key| {
        let request = RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        };
        let kv = view.range(&request).expect("a read").kvs.into_iter().next();
        (key, kv)
    });
    Answer::Read {
        found: found.collect(),
        revision: view.revision,
    }
}

fn range(replica: &Replica, key: &Bytes) -> Vec<quorate::model::kv::KeyValue> {
    let request = RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    };
    replica.view().range(&request).expect("a read").kvs
}

fn revision(header: Option<quorate::model::kv::ResponseHeader>) -> i64 {
    header.expect("a header").revision
}
