//! Makes the counts of a store when one was asked for that had to walk far.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::raft::applier::blocking;
use crate::replica::Replica;
use crate::storage::CountBuild;

/// How often it is looked whether somebody asked.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

pub async fn run(replica: Arc<Replica>) {
    let mut look = tokio::time::interval(LOOK_PERIOD);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(mut build) = CountBuild::begin(&replica.db()) else {
            continue;
        };
        let started = Instant::now();
        let built = loop {
            // In slices: a member that stops waits for no more than one.
            let step = blocking(move || build.step().map(|more| (more, build))).await;
            match step {
                Ok((true, unfinished)) => build = unfinished,
                Ok((false, complete)) => break blocking(move || complete.finish()).await,
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = built {
            replica.fail("count", &error);
            return;
        }
        tracing::debug!(took = ?started.elapsed(), "counts are kept from now on");
    }
}
