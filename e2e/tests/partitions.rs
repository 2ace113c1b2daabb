//! Faults on the wires between three members: cut, swallowed, one-way, slow. The judge decides.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::history::{Call, History, Outcome};
use quorate_e2e::proxy::{Net, Wire};
use quorate_e2e::traffic::{Traffic, perform};
use quorate_e2e::watcher::Watcher;
use quorate_e2e::{rpc, verify, wait};
use quorate_proto::etcdserverpb as pb;
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);
/// How long members may take to replace a leader that is gone, on the busiest machine: an election
/// takes two seconds, so that by then a tenth one has failed.
const ELECTION_MAX: Duration = Duration::from_secs(20);

async fn progress(history: &History, calls: usize) -> Result<()> {
    let target = history.acknowledged() + calls;
    wait::until("acknowledged calls", DEADLINE, async || {
        Ok((history.acknowledged() >= target).then_some(()))
    })
    .await
}

/// Waits until one of the other members leads.
async fn another_leader(cluster: &Cluster, old: usize) -> Result<()> {
    let ports = cluster.ports();
    wait::until("another leader", ELECTION_MAX, async || {
        for (member, port) in ports.iter().enumerate() {
            let Ok(status) = rpc::status(*port).await else {
                continue;
            };
            let header = status.header.context("a header")?;
            if member != old && status.leader == header.member_id {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
    .await
}

/// A member without a quorum neither reads linearizably nor writes, and still reads its own state.
async fn is_helpless(port: u16, history: &History, round: u64) -> Result<()> {
    ensure!(
        rpc::linearizable_read(port).await.is_err(),
        "a linearizable read without a quorum"
    );
    let mut kv = rpc::kv(rpc::channel(port, Duration::from_secs(1))?);
    let put = Call::Put(pb::PutRequest {
        key: "alone".into(),
        value: format!("alone{round}").into(),
        ..Default::default()
    });
    let invoked_ns = history.now_ns();
    let outcome = perform(&mut kv, &put).await;
    let acknowledged = matches!(outcome, Outcome::Ok(_));
    history.add(100, put, invoked_ns, outcome);
    ensure!(!acknowledged, "a write without a quorum");
    let read = pb::RangeRequest {
        key: "alone".into(),
        serializable: true,
        ..Default::default()
    };
    kv.range(read).await.context("a serializable read")?;
    Ok(())
}

async fn isolate_leader(wire: Wire) -> Result<()> {
    let (net, cluster) = Net::start(&Options::new(Kind::under_test()?, 3)).await?;
    let history = Arc::new(History::default());
    let ports = cluster.ports();
    for round in 0..2 {
        let traffic = Traffic::start(&history, &ports, 6, &format!("i{round}"), round)?;
        let watcher = Watcher::start("a watcher of all", ports.clone(), "key", "kez");
        progress(&history, 60).await?;
        let leader = cluster.leader().await?;
        net.isolate(leader, wire);
        let start = Instant::now();
        another_leader(&cluster, leader).await?;
        let elected = start.elapsed();
        progress(&history, 60).await?;
        let helpless = is_helpless(ports[leader], &history, round).await;
        net.heal();
        let healed = Instant::now();
        helpless?;
        for port in &ports {
            wait::until("a member that is back", DEADLINE, async || {
                Ok(rpc::linearizable_read(*port).await.ok())
            })
            .await?;
        }
        let back = healed.elapsed();
        progress(&history, 60).await?;
        traffic.stop().await?;
        let judged = verify::all(&cluster, &history, vec![watcher]).await?;
        eprintln!("{wire:?} {round}: elected in {elected:?}, back in {back:?}, {judged:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_is_replaced() -> Result<()> {
    isolate_leader(Wire::Cut).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_packets_vanish_is_replaced() -> Result<()> {
    isolate_leader(Wire::Swallow).await
}

/// One way only: a follower that hears nobody but is heard, and one that is not heard.
#[tokio::test(flavor = "multi_thread")]
async fn one_way_wires_lose_nothing() -> Result<()> {
    let (net, cluster) = Net::start(&Options::new(Kind::under_test()?, 3)).await?;
    let history = Arc::new(History::default());
    let ports = cluster.ports();
    let traffic = Traffic::start(&history, &ports, 6, "w", 7)?;
    let watcher = Watcher::start("a watcher of all", ports.clone(), "key", "kez");
    progress(&history, 60).await?;
    for deaf in [true, false] {
        let follower = (cluster.leader().await? + 1) % 3;
        for other in (0..3).filter(|other| *other != follower) {
            match deaf {
                true => net.set(other, follower, Wire::Swallow),
                false => net.set(follower, other, Wire::Swallow),
            }
        }
        progress(&history, 100).await?;
        net.heal();
        progress(&history, 60).await?;
    }
    traffic.stop().await?;
    let judged = verify::all(&cluster, &history, vec![watcher]).await?;
    eprintln!("one way: {judged:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_wires_lose_nothing() -> Result<()> {
    let (net, cluster) = Net::start(&Options::new(Kind::under_test()?, 3)).await?;
    let history = Arc::new(History::default());
    let ports = cluster.ports();
    let traffic = Traffic::start(&history, &ports, 6, "s", 8)?;
    let watcher = Watcher::start("a watcher of all", ports.clone(), "key", "kez");
    for member in 0..3 {
        net.isolate(member, Wire::Delay(Duration::from_millis(75)));
    }
    progress(&history, 100).await?;
    net.heal();
    progress(&history, 60).await?;
    traffic.stop().await?;
    let judged = verify::all(&cluster, &history, vec![watcher]).await?;
    eprintln!("slow: {judged:?}");
    Ok(())
}

/// The judge on trial: a serializable read that claims to be linearizable is found out.
#[tokio::test(flavor = "multi_thread")]
async fn the_judge_flags_old_reads() -> Result<()> {
    let (net, cluster) = Net::start(&Options::new(Kind::under_test()?, 3)).await?;
    let history = Arc::new(History::default());
    let ports = cluster.ports();
    let follower = (cluster.leader().await? + 1) % 3;
    let others: Vec<u16> = ports
        .iter()
        .copied()
        .filter(|p| *p != ports[follower])
        .collect();
    net.isolate(follower, Wire::Swallow);
    let traffic = Traffic::start(&history, &others, 4, "j", 9)?;
    progress(&history, 100).await?;
    let mut kv = rpc::kv(rpc::channel(ports[follower], Duration::from_secs(2))?);
    let mut range = pb::RangeRequest {
        key: "key".into(),
        range_end: "kez".into(),
        serializable: true,
        ..Default::default()
    };
    let invoked_ns = history.now_ns();
    let outcome = perform(&mut kv, &Call::Range(range.clone())).await;
    range.serializable = false;
    history.add(100, Call::Range(range), invoked_ns, outcome);
    traffic.stop().await?;
    net.heal();
    let Err(error) = verify::all(&cluster, &history, Vec::new()).await else {
        anyhow::bail!("an old read passed as a linearizable one");
    };
    ensure!(format!("{error}").contains("RealTime"), "{error}");
    Ok(())
}
