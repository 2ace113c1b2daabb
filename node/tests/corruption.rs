//! A member whose store was changed behind its back is found, and the cluster stops taking writes.

#![expect(clippy::unwrap_used, reason = "a failing step fails the test")]

mod support;

use std::path::Path;
use std::time::Duration;

use prost::Message;
use quorate::model::Refusal;
use quorate::model::kv::alarm_request::AlarmAction;
use quorate::model::kv::{AlarmRequest, AlarmType, Command, CompactionRequest, KeyValue, command};
use quorate::raft::state::StateDirectory;
use quorate::storage::Db;
use quorate::tasks::corruption::initial_check;
use support::{Cluster, eventually, put, value};

const PERIOD: Duration = Duration::from_millis(200);

/// Changes the value of `key` in the store of a member that does not run, and nothing else.
fn change_behind_its_back(data_dir: &Path, key: &'static str) {
    let path = StateDirectory::open(data_dir)
        .unwrap()
        .current_path()
        .unwrap();
    let db = Db::open(&path).unwrap();
    let pair = db.reader().pair(key.as_bytes()).unwrap().unwrap();
    let mut record = KeyValue::decode(pair.record).unwrap();
    record.value = "another".into();
    let record = record.encode_to_vec().into();
    let mut batch = db.batch();
    batch.put_pair(&key.into(), pair.head, record, None);
    db.commit(batch).unwrap();
    db.flush().unwrap();
}

/// Writes some keys, corrupts one of a follower and starts it again; returns the follower.
async fn corrupt_a_follower(cluster: &mut Cluster) -> usize {
    let follower = (cluster.leader().await + 1) % 3;
    for key in ["a", "b", "c"] {
        cluster
            .replica(follower)
            .propose(put(key, "right"))
            .await
            .unwrap();
    }
    cluster.replica(follower).db().flush().unwrap();
    cluster.stop(follower).await;
    change_behind_its_back(&cluster.data_dir(follower), "b");
    cluster.restart(follower).await;
    let replica = cluster.replica(follower);
    eventually("it reads", async || replica.barrier().await.is_ok()).await;
    assert_eq!(value(&replica, "b").as_deref(), Some("another"));
    follower
}

/// Waits for the alarm of the follower, and sees that it stops writes until it is taken back.
async fn is_alarmed(cluster: &Cluster, follower: usize) {
    let member_id = cluster.replica(follower).member_id();
    for n in 0..3 {
        let replica = cluster.replica(n);
        eventually("the alarm", async || {
            replica
                .view()
                .conditions
                .has_of(member_id, AlarmType::Corrupt)
        })
        .await;
        let refused = replica.propose(put("d", "x")).await;
        assert_eq!(refused, Err(Refusal::Corrupt));
    }
    let alarms = cluster.replica(0).view().conditions.alarms().len();
    assert_eq!(alarms, 1, "nobody else is suspected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_periodic_check_finds_a_changed_value() {
    let change = |config: &mut quorate::replica::ReplicaConfig| config.corrupt_check = Some(PERIOD);
    let mut cluster = Cluster::start_with(3, change).await;
    let follower = corrupt_a_follower(&mut cluster).await;
    is_alarmed(&cluster, follower).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_of_compactions_finds_a_changed_value() {
    let change =
        |config: &mut quorate::replica::ReplicaConfig| config.compact_hash_check = Some(PERIOD);
    let mut cluster = Cluster::start_with(3, change).await;
    let follower = corrupt_a_follower(&mut cluster).await;
    let request = CompactionRequest {
        revision: 4,
        physical: false,
    };
    let compaction = Command {
        kind: Some(command::Kind::Compaction(request)),
    };
    cluster.replica(follower).propose(compaction).await.unwrap();
    is_alarmed(&cluster, follower).await;

    let alarm = AlarmRequest {
        action: AlarmAction::Deactivate.into(),
        member_id: cluster.replica(follower).member_id(),
        alarm: AlarmType::Corrupt.into(),
    };
    let disarm = Command {
        kind: Some(command::Kind::Alarm(alarm)),
    };
    cluster.replica(follower).propose(disarm).await.unwrap();
    // It is raised again for as long as the store differs.
    let replica = cluster.replica(follower);
    eventually("the alarm again", async || {
        replica.propose(put("d", "x")).await == Err(Refusal::Corrupt)
    })
    .await;
    drop(replica);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_other_keys_does_not_pass_the_check_at_its_start() {
    let mut cluster = Cluster::start(3).await;
    let follower = corrupt_a_follower(&mut cluster).await;
    let replica = cluster.replica(follower);
    let me = replica.member_id();
    assert_eq!(
        initial_check(&replica).await,
        Err(format!("{me:x} found data inconsistency with peers"))
    );
    drop(replica);
    // Alone among members that do not answer, it cannot know.
    for n in (0..3).filter(|n| *n != follower) {
        cluster.stop(n).await;
    }
    assert_eq!(initial_check(&cluster.replica(follower)).await, Ok(()));
    cluster.shutdown().await;
}
