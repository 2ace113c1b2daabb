//! One run: a cluster from a seed, clients and faults on it, then the judgement.

mod cluster;
mod invariants;
mod nemesis;
mod network;
mod oracle;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use self::cluster::Cluster;
use self::invariants::{Observer, Watchers};
use self::oracle::Oracle;

/// Clients that call at the same time.
const CLIENTS: u64 = 6;
/// How long the faults last in all.
const TROUBLE: Duration = Duration::from_secs(10);
/// How long a healed cluster may take to come to rest.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the simulation of `seed` and panics when an invariant is broken.
pub fn run(seed: u64) {
    println!("simulation with QUORATE_SIM_SEED={seed}");
    let result = std::panic::catch_unwind(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(simulate(seed));
    });
    if let Err(panic) = result {
        println!("broken: run again with QUORATE_SIM_SEED={seed}");
        std::panic::resume_unwind(panic);
    }
}

async fn simulate(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let members = if random.random_bool(0.7) { 3 } else { 5 };
    let cluster = Cluster::start(members, random.random()).await;
    let oracle = Arc::new(Oracle::default());
    let end = CancellationToken::new();
    let observer = Observer::start(&cluster, end.clone());
    let watchers = Watchers::start(&cluster, &mut random, end.clone());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let random = StdRng::seed_from_u64(random.random());
            let cluster = Arc::clone(&cluster);
            let oracle = Arc::clone(&oracle);
            tokio::spawn(workload::run(client, cluster, oracle, random, end.clone()))
        })
        .collect();

    let faults = nemesis::run(&cluster, &mut random, TROUBLE).await;
    cluster.heal();
    cluster.until_serving().await;
    cluster.until_compacted().await;
    end.cancel();
    for client in clients {
        client.await.expect("a client");
    }
    observer.finish().await;
    cluster.until_leases_are_gone().await;
    cluster.until_equal().await;

    let history = cluster.history();
    let snapshots = cluster.installed_snapshots();
    println!(
        "{members} members, {faults} faults, {snapshots} with a snapshot, {} events, {}",
        history.len(),
        oracle.summary()
    );
    assert!(faults >= 3, "nothing happened");
    assert!(snapshots > 0, "nobody got a snapshot");
    watchers.check(&history).await;
    invariants::applied_equal::check(&cluster, &history);
    invariants::lease_once::check(&history);
    oracle.check(&history);
    let directories = cluster.stop().await;
    invariants::log_matching::check(&directories);
}
