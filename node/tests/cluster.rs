//! Members in one process, over tonic on loopback: proposals, reads, leases, failover, restart.

mod support;

use std::time::{Duration, Instant};

use quorate::model::Refusal;
use quorate::model::kv::{Reply, command};
use quorate::raft::transport::grpc::{GrpcOptions, GrpcTransport};
use quorate::raft::transport::{PeerAddress, PeerError, Transport};
use quorate::replica::Replica;
use support::{Cluster, eventually, get, grant, put, value};

/// A member that has just started, or whose leader has just changed, refuses at first.
async fn readable(replica: &Replica) {
    eventually("it reads", async || replica.barrier().await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_leads_at_once_and_keeps_what_it_acknowledged() {
    let mut cluster = Cluster::start(1).await;
    let replica = cluster.replica(0);
    readable(&replica).await;
    for i in 0..20 {
        let reply = replica.propose(put(&format!("k{i}"), "v")).await.unwrap();
        let Reply::Put(reply) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(reply.header.unwrap().revision, i + 2);
    }
    assert_eq!(value(&replica, "k19").as_deref(), Some("v"));
    drop(replica);
    cluster.halt(0).await;
    cluster.restart(0).await;
    let replica = cluster.replica(0);
    readable(&replica).await;
    assert_eq!(value(&replica, "k0").as_deref(), Some("v"));
    assert_eq!(replica.view().revision, 21);
    assert_eq!(replica.view().members().unwrap().len(), 1);
    drop(replica);
    cluster.stop(0).await;
    cluster.restart(0).await;
    let replica = cluster.replica(0);
    readable(&replica).await;
    assert_eq!(replica.view().revision, 21);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_lost_before_the_first_flush_is_missed() {
    let mut cluster = Cluster::start(1).await;
    cluster.replica(0).propose(put("k", "v")).await.unwrap();
    cluster.halt(0).await;
    let log = cluster.directory(0).join("log");
    std::fs::remove_dir_all(&log).unwrap();
    let error = cluster.start_error(0).await;
    assert!(
        error.contains("the segments of the raft log are gone"),
        "{error}"
    );
    assert!(error.contains(&*log.to_string_lossy()), "{error}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_large_command_and_one_that_is_too_large() {
    let cluster = Cluster::start(1).await;
    let replica = cluster.replica(0);
    let large = "x".repeat(1_500_000);
    replica.propose(put("large", &large)).await.unwrap();
    let larger = "x".repeat(1_600_000);
    let refused = replica.propose(put("larger", &larger)).await;
    assert_eq!(refused, Err(Refusal::RequestTooLarge));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_proposes_and_reads() {
    let cluster = Cluster::start(3).await;
    for member in 0..3 {
        let replica = cluster.replica(member);
        let name = format!("from{member}");
        replica.propose(put(&name, "v")).await.unwrap();
        // A member's own callers are answered by its own apply.
        assert_eq!(value(&replica, &name).as_deref(), Some("v"));
        for reader in 0..3 {
            let reader = cluster.replica(reader);
            reader.barrier().await.unwrap();
            assert_eq!(value(&reader, &name).as_deref(), Some("v"));
        }
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_entries_and_rounds() {
    let cluster = Cluster::start(3).await;
    let (callers, each) = (60, 20);
    let mut set = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let replica = cluster.replica(caller % 3);
        set.spawn(async move {
            for i in 0..each {
                let name = format!("c{caller}-{i}");
                replica.propose(put(&name, "v")).await.unwrap();
                replica.barrier().await.unwrap();
                assert_eq!(value(&replica, &name).as_deref(), Some("v"));
            }
        });
    }
    while let Some(done) = set.join_next().await {
        done.unwrap();
    }
    let leader = cluster.replica(cluster.leader().await);
    leader.barrier().await.unwrap();
    let total = (callers * each) as i64;
    assert_eq!(leader.view().revision, total + 1);
    let entries = leader.status().applied_index as i64;
    assert!(entries < total, "{entries} entries for {total} commands");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_leader_takes_over_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    for i in 0..50 {
        let replica = cluster.replica(i % 3);
        replica.propose(put(&format!("k{i}"), "v")).await.unwrap();
    }
    cluster.halt(old).await;
    let new = cluster.leader().await;
    assert_ne!(old, new);
    let other = cluster.replica(3 - old - new);
    other.propose(put("after", "v")).await.unwrap();
    cluster.restart(old).await;
    let back = cluster.replica(old);
    eventually("the old leader reads", async || {
        back.barrier().await.is_ok()
    })
    .await;
    for i in 0..50 {
        assert_eq!(value(&back, &format!("k{i}")).as_deref(), Some("v"), "k{i}");
    }
    assert_eq!(value(&back, "after").as_deref(), Some("v"));
    cluster.shutdown().await;
}

/// A leader that dials a dead member as fast as it can starves itself and those around it: in a
/// busy loop it would be thousands of times a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_dialled_with_pauses() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let dead = (leader + 1) % 3;
    let address = cluster.url(dead).replace("http://", "");
    cluster.halt(dead).await;
    // Takes each call and hangs up.
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let replica = cluster.replica(leader);
    let observed = Duration::from_secs(3);
    let calls = async {
        let (mut calls, end) = (0, tokio::time::Instant::now() + observed);
        while let Ok(call) = tokio::time::timeout_at(end, listener.accept()).await {
            call.unwrap();
            calls += 1;
        }
        calls
    };
    let writes = async {
        let end = Instant::now() + observed;
        while Instant::now() < end {
            replica.propose(put("k", "v")).await.unwrap();
        }
    };
    let (calls, ()) = tokio::join!(calls, writes);
    assert!(calls > 0, "nobody looks whether it is back");
    assert!(calls < 300, "{calls} calls in {observed:?}");
    drop(listener);
    cluster.restart(dead).await;
    readable(&cluster.replica(dead)).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_members_come_back_from_a_crash() {
    let mut cluster = Cluster::start(3).await;
    for i in 0..30 {
        let replica = cluster.replica(i % 3);
        replica.propose(put(&format!("k{i}"), "v")).await.unwrap();
    }
    for member in 0..3 {
        cluster.halt(member).await;
    }
    for member in 0..3 {
        cluster.restart(member).await;
    }
    cluster.leader().await;
    for member in 0..3 {
        let replica = cluster.replica(member);
        readable(&replica).await;
        for i in 0..30 {
            assert_eq!(value(&replica, &format!("k{i}")).as_deref(), Some("v"));
        }
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_on_demand() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let target = (old + 1) % 3;
    let (replica, follower) = (cluster.replica(old), cluster.replica(target));
    let elsewhere = follower.move_leader(replica.member_id()).await;
    assert_eq!(elsewhere, Err(Refusal::NotLeader));
    let stranger = replica.move_leader(42).await;
    assert_eq!(stranger, Err(Refusal::BadLeaderTransferee));
    replica.move_leader(follower.member_id()).await.unwrap();
    assert_eq!(cluster.leader().await, target);
    replica.propose(put("after", "v")).await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_does_not_move_to_a_silent_member_and_writes_go_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let silent = (leader + 1) % 3;
    let (replica, target) = (cluster.replica(leader), cluster.replica(silent).member_id());
    cluster.halt(silent).await;
    eventually("it is missed", async || {
        let progress = replica.raft().progress(target);
        let acked = progress.and_then(|progress| progress.acked_ago);
        acked.is_none_or(|ago| ago > Duration::from_secs(1))
    })
    .await;
    let moving = tokio::spawn({
        let replica = cluster.replica(leader);
        async move { replica.move_leader(target).await }
    });
    while !moving.is_finished() {
        replica.propose(put("meanwhile", "v")).await.unwrap();
    }
    assert_eq!(moving.await.unwrap(), Err(Refusal::TimeoutLeaderTransfer));
    assert_eq!(cluster.leader().await, leader);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_majority_is_none_and_a_write_times_out_unknown() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for member in (0..3).filter(|member| *member != leader) {
        cluster.halt(member).await;
    }
    let replica = cluster.replica(leader);
    let mut known = replica.subscribe_leader();
    let lost = tokio::time::timeout(Duration::from_secs(5), known.wait_for(|id| *id == 0));
    lost.await
        .expect("the leader sees that it is alone")
        .unwrap();
    let begun = Instant::now();
    let refused = replica.propose(put("k", "v")).await;
    assert_eq!(refused, Err(Refusal::TimeoutConnectionLost));
    assert!(begun.elapsed() >= Duration::from_secs(5));
    assert_eq!(replica.barrier().await, Err(Refusal::Timeout));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_leader_stays_one() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    for member in 0..3 {
        let mut known = cluster.replica(member).subscribe_leader();
        let leads = known.wait_for(|leader| *leader != 0).await;
        let before = *leads.unwrap();
        let changed = tokio::time::timeout(Duration::from_secs(3), known.changed());
        assert!(
            changed.await.is_err(),
            "{before:016x} became {:016x}",
            *known.borrow()
        );
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lives_on_renewals_over_a_change_of_leader_and_then_ends() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let follower = cluster.replica((old + 1) % 3);
    follower.propose(grant(7, 2)).await.unwrap();
    let mut attached = put("leased", "v");
    if let Some(command::Kind::Put(request)) = &mut attached.kind {
        request.lease = 7;
    }
    follower.propose(attached).await.unwrap();
    assert_eq!(follower.renew(7).await, Ok(2));
    assert_eq!(follower.renew(8).await, Ok(0));
    let left = follower.lease_remaining(&[7, 8]).await.unwrap();
    assert!(left[0].is_some_and(|left| left <= Duration::from_secs(2)));
    assert_eq!(left[1], None);
    let target = cluster.replica((old + 2) % 3).member_id();
    cluster.replica(old).move_leader(target).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(follower.renew(7).await, Ok(2));
        assert!(value(&follower, "leased").is_some());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let last = Instant::now();
    eventually("the lease ends", async || {
        value(&follower, "leased").is_none()
    })
    .await;
    let lived = last.elapsed();
    assert!(lived >= Duration::from_millis(1_600), "{lived:?}");
    assert_eq!(follower.renew(7).await, Ok(0));
    assert_eq!(follower.view().revision, 3);
    assert_eq!(get(&follower, "leased").count, 0);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_its_full_time_again_after_a_restart_and_ends_then() {
    let mut cluster = Cluster::start(1).await;
    let replica = cluster.replica(0);
    replica.propose(grant(7, 3)).await.unwrap();
    drop(replica);
    cluster.halt(0).await;
    let restarted = Instant::now();
    cluster.restart(0).await;
    let replica = cluster.replica(0);
    readable(&replica).await;
    eventually("the lease ends", async || {
        replica.view().lease(7).unwrap().is_none()
    })
    .await;
    assert!(restarted.elapsed() >= Duration::from_secs(3));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_publish_their_names_and_urls() {
    let cluster = Cluster::start(3).await;
    for member in 0..3 {
        let replica = cluster.replica(member);
        let known = async || {
            let members = replica.view().members().unwrap();
            let named = |n: usize| {
                members.iter().any(|it| {
                    it.name == format!("m{n}")
                        && it.client_urls == [format!("http://client{n}")]
                        && it.id == cluster.replica(n).member_id()
                })
            };
            (0..3).all(named)
        };
        eventually("all are published", known).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_for_another_cluster_or_member_is_refused() {
    let cluster = Cluster::start(1).await;
    let (id, urls) = (cluster.replica(0).member_id(), cluster.url(0));
    let ours = cluster.replica(0).cluster_id();
    for (cluster_id, member, text) in [
        (ours + 1, id, "cluster ID mismatch"),
        (ours, id + 1, "member ID mismatch"),
    ] {
        let transport = GrpcTransport::new(9, cluster_id, GrpcOptions::default());
        let to = PeerAddress {
            id: member,
            urls: urls.clone(),
        };
        let refused = transport.read_index(&to).await;
        assert!(
            matches!(&refused, Err(PeerError::Refused { reason, .. }) if reason.contains(text)),
            "{refused:?}"
        );
    }
    let transport = GrpcTransport::new(9, ours, GrpcOptions::default());
    let known = transport.read_index(&PeerAddress { id, urls }).await;
    known.unwrap();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_fell_behind_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::start_with(3, |config| {
        config.raft.snapshot_count = 50;
        config.raft.snapshot_catchup_entries = 10;
    })
    .await;
    let leader = cluster.leader().await;
    let behind = (leader + 1) % 3;
    cluster.halt(behind).await;
    let replica = cluster.replica(leader);
    let large = "x".repeat(1_000);
    for i in 0..300 {
        replica
            .propose(put(&format!("k{i}"), &large))
            .await
            .unwrap();
    }
    eventually("the log is purged", async || {
        replica.raft().standing().purged_index > 100
    })
    .await;
    cluster.restart(behind).await;
    let back = cluster.replica(behind);
    readable(&back).await;
    assert_eq!(back.view().revision, replica.view().revision);
    for i in 0..300 {
        assert_eq!(value(&back, &format!("k{i}")).as_deref(), Some(&*large));
    }
    assert_eq!(back.view().members().unwrap().len(), 3);
    assert_eq!(
        back.view().hash_kv(0).unwrap(),
        replica.view().hash_kv(0).unwrap()
    );
    replica.propose(put("after", "v")).await.unwrap();
    drop(back);
    cluster.halt(behind).await;
    cluster.restart(behind).await;
    let back = cluster.replica(behind);
    readable(&back).await;
    assert_eq!(value(&back, "after").as_deref(), Some("v"));
    cluster.shutdown().await;
}
