//! Three real members, one of which dies or falls silent.

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{Cluster, eventually};
use quorate_client::{Client, ClientConfig, Error};

#[tokio::test]
async fn calls_go_on_when_a_member_is_killed() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let leader = cluster.leader().await;
    let mut written = BTreeMap::new();
    let mut doubtful = 0;
    for turn in 0..300 {
        if turn == 100 {
            cluster.members[leader].kill();
        }
        if turn == 200 {
            cluster.members[leader].start();
        }
        let key = format!("k{turn}");
        let put = eventually(async || match client.put(&key, "v").await {
            Ok(put) => Some(Some(put.header.unwrap().revision)),
            Err(Error::Ambiguous { .. }) => Some(None),
            // Certainly not done: again.
            Err(error) if error.is_retryable() => None,
            Err(error) => panic!("{error:?}"),
        })
        .await;
        match put {
            Some(revision) => drop(written.insert(key, revision)),
            None => doubtful += 1,
        }
    }
    assert!(doubtful < 50, "{doubtful} writes in doubt");
    for (key, revision) in written {
        let found = client.get(&key).await.unwrap();
        assert_eq!(found.kvs[0].mod_revision, revision, "{key}");
        assert_eq!(found.kvs[0].version, 1, "{key} was written twice");
    }
}

#[tokio::test]
async fn a_silent_member_costs_one_call_at_most() {
    let cluster = Cluster::start(3).await;
    // Pings would come too late to help.
    let client = Client::connect(ClientConfig {
        keepalive_time: Duration::from_secs(60),
        ..ClientConfig::new(cluster.endpoints())
    });
    let client = client.await.unwrap();
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    client.put("k", "v").await.unwrap();
    cluster.members[follower].pause();
    let started = Instant::now();
    let mut failed = 0;
    for _ in 0..60 {
        failed += usize::from(client.get("k").await.is_err());
    }
    // The first call that meets it waits for its deadline; from then on it is avoided.
    assert!(failed <= 1, "{failed} reads failed");
    assert!(started.elapsed() < Duration::from_secs(10));

    cluster.members[follower].resume();
    let one = client
        .endpoint(&cluster.members[follower].endpoint)
        .unwrap();
    eventually(async || one.get("k").await.ok()).await;
}
