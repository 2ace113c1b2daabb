//! Counts what the applier does, command by command, under the meanings of etcd's metrics.
//!
//! etcd: server/storage/mvcc/metrics_txn.go, server/etcdserver/apply/uber_applier.go, server/lease/
//! lessor.go.

use std::time::Duration;

use crate::machine::Applied;
use crate::model::kv::request_op::Request;
use crate::model::kv::{Reply, RequestOp, TxnRequest, TxnResponse, command, response_op};
use crate::model::tally::{SLOW_APPLY, Tally};
use crate::model::{LeaseChange, Refusal};

/// What one command did to the keys.
#[derive(Default)]
struct Done {
    puts: u64,
    put_bytes: u64,
    deletes: u64,
    ranges: u64,
}

impl Done {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.puts += 1;
        self.put_bytes += (key.len() + value.len()) as u64;
    }

    /// The branch that was taken, with the branches that were taken inside it.
    fn txn(&mut self, request: &TxnRequest, response: &TxnResponse) {
        let taken: &[RequestOp] = if response.succeeded {
            &request.success
        } else {
            &request.failure
        };
        for (operation, answer) in taken.iter().zip(&response.responses) {
            match (&operation.request, &answer.response) {
                (Some(Request::RequestPut(put)), _) => self.put(&put.key, &put.value),
                (Some(Request::RequestDeleteRange(_)), _) => self.deletes += 1,
                (Some(Request::RequestRange(_)), _) => self.ranges += 1,
                (
                    Some(Request::RequestTxn(request)),
                    Some(response_op::Response::ResponseTxn(response)),
                ) => self.txn(request, response),
                _ => {}
            }
        }
    }
}

/// The place of a command among [`crate::model::tally::OPERATIONS`].
fn operation(kind: &command::Kind) -> usize {
    match kind {
        command::Kind::Put(_) => 0,
        command::Kind::DeleteRange(_) => 1,
        command::Kind::Txn(_) => 2,
        command::Kind::Compaction(_) => 3,
        command::Kind::LeaseGrant(_) => 4,
        command::Kind::LeaseRevoke(_) => 5,
        command::Kind::LeaseCheckpoint(_) => 6,
        command::Kind::MemberAttributes(_) => 7,
        command::Kind::Alarm(_) => 8,
        command::Kind::Downgrade(_) => 9,
    }
}

/// Counts one command that was applied in `took`.
pub fn count(tally: &Tally, kind: &command::Kind, applied: &Applied, took: Duration) {
    // etcd takes this one refusal for a success.
    let failed = !matches!(applied.outcome, Ok(_) | Err(Refusal::Compacted));
    tally.applies[operation(kind)][usize::from(failed)].observe(took);
    if took > SLOW_APPLY {
        tally.slow_applies.add(1);
    }
    let mut done = Done::default();
    match (kind, &applied.outcome) {
        (_, Err(_)) => return,
        (command::Kind::Put(put), Ok(_)) => done.put(&put.key, &put.value),
        (command::Kind::DeleteRange(_), Ok(_)) => done.deletes += 1,
        (command::Kind::Txn(request), Ok(Reply::Txn(response))) => done.txn(request, response),
        (command::Kind::LeaseRevoke(_), Ok(_)) => {
            let events = applied.events.as_ref();
            done.deletes += events.map_or(0, |events| events.events.len() as u64);
        }
        _ => {}
    }
    tally.puts.add(done.puts);
    tally.put_bytes.add(done.put_bytes);
    tally.deletes.add(done.deletes);
    tally.ranges.add(done.ranges);
    if done.puts + done.deletes + done.ranges > 1 {
        tally.txns.add(1);
    }
    for change in &applied.lease_changes {
        match change {
            LeaseChange::Granted { ttl_seconds, .. } => {
                tally.leases_granted.add(1);
                let ttl = u64::try_from(*ttl_seconds).unwrap_or(0);
                tally.lease_ttls.observe(Duration::from_secs(ttl));
            }
            LeaseChange::Revoked { .. } => tally.leases_revoked.add(1),
            LeaseChange::Checkpointed { .. } => {}
        }
    }
}
