//! Leases of real members, kept alive and lost.

mod common;

use std::time::Duration;

use common::{Cluster, eventually, soon};
use quorate_client::{Error, Refusal};

#[tokio::test]
async fn a_lease_lives_as_long_as_its_handle() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let lease = client.grant_lease(2).await.unwrap();
    client.put("k", "v").lease(lease.id()).await.unwrap();
    let mut kept = lease.keep_alive().await.unwrap();
    // Well beyond the TTL.
    while soon(kept.renewed()).await.unwrap().count < 8 {
        assert!(kept.is_alive());
    }
    assert_eq!(client.get("k").await.unwrap().count, 1);
    let left = client.lease_time_to_live(lease.id(), true).await.unwrap();
    assert_eq!((left.granted_ttl, left.keys.len()), (2, 1));
    assert_eq!(client.leases().await.unwrap(), [lease.id()]);
    drop(kept);
    eventually(async || (client.get("k").await.unwrap().count == 0).then_some(())).await;
}

#[tokio::test]
async fn handles_can_end_their_lease_at_once() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    for by_drop in [true, false] {
        let lease = client.grant_lease(3600).await.unwrap();
        let kept = lease.keep_alive().await.unwrap();
        if by_drop {
            drop(kept.revoke_on_drop());
            eventually(async || client.leases().await.unwrap().is_empty().then_some(())).await;
        } else {
            kept.revoke().await.unwrap();
            assert!(client.leases().await.unwrap().is_empty());
        }
    }
    let error = client.revoke_lease(1).await.unwrap_err();
    assert_eq!(error.refusal(), Some(Refusal::LeaseNotFound));
    let error = client.keep_alive(1).await.unwrap_err();
    assert_eq!(error, Error::LeaseLost { lease: 1 });
}

#[tokio::test]
async fn the_loss_of_a_lease_is_told() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client();
    // Taken away by somebody else.
    let lease = client.grant_lease(3).await.unwrap();
    let kept = lease.keep_alive().await.unwrap();
    client.revoke_lease(lease.id()).await.unwrap();
    assert_eq!(
        soon(kept.lost()).await,
        Error::LeaseLost { lease: lease.id() }
    );
    assert!(!kept.is_alive());

    // No server answers any more: lost by the time that it may have ended.
    let lease = client.grant_lease(2).await.unwrap();
    let mut kept = lease.keep_alive().await.unwrap();
    let until = kept.renewed().await.unwrap().until;
    cluster.members[0].kill();
    soon(kept.lost()).await;
    let late = tokio::time::Instant::now().duration_since(until);
    assert!(
        late < Duration::from_secs(3),
        "told {late:?} after the first TTL"
    );
}

#[tokio::test]
async fn a_lease_is_kept_alive_when_members_die_or_fall_silent() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let lease = client.grant_lease(9).await.unwrap();
    client.put("k", "v").lease(lease.id()).await.unwrap();
    let mut kept = lease.keep_alive().await.unwrap();
    for victim in 0..3 {
        cluster.members[victim].pause();
        let seen = soon(kept.renewed()).await.unwrap().count;
        while soon(kept.renewed()).await.unwrap().count < seen + 2 {}
        cluster.members[victim].kill();
        cluster.members[victim].start();
        let back = client.endpoint(&cluster.members[victim].endpoint).unwrap();
        eventually(async || back.get("k").await.ok()).await;
    }
    assert_eq!(client.get("k").await.unwrap().count, 1);
}
