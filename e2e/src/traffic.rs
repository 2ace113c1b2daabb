//! Clients that write and read a few keys at random, each pinned to a member, and remember it all.

use crate::history::{Answer, Call, History, Outcome};
use crate::rpc;
use anyhow::Result;
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

/// So few that calls meet on the same key.
const KEYS: u32 = 10;

/// How long a caller waits for an answer before it calls the outcome unknown.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The pace of one client: the judge needs meetings, not masses.
const PACE: Duration = Duration::from_millis(4);

/// After an unknown outcome, so that a dead member is not hammered.
const BACKOFF: Duration = Duration::from_millis(40);

/// Running clients.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Starts `clients` clients. `label` makes their values differ from those of other traffic.
    ///
    /// # Errors
    /// When an address is no URI.
    pub fn start(
        history: &Arc<History>,
        ports: &[u16],
        clients: usize,
        label: &str,
        seed: u64,
    ) -> Result<Self> {
        let channel = |number: usize| rpc::channel(ports[number % ports.len()], CALL_TIMEOUT);
        let channels = (0..clients).map(channel).collect::<Result<_>>()?;
        Ok(Self::over(history, channels, label, seed))
    }

    /// Starts a client on each channel.
    pub fn over(history: &Arc<History>, channels: Vec<Channel>, label: &str, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for (number, channel) in channels.into_iter().enumerate() {
            let client = Client {
                history: history.clone(),
                stop: stop.clone(),
                kv: rpc::kv(channel),
                random: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
                number,
                label: label.to_owned(),
                writes: 0,
                seen_revision: 0,
            };
            tasks.push(tokio::spawn(client.run()));
        }
        Self { stop, tasks }
    }

    /// Ends all clients and waits for their last answers.
    ///
    /// # Errors
    /// When a client panicked.
    pub async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }
}

/// Makes one call and sorts its answer.
pub async fn perform(kv: &mut rpc::KvClient<Channel>, call: &Call) -> Outcome {
    let answer = match call {
        Call::Put(put) => answered(kv.put(put.clone()).await, Answer::Put),
        Call::Delete(delete) => answered(kv.delete_range(delete.clone()).await, Answer::Delete),
        Call::Txn(txn) => answered(kv.txn(txn.clone()).await, Answer::Txn),
        Call::Range(range) => answered(kv.range(range.clone()).await, Answer::Range),
    };
    match answer {
        Ok(answer) => Outcome::Ok(answer),
        Err(status) => Outcome::of_error(&status),
    }
}

fn answered<T>(
    result: Result<tonic::Response<T>, Status>,
    wrap: fn(T) -> Answer,
) -> Result<Answer, Status> {
    result.map(|response| wrap(response.into_inner()))
}

struct Client {
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    kv: rpc::KvClient<Channel>,
    random: StdRng,
    number: usize,
    label: String,
    writes: u64,
    /// The newest revision that this client was told of.
    seen_revision: i64,
}

impl Client {
    async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let call = self.call();
            let invoked_ns = self.history.now_ns();
            let outcome = perform(&mut self.kv, &call).await;
            let pause = match &outcome {
                Outcome::Ok(answer) => {
                    self.seen_revision = self.seen_revision.max(answer.revision());
                    PACE
                }
                Outcome::Refused(_) => PACE,
                Outcome::Unknown(_) => BACKOFF,
            };
            self.history.add(self.number, call, invoked_ns, outcome);
            tokio::time::sleep(pause).await;
        }
    }

    fn call(&mut self) -> Call {
        match self.random.random_range(0..100) {
            0..40 => Call::Put(self.put()),
            40..50 => Call::Delete(self.delete()),
            50..60 => Call::Txn(self.swap()),
            60..70 => Call::Txn(self.many()),
            70..85 => Call::Range(self.range(false)),
            85..95 => Call::Range(self.range(true)),
            _ => {
                let mut range = self.range(true);
                range.revision = self.random.random_range(0..=self.seen_revision);
                Call::Range(range)
            }
        }
    }

    fn key(&mut self) -> Bytes {
        format!("key{}", self.random.random_range(0..KEYS)).into()
    }

    fn put(&mut self) -> pb::PutRequest {
        self.writes += 1;
        pb::PutRequest {
            key: self.key(),
            value: format!("{}-{}-{}", self.label, self.number, self.writes).into(),
            prev_kv: self.random.random(),
            ..Default::default()
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let all = self.random.random_ratio(1, 10);
        pb::DeleteRangeRequest {
            key: if all { "key3".into() } else { self.key() },
            range_end: if all { "key6".into() } else { Bytes::new() },
            prev_kv: self.random.random(),
        }
    }

    fn range(&mut self, serializable: bool) -> pb::RangeRequest {
        let one = self.random.random_ratio(2, 3);
        pb::RangeRequest {
            key: if one { self.key() } else { "key".into() },
            range_end: if one { Bytes::new() } else { "kez".into() },
            limit: self.random.random_range(0..5),
            serializable,
            ..Default::default()
        }
    }

    /// Writes a key if nobody has since the newest revision this client knows of, else reads it.
    fn swap(&mut self) -> pb::TxnRequest {
        let put = self.put();
        let compare = pb::Compare {
            result: pb::compare::CompareResult::Less as i32,
            target: pb::compare::CompareTarget::Mod as i32,
            key: put.key.clone(),
            target_union: Some(pb::compare::TargetUnion::ModRevision(self.seen_revision)),
            ..Default::default()
        };
        let read = pb::RangeRequest {
            key: put.key.clone(),
            ..Default::default()
        };
        pb::TxnRequest {
            compare: vec![compare],
            success: vec![op(pb::request_op::Request::RequestPut(put))],
            failure: vec![op(pb::request_op::Request::RequestRange(read))],
        }
    }

    /// Two or three different keys in one revision.
    fn many(&mut self) -> pb::TxnRequest {
        let mut puts: Vec<pb::PutRequest> = Vec::new();
        for _ in 0..3 {
            let put = self.put();
            if puts.iter().all(|other| other.key != put.key) {
                puts.push(put);
            }
        }
        let ops = puts.into_iter().map(pb::request_op::Request::RequestPut);
        pb::TxnRequest {
            success: ops.map(op).collect(),
            ..Default::default()
        }
    }
}

/// Wraps one operation of a transaction.
pub fn op(request: pb::request_op::Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}
