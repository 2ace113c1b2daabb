//! Locks and elections among sessions of a real member.

mod common;

use common::{Cluster, eventually, soon};
use quorate_client::{Error, Session, put};

#[tokio::test]
async fn a_lock_is_held_by_one_and_goes_round_in_order() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let first = Session::open(&client, 60).await.unwrap();
    let held = first.mutex("m").lock().await.unwrap();
    assert_eq!(held.key(), &format!("m/{:x}", first.lease()));
    let busy = Session::open(&client, 60).await.unwrap();
    assert!(matches!(
        busy.mutex("m").try_lock().await,
        Err(Error::NotHeld { .. })
    ));
    // The waiters' keys follow each other without a revision in between.
    let (log, mut order) = tokio::sync::mpsc::channel(16);
    let mut waiting = Vec::new();
    for turn in 1..=4 {
        let session = Session::open(&client, 60).await.unwrap();
        let log = log.clone();
        waiting.push(tokio::spawn(async move {
            let held = session.mutex("m").lock().await.unwrap();
            log.send((turn, held.fencing_revision())).await.unwrap();
            // Whoever was let in too early would be seen by the next ones.
            let client = session.client();
            let alone = client.txn().when(held.is_held()).then(put("inside", "x"));
            assert!(alone.await.unwrap().succeeded);
            assert_eq!(client.get("m/").prefix().await.unwrap().count, 5 - turn);
            held.unlock().await.unwrap();
            session.close().await.unwrap();
        }));
        let in_queue = 1 + turn;
        eventually(async || {
            let queue = client.get("m/").prefix().await.unwrap();
            (queue.count == in_queue).then_some(())
        })
        .await;
    }
    assert!(
        order.try_recv().is_err(),
        "somebody got a lock that is held"
    );
    held.unlock().await.unwrap();
    let mut last = 0;
    for turn in 1..=4 {
        let (who, revision) = soon(order.recv()).await.unwrap();
        assert_eq!(who, turn);
        assert!(revision > last, "the fencing revision must grow");
        last = revision;
    }
    for task in waiting {
        task.await.unwrap();
    }
    let free = first.mutex("m").try_lock().await.unwrap();
    drop(free);
    eventually(async || (client.get("m/").prefix().await.unwrap().count == 0).then_some(())).await;
}

#[tokio::test]
async fn a_dead_holder_frees_the_lock_and_a_lost_one_is_told() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    // Its process dies: nobody renews, nobody unlocks.
    let dead = Session::open(&client, 2).await.unwrap();
    dead.mutex("m").lock().await.unwrap().keep();
    drop(dead);
    let session = Session::open(&client, 60).await.unwrap();
    let held = soon(session.mutex("m").lock()).await.unwrap();

    // A waiter whose lease is taken away must not wait on.
    let waiter = Session::open(&client, 3).await.unwrap();
    let lease = waiter.lease();
    let waits = tokio::spawn(async move { waiter.mutex("m").lock().await.map(drop) });
    eventually(async || (client.get("m/").prefix().await.unwrap().count == 2).then_some(())).await;
    client.revoke_lease(lease).await.unwrap();
    assert_eq!(
        soon(waits).await.unwrap().unwrap_err(),
        Error::LeaseLost { lease }
    );

    // A waiter that gives up leaves no key behind.
    let other = Session::open(&client, 60).await.unwrap();
    let mutex = other.mutex("m");
    tokio::select! {
        _ = mutex.lock() => panic!("the lock is held"),
        () = async {
            eventually(async || (client.get("m/").prefix().await.unwrap().count == 2).then_some(()))
                .await
        } => {}
    }
    eventually(async || (client.get("m/").prefix().await.unwrap().count == 1).then_some(())).await;

    // The holder is told too, and its lock is known to be gone.
    let lease = session.lease();
    client.revoke_lease(lease).await.unwrap();
    assert!(matches!(held.unlock().await, Err(Error::NotHeld { .. })));
}

#[tokio::test]
async fn our_locks_and_etcds_lock_service_exclude_each_other() {
    use quorate_client::proto::v3lockpb::{LockRequest, UnlockRequest};
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let lease = client.grant_lease(60).await.unwrap().id();
    let name = "m".into();
    let theirs = client
        .lock()
        .lock(LockRequest { name, lease })
        .await
        .unwrap()
        .into_inner();
    let session = Session::open(&client, 60).await.unwrap();
    let mutex = session.mutex("m");
    assert!(mutex.try_lock().await.is_err());
    let key = theirs.key;
    client.lock().unlock(UnlockRequest { key }).await.unwrap();
    soon(mutex.lock()).await.unwrap();
}

#[tokio::test]
async fn an_election_has_one_leader_and_observers_see_each() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let mut observer = client.observe("e");
    assert!(client.leader("e").await.unwrap().is_none());
    let first = Session::open(&client, 60).await.unwrap();
    let election = first.election("e");
    let ((), leadership) = tokio::join!(
        async { assert_eq!(soon(observer.next()).await.unwrap().value, "one") },
        election.campaign("one"),
    );
    let mut leadership = leadership.unwrap();
    leadership.proclaim("one, busy").await.unwrap();
    assert_eq!(soon(observer.next()).await.unwrap().value, "one, busy");

    let second = Session::open(&client, 60).await.unwrap();
    let next = tokio::spawn(async move {
        let revision = second
            .election("e")
            .campaign("two")
            .await
            .unwrap()
            .revision();
        (second, revision)
    });
    eventually(async || (client.get("e/").prefix().await.unwrap().count == 2).then_some(())).await;
    assert_eq!(
        client.leader("e").await.unwrap().unwrap().value,
        "one, busy"
    );
    let before = leadership.revision();
    leadership.resign().await.unwrap();
    let (_second, revision) = soon(next).await.unwrap();
    assert!(revision > before);
    // Its leadership was dropped, which resigns.
    eventually(async || client.leader("e").await.unwrap().is_none().then_some(())).await;
    let third = first.election("e").campaign("three").await.unwrap();
    loop {
        let seen = soon(observer.next()).await.unwrap().value;
        if seen == "three" {
            break;
        }
        assert_eq!(seen, "two");
    }
    client.revoke_lease(first.lease()).await.unwrap();
    assert!(matches!(third.resign().await, Err(Error::NotHeld { .. })));
}
