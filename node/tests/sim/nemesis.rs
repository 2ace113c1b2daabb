//! The trouble of a run: one fault after the other, drawn from the seed.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::time::Instant;

use super::cluster::Cluster;

#[derive(Debug)]
enum Fault {
    /// Two groups that do not hear each other.
    Split(Vec<u64>),
    /// The leader hears nobody and nobody hears it.
    IsolateLeader,
    /// One member is heard but does not hear.
    Deaf(u64),
    Lossy(u32),
    Slow(Duration),
    Crash(u64),
    CrashLeader,
    CrashAll,
    Restart(u64),
    MoveLeader(u64),
    /// One member is away for so long that it needs a snapshot.
    FallBehind(u64),
    Compact(u64),
}

fn draw(random: &mut StdRng, members: &[u64]) -> Fault {
    let member = *members.choose(random).expect("members");
    match random.random_range(0..15) {
        0 | 1 => {
            let mut group = members.to_vec();
            group.shuffle(random);
            group.truncate(random.random_range(1..members.len()));
            Fault::Split(group)
        }
        2 | 3 => Fault::IsolateLeader,
        4 => Fault::Deaf(member),
        5 => Fault::Lossy(random.random_range(1..15)),
        6 => Fault::Slow(Duration::from_millis(random.random_range(1..30))),
        7 => Fault::Crash(member),
        8 => Fault::CrashLeader,
        9 => Fault::CrashAll,
        10 => Fault::Restart(member),
        11 => Fault::FallBehind(member),
        12 | 13 => Fault::Compact(member),
        _ => Fault::MoveLeader(member),
    }
}

/// Troubles the cluster for a while; all members run again afterwards. Returns how often.
pub async fn run(cluster: &Cluster, random: &mut StdRng, time: Duration) -> usize {
    let end = Instant::now() + time;
    // Whatever else the seed brings, no run goes by without these.
    let mut certain = vec![
        Fault::Compact(cluster.members[0]),
        Fault::FallBehind(*cluster.members.choose(random).expect("members")),
    ];
    let mut faults = 0;
    while Instant::now() < end {
        let drawn = draw(random, &cluster.members);
        let fault = certain.pop().unwrap_or(drawn);
        println!("  {fault:?}");
        faults += 1;
        let pause = Duration::from_millis(random.random_range(100..1200));
        inflict(cluster, fault, pause).await;
        cluster.heal();
        let rest = Duration::from_millis(random.random_range(0..600));
        tokio::time::sleep(rest).await;
    }
    faults
}

async fn inflict(cluster: &Cluster, fault: Fault, pause: Duration) {
    let others = |member: u64| {
        cluster
            .members
            .iter()
            .copied()
            .filter(move |m| *m != member)
    };
    match fault {
        Fault::Split(group) => {
            let outside = cluster.members.iter().filter(|m| !group.contains(m));
            for outsider in outside {
                let links = group
                    .iter()
                    .flat_map(|m| [(*m, *outsider), (*outsider, *m)]);
                cluster.network.cut(links);
            }
        }
        Fault::IsolateLeader => {
            if let Some(leader) = leader(cluster) {
                let links = others(leader).flat_map(|m| [(leader, m), (m, leader)]);
                cluster.network.cut(links);
            }
        }
        Fault::Deaf(member) => cluster.network.cut(others(member).map(|m| (m, member))),
        Fault::Lossy(percent) => cluster.network.disturb(percent, Duration::ZERO),
        Fault::Slow(delay) => cluster.network.disturb(0, delay),
        Fault::Crash(member) => return crash(cluster, &[member], pause).await,
        Fault::CrashLeader => {
            if let Some(leader) = leader(cluster) {
                return crash(cluster, &[leader], pause).await;
            }
        }
        Fault::CrashAll => return crash(cluster, &cluster.members, pause).await,
        Fault::Restart(member) => {
            cluster.stop_member(member).await;
            tokio::time::sleep(pause).await;
            cluster.boot(member).await;
            return;
        }
        Fault::FallBehind(member) => return cluster.fall_behind(member).await,
        Fault::Compact(member) => return cluster.compact(member).await,
        Fault::MoveLeader(member) => {
            if let Some((_, leader)) = leader(cluster).and_then(|l| cluster.replica(l)) {
                // It may refuse: that is its right.
                if let Err(refusal) = leader.move_leader(member).await {
                    println!("    {refusal}");
                }
            }
        }
    }
    tokio::time::sleep(pause).await;
}

async fn crash(cluster: &Cluster, members: &[u64], pause: Duration) {
    futures::future::join_all(members.iter().map(|m| cluster.crash(*m))).await;
    tokio::time::sleep(pause).await;
    futures::future::join_all(members.iter().map(|m| cluster.boot(*m))).await;
}

fn leader(cluster: &Cluster) -> Option<u64> {
    let leads = |member: &u64| cluster.replica(*member).is_some_and(|(_, r)| r.leads());
    cluster.members.iter().copied().find(|m| leads(m))
}
