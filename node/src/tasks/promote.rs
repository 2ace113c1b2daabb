//! The leader gives votes to members that were added as voters, once they have caught up; others
//! make sure that they are still members when they hear of no leader.
//!
//! etcd lets a new voter count at once, so that one that never starts can cost the quorum.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::replica::Replica;

/// How often the leader looks; with nobody to look at, that is a glance at one number.
const LOOK: Duration = Duration::from_millis(100);

pub async fn run(replica: Arc<Replica>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let patience = replica.config().raft.election_timeout;
    let mut looked = Instant::now();
    loop {
        ticks.tick().await;
        if replica.leads() {
            replica.give_due_votes().await;
        } else if replica.leader() == 0 && looked.elapsed() > patience {
            replica.look_for_others().await;
            looked = Instant::now();
        }
    }
}
