//! The leader revokes leases whose time is over, bounded a second.
//!
//! etcd: server/lease/lessor.go (runLoop), server/etcdserver/server.go (revokeExpiredLeases).

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;

use crate::model::Refusal;
use crate::model::kv::{Command, LeaseRevokeRequest, command};
use crate::model::limits::{LEASE_REVOKES_PER_SECOND_MAX, LEASE_SCAN_MS};
use crate::replica::Replica;

/// Leases revoked in one look.
const REVOKES_PER_SCAN_MAX: usize = LEASE_REVOKES_PER_SECOND_MAX * LEASE_SCAN_MS as usize / 1_000;

pub async fn run(replica: Arc<Replica>) {
    let mut ticks = tokio::time::interval(Duration::from_millis(LEASE_SCAN_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !replica.leads() {
            continue;
        }
        let term = replica.term();
        let expired = replica.expired_leases(Instant::now(), REVOKES_PER_SCAN_MAX);
        let revokes: FuturesUnordered<_> = expired
            .into_iter()
            .map(|id| revoke(&replica, id, term))
            .collect();
        revokes.collect::<()>().await;
    }
}

/// Revokes in the name of the term whose clock said that the lease is over: a leader that was
/// replaced and leads again has given all leases their full time.
async fn revoke(replica: &Replica, id: i64, term: u64) {
    if replica.term() != term {
        return;
    }
    let command = Command {
        kind: Some(command::Kind::LeaseRevoke(LeaseRevokeRequest { id })),
    };
    match replica.propose_as_leader(command).await {
        Ok(_) => {
            replica.tally().leases_expired.add(1);
            tracing::debug!(id = format!("{id:016x}"), "revoked an expired lease");
        }
        // Revoked by its owner meanwhile.
        Err(Refusal::LeaseNotFound) => {}
        Err(refusal) => {
            tracing::warn!(id = format!("{id:016x}"), %refusal, "an expired lease lives on");
        }
    }
}
