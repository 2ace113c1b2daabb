//! Faults on processes: kill -9 again and again under load, and a leader that is paused.
//!
//! `QUORATE_FAULT_ROUNDS` sets the number of kill rounds; a seed is printed and can be given back
//! in `QUORATE_SEED`.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::history::{Call, History};
use quorate_e2e::traffic::{Traffic, perform};
use quorate_e2e::watcher::Watcher;
use quorate_e2e::{rpc, seed, verify, wait};
use quorate_proto::etcdserverpb as pb;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rustix::process::Signal;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CLIENTS: usize = 6;

/// Kill rounds in a plain test run; a third of them each for a member, the leader, and all.
const ROUNDS: usize = 51;

/// After so many rounds everything is judged.
const ROUNDS_PER_VERDICT: usize = 9;

/// How long traffic may take to get going again after a fault.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(60);

fn rounds(usual: usize) -> Result<usize> {
    match std::env::var("QUORATE_FAULT_ROUNDS") {
        Ok(rounds) => rounds.parse().context("QUORATE_FAULT_ROUNDS is a number"),
        Err(_) => Ok(usual),
    }
}

/// Waits until so many more calls were acknowledged.
async fn progress(history: &History, calls: usize) -> Result<()> {
    let target = history.acknowledged() + calls;
    wait::until("acknowledged calls", RECOVERY_DEADLINE, async || {
        Ok((history.acknowledged() >= target).then_some(()))
    })
    .await
}

fn watchers(cluster: &Cluster) -> Vec<Watcher> {
    let ports = cluster.ports();
    let mut turned = ports.clone();
    turned.rotate_left(ports.len() / 2);
    vec![
        Watcher::start("a watcher of all", ports.clone(), "key", "kez"),
        Watcher::start("a watcher of some", turned, "key2", "key5"),
        Watcher::start("a watcher of one", ports, "key7", ""),
    ]
}

async fn kill_rounds(size: usize, rounds: usize) -> Result<()> {
    let seed = seed::from_environment("kill rounds")?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(&Options::new(Kind::under_test()?, size)).await?;
    let history = Arc::new(History::default());
    let start = Instant::now();
    let mut done = 0;
    while done < rounds {
        let label = format!("r{done}");
        let traffic = Traffic::start(&history, &cluster.ports(), CLIENTS, &label, random.random())?;
        let watchers = watchers(&cluster);
        for round in done..rounds.min(done + ROUNDS_PER_VERDICT) {
            progress(&history, random.random_range(50..150)).await?;
            let victims = match round % 3 {
                0 => vec![random.random_range(0..size)],
                1 => vec![cluster.leader().await?],
                _ => (0..size).collect(),
            };
            kill_and_restart(&mut cluster, &victims, &history)
                .await
                .with_context(|| format!("round {round}, kill -9 of {victims:?}"))?;
        }
        done = rounds.min(done + ROUNDS_PER_VERDICT);
        progress(&history, 50).await?;
        traffic.stop().await?;
        let judged = verify::all(&cluster, &history, watchers)
            .await
            .with_context(|| format!("after {done} rounds"))?;
        eprintln!("{done} rounds, {:?}: {judged:?}", start.elapsed());
    }
    Ok(())
}

async fn kill_and_restart(
    cluster: &mut Cluster,
    victims: &[usize],
    history: &History,
) -> Result<()> {
    for &victim in victims {
        cluster.members[victim].kill()?;
    }
    if victims.len() < cluster.members.len().div_ceil(2) {
        // The others go on without it.
        progress(history, 30).await?;
    }
    for &victim in victims {
        cluster.members[victim].restart()?;
    }
    cluster.ready().await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_lose_nothing_over_kill_nine() -> Result<()> {
    kill_rounds(3, rounds(ROUNDS)?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_loses_nothing_over_kill_nine() -> Result<()> {
    kill_rounds(1, rounds(ROUNDS)? / 3).await
}

/// Reads that were sent to a leader which slept through an election must not see the old store.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_never_answers_with_old_data() -> Result<()> {
    let cluster = Cluster::start(&Options::new(Kind::under_test()?, 3)).await?;
    let history = Arc::new(History::default());
    for round in 0..4 {
        let leader = cluster.leader().await?;
        let old = cluster.ports()[leader];
        let others: Vec<u16> = cluster.ports().into_iter().filter(|p| *p != old).collect();
        let traffic = Traffic::start(&history, &others, 4, &format!("p{round}"), round)?;
        progress(&history, 50).await?;
        // Connections that are open before the pause carry requests into it.
        let mut readers = Vec::new();
        for _ in 0..8 {
            let mut kv = rpc::kv(rpc::channel(old, Duration::from_secs(20))?);
            perform(&mut kv, &read()).await;
            readers.push(kv);
        }
        cluster.members[leader].signal(Signal::STOP)?;
        let elected = wait::until("another leader", RECOVERY_DEADLINE, async || {
            for port in &others {
                if let Ok(status) = rpc::status(*port).await {
                    let header = status.header.context("a header")?;
                    if status.leader == header.member_id {
                        return Ok(Some(()));
                    }
                }
            }
            Ok(None)
        });
        elected.await?;
        progress(&history, 50).await?;
        let mut reads = Vec::new();
        for (number, mut kv) in readers.into_iter().enumerate() {
            let history = history.clone();
            reads.push(tokio::spawn(async move {
                for _ in 0..5 {
                    let invoked_ns = history.now_ns();
                    let outcome = perform(&mut kv, &read()).await;
                    history.add(100 + number, read(), invoked_ns, outcome);
                }
            }));
        }
        // Meanwhile the reads reach the sleeper's sockets, and the store moves on.
        progress(&history, 100).await?;
        cluster.members[leader].signal(Signal::CONT)?;
        for read in reads {
            read.await?;
        }
        traffic.stop().await?;
        let judged = verify::all(&cluster, &history, Vec::new()).await?;
        eprintln!("pause {round}: {judged:?}");
    }
    Ok(())
}

fn read() -> Call {
    Call::Range(pb::RangeRequest {
        key: "key".into(),
        range_end: "kez".into(),
        ..Default::default()
    })
}

/// The judge on trial: a store that forgets everything at a restart is found out.
#[tokio::test(flavor = "multi_thread")]
async fn the_judge_flags_lost_writes() -> Result<()> {
    let mut cluster = Cluster::start(&Options::new(Kind::under_test()?, 1)).await?;
    let history = Arc::new(History::default());
    let traffic = Traffic::start(&history, &cluster.ports(), 4, "l", 3)?;
    progress(&history, 100).await?;
    traffic.stop().await?;
    let member = &mut cluster.members[0];
    member.kill()?;
    std::fs::remove_dir_all(&member.spec.data_dir)?;
    member.restart()?;
    member.ready().await?;
    let Err(error) = verify::all(&cluster, &history, Vec::new()).await else {
        anyhow::bail!("a store that lost everything passed");
    };
    ensure!(format!("{error}").contains("Acknowledged"), "{error}");
    Ok(())
}
