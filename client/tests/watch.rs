//! Watches of real members: complete, in order and once, whatever happens to the connection.

mod common;

use std::time::Duration;

use common::{Cluster, eventually, soon};
use quorate_client::limits::WATCH_UPDATES_QUEUED_MAX;
use quorate_client::proto::mvccpb::event::EventType;
use quorate_client::{Client, Error, Watch, delete, put};

/// The next `count` events as (revision, key).
async fn take(watch: &mut Watch, count: usize) -> Vec<(i64, String)> {
    let mut events = Vec::new();
    while events.len() < count {
        let update = soon(watch.next()).await.expect("it goes on");
        events.extend(update.expect("no error").events.into_iter().map(|event| {
            let kv = event.kv.expect("every event has its pair");
            (
                kv.mod_revision,
                String::from_utf8_lossy(&kv.key).into_owned(),
            )
        }));
    }
    events
}

async fn write(client: &Client, key: &str) -> i64 {
    eventually(async || {
        // Writes in doubt would blur what the watch must show: these are certain.
        let put = client.put(key, "v").await.ok()?;
        put.header.map(|header| header.revision)
    })
    .await
}

#[tokio::test]
async fn a_watch_goes_on_over_restarts_with_every_event_once() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client();
    let mut from_now = client.watch("k").prefix().await.unwrap();
    let start = from_now.start_revision();
    let mut written = Vec::new();
    for round in 0..4 {
        for turn in 0..25 {
            let key = format!("k{round}-{turn}");
            written.push((write(&client, &key).await, key));
        }
        // In the middle of a round and with events under way.
        cluster.members[0].kill();
        cluster.members[0].start();
    }
    // The history of all that was acknowledged, from one who comes late.
    let mut late = client
        .watch("k")
        .prefix()
        .start_revision(start)
        .await
        .unwrap();
    let all = take(&mut late, written.len()).await;
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "{all:?}");
    let seen = take(&mut from_now, all.len()).await;
    assert_eq!(
        seen, all,
        "the watch that lived through it saw other events"
    );
    for acknowledged in written {
        assert!(seen.contains(&acknowledged), "{acknowledged:?} was missed");
    }
}

#[tokio::test]
async fn a_watch_moves_to_another_member() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut watch = client.watch("k").await.unwrap();
    let start = watch.start_revision();
    for victim in 0..3 {
        cluster.members[victim].kill();
        let revision = write(&client, "k").await;
        loop {
            let (seen, _) = take(&mut watch, 1).await[0];
            if seen == revision {
                break;
            }
            assert!((start..revision).contains(&seen));
        }
        cluster.members[victim].start();
        // Two of three must be there before the next one goes.
        let back = client.endpoint(&cluster.members[victim].endpoint).unwrap();
        eventually(async || back.get("k").await.ok()).await;
    }
}

#[tokio::test]
async fn many_watches_share_a_stream_and_go_when_dropped() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let metric = |name| cluster.members[0].metric(name);
    let mut watches = Vec::new();
    for index in 0..200 {
        watches.push(client.watch(format!("k{index}")).await.unwrap());
    }
    assert_eq!(metric("etcd_debugging_mvcc_watcher_total"), 200.0);
    assert_eq!(metric("etcd_debugging_mvcc_watch_stream_total"), 1.0);
    for index in [199, 0, 100] {
        write(&client, &format!("k{index}")).await;
        let (_, key) = take(&mut watches[index], 1).await.remove(0);
        assert_eq!(key, format!("k{index}"));
    }
    watches.truncate(50);
    eventually(async || (metric("etcd_debugging_mvcc_watcher_total") == 50.0).then_some(())).await;
    watches.clear();
    eventually(async || (metric("etcd_debugging_mvcc_watch_stream_total") == 0.0).then_some(()))
        .await;
    // And a new one begins anew.
    let mut again = client.watch("k0").await.unwrap();
    write(&client, "k0").await;
    take(&mut again, 1).await;
}

#[tokio::test]
async fn a_watch_leaves_a_member_that_falls_silent() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut watch = client.watch("k").await.unwrap();
    let start = watch.start_revision();
    let mut last = start;
    for victim in 0..3 {
        cluster.members[victim].pause();
        last = write(&client, "k").await;
        while take(&mut watch, 1).await[0].0 < last {}
        cluster.members[victim].resume();
        let back = client.endpoint(&cluster.members[victim].endpoint).unwrap();
        eventually(async || back.get("k").await.ok()).await;
    }
    // A write in doubt may have added revisions, but all of `k` and each once.
    let mut late = client.watch("k").start_revision(start).await.unwrap();
    let all = take(&mut late, 3).await;
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0) && all[0].0 >= start);
    assert!(last >= all[2].0);
}

#[tokio::test]
async fn a_slow_consumer_holds_up_nobody_and_misses_nothing() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let metric = |name| cluster.members[0].metric(name);
    // Once more than the queue has places, once more than it has bytes.
    for (count, size) in [(WATCH_UPDATES_QUEUED_MAX + 200, 1), (30, 1_000_000)] {
        let mut slow = client.watch("k").await.unwrap();
        let mut quick = client.watch("k").await.unwrap();
        let mut revisions = Vec::new();
        for _ in 0..count {
            let put = client.put("k", vec![b'x'; size]).await.unwrap();
            let revision = put.header.unwrap().revision;
            assert_eq!(take(&mut quick, 1).await[0].0, revision);
            revisions.push(revision);
        }
        let name = "etcd_debugging_mvcc_watcher_total";
        eventually(async || (metric(name) == 1.0).then_some(())).await;
        let seen: Vec<i64> = take(&mut slow, count)
            .await
            .into_iter()
            .map(|e| e.0)
            .collect();
        assert_eq!(seen, revisions);
    }
}

#[tokio::test]
async fn history_that_is_gone_is_an_error_with_the_revision_to_go_on_from() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    for _ in 0..9 {
        write(&client, "k").await;
    }
    client.compact(8, true).await.unwrap();
    let mut watch = client.watch("k").start_revision(3).await.unwrap();
    let end = soon(watch.next()).await.unwrap();
    assert_eq!(
        end,
        Err(Error::Compacted {
            compact_revision: 8
        })
    );
    assert_eq!(watch.next().await, None);
    let mut from_there = client.watch("k").start_revision(8).await.unwrap();
    assert_eq!(take(&mut from_there, 3).await.len(), 3);
}

#[tokio::test]
async fn options_reach_the_server() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let empty = client.watch("b").until("a").await.unwrap_err();
    assert_eq!(empty.to_string(), "mvcc: watcher range is empty");

    let mut deletes = client.watch("k").no_put().prev_kv().await.unwrap();
    let mut whole = client.watch("k").prefix().fragment().await.unwrap();
    client.put("k", "before").await.unwrap();
    client.delete("k").await.unwrap();
    let event = soon(deletes.next())
        .await
        .unwrap()
        .unwrap()
        .events
        .remove(0);
    assert_eq!(event.r#type(), EventType::Delete);
    assert_eq!(&event.prev_kv.unwrap().value[..], b"before");
    take(&mut whole, 2).await;

    // One revision of more than a message of etcd's holds, in pieces.
    let mut big = client.txn();
    for index in 0..3 {
        big = big.then(put(format!("k{index}"), vec![7; 450_000]));
    }
    big.await.unwrap();
    let gone = client.txn().then(delete("k").prefix()).await.unwrap();
    assert!(gone.succeeded);
    let mut history = client.watch("k").prefix().prev_kv().fragment();
    history = history.start_revision(whole.start_revision());
    assert_eq!(take(&mut history.await.unwrap(), 8).await.len(), 8);
}

#[tokio::test]
async fn progress_comes_when_asked_for() {
    let cluster = Cluster::start_with(1, &["--watch-progress-notify-interval=100ms"]).await;
    let client = cluster.client();
    let mut quiet = client.watch("k").await.unwrap();
    let revision = write(&client, "other").await;
    let progress = eventually(async || {
        quiet.request_progress().await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(500), quiet.next()).await;
        answer.ok()?.unwrap().ok()
    })
    .await;
    assert!(progress.is_progress());
    assert_eq!(progress.header.revision, revision);

    // A server says nothing before the store has come to the watch's first revision.
    let mut noted = client.watch("k").progress_notify().await.unwrap();
    write(&client, "other").await;
    assert!(soon(noted.next()).await.unwrap().unwrap().is_progress());
}
