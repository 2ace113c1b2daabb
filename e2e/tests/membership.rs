//! Members that come and go: real binaries, under load, judged by the history.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::history::{History, Outcome};
use quorate_e2e::members::{self, add, grow, list, promote, refusal, remove};
use quorate_e2e::process::{Process, free_port};
use quorate_e2e::traffic::Traffic;
use quorate_e2e::{rpc, seed, verify, wait};
use quorate_proto::etcdserverpb as pb;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(60);
const REMOVED: &str = "the member has been permanently removed from the cluster";

async fn one(kind: Kind) -> Result<Cluster> {
    Cluster::start(&Options::new(kind, 1)).await
}

async fn progress(history: &History, calls: usize) -> Result<()> {
    let target = history.acknowledged() + calls;
    wait::until("acknowledged calls", DEADLINE, async || {
        Ok((history.acknowledged() >= target).then_some(()))
    })
    .await
}

async fn put(port: u16, key: &str) -> Result<()> {
    let mut kv = rpc::kv(rpc::channel(port, Duration::from_secs(10))?);
    let put = pb::PutRequest {
        key: key.to_owned().into(),
        value: "value".into(),
        ..Default::default()
    };
    kv.put(put).await?;
    Ok(())
}

async fn has(port: u16, key: &str) -> Result<bool> {
    let mut kv = rpc::kv(rpc::channel(port, Duration::from_secs(10))?);
    let range = pb::RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    };
    Ok(kv.range(range).await?.into_inner().count == 1)
}

fn unknown(history: &History) -> Vec<String> {
    let records = history.records().into_iter();
    let outcomes = records.filter_map(|record| match record.outcome {
        Outcome::Unknown(text) => Some(text),
        Outcome::Ok(_) | Outcome::Refused(_) => None,
    });
    outcomes.collect()
}

/// A removed member ends by itself, in peace and with etcd's words.
async fn ends_removed(member: &mut Process) -> Result<()> {
    let status = member.ended(DEADLINE).await?;
    ensure!(status.code() == Some(0), "it ended with {status}");
    ensure!(member.log()?.contains(REMOVED), "{}", member.log_tail()?);
    Ok(())
}

/// 1 → 3 → 5 members and back to 1 under load, the leader first each time.
#[tokio::test(flavor = "multi_thread")]
async fn growing_to_five_and_back_to_one_loses_nothing() -> Result<()> {
    let kind = Kind::under_test()?;
    // So few entries are kept that members which join need a snapshot.
    let options = Options::new(kind, 1)
        .flag("--snapshot-count=100")
        .flag("--snapshot-catchup-entries=10");
    let mut cluster = Cluster::start(&options).await?;
    let history = Arc::new(History::default());
    let first = cluster.ports()[0];
    let traffic = Traffic::start(&history, &[first], 3, "one", 1)?;
    let term = rpc::status(first).await?.raft_term;
    grow(&mut cluster, first, "m2").await?;
    grow(&mut cluster, first, "m3").await?;
    let ports = cluster.ports();
    let more = Traffic::start(&history, &ports, 6, "three", 2)?;
    progress(&history, 100).await?;
    for name in ["m4", "m5"] {
        grow(&mut cluster, ports[2], name).await?;
        progress(&history, 100).await?;
    }
    // Adding members takes nobody's turn: calls fail only while a leader is elected.
    if rpc::status(first).await?.raft_term == term {
        let failed = unknown(&history);
        ensure!(failed.is_empty(), "{failed:?}");
    }
    let members = list(first).await?;
    ensure!(members.len() == 5, "{members:?}");
    traffic.stop().await?;
    more.stop().await?;
    eprintln!(
        "five: {:?}",
        verify::all(&cluster, &history, Vec::new()).await?
    );
    while cluster.members.len() > 1 {
        let leader = cluster.leader().await?;
        let ports = cluster.ports();
        let left: Vec<u16> = ports
            .iter()
            .copied()
            .filter(|port| *port != ports[leader])
            .collect();
        let label = format!("left{}", left.len());
        let traffic = Traffic::start(&history, &left, 6, &label, left.len() as u64)?;
        progress(&history, 60).await?;
        // Every other time the leader itself is asked; etcd's may stop before it answers.
        let asks_leader = left.len().is_multiple_of(2) && kind == Kind::Quorate;
        let at = if asks_leader { ports[leader] } else { left[0] };
        let members = remove(at, members::id(ports[leader]).await?).await?;
        ensure!(members.len() == left.len(), "{members:?}");
        let mut removed = cluster.members.remove(leader);
        progress(&history, 60).await?;
        ends_removed(&mut removed).await?;
        progress(&history, 60).await?;
        traffic.stop().await?;
        let judged = verify::all(&cluster, &history, Vec::new()).await?;
        eprintln!("{}: {judged:?}", cluster.members.len());
    }
    Ok(())
}

/// Changes that a leader does not live to finish are finished or forgotten, never half done.
#[tokio::test(flavor = "multi_thread")]
async fn changes_survive_the_death_of_the_leader() -> Result<()> {
    let seed = seed::from_environment("membership")?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(&Options::new(Kind::under_test()?, 3)).await?;
    let history = Arc::new(History::default());
    for round in 0..8 {
        let ports = cluster.ports();
        let traffic = Traffic::start(&history, &ports, 6, &format!("r{round}"), random.random())?;
        let leader = cluster.leader().await?;
        let name = format!("new{round}");
        grow(&mut cluster, ports[(leader + 1) % 3], &name).await?;
        let ports = cluster.ports();
        let leader = cluster.leader().await?;
        let (victim, asked) = ((leader + 1) % 4, ports[(leader + 2) % 4]);
        let id = members::id(ports[victim]).await?;
        // The leader dies before, within or after the change.
        let dying = &mut cluster.members[leader];
        let moment = Duration::from_millis(random.random_range(0..12));
        let (outcome, killed) = tokio::join!(remove(asked, id), async {
            tokio::time::sleep(moment).await;
            dying.kill()
        });
        killed?;
        wait::until("members", DEADLINE, async || {
            let Ok(members) = list(asked).await else {
                return Ok(None);
            };
            let is_member = members.iter().any(|member| member.id == id);
            ensure!(
                !(is_member && outcome.is_ok()),
                "an acknowledged change is lost"
            );
            if is_member {
                // Refused or timed out: it may yet come to pass, or be asked for again.
                return Ok(remove(asked, id).await.ok().map(drop));
            }
            Ok(Some(()))
        })
        .await?;
        cluster.members[leader].restart()?;
        cluster.members[leader].ready().await?;
        ends_removed(&mut cluster.members[victim]).await?;
        cluster.members.remove(victim);
        progress(&history, 40).await?;
        traffic.stop().await?;
        let judged = verify::all(&cluster, &history, Vec::new()).await?;
        eprintln!(
            "round {round}, {:?}: {judged:?}",
            outcome.map(|members| members.len())
        );
        ensure!(list(cluster.ports()[0]).await?.len() == 3);
    }
    Ok(())
}

/// In etcd a second member that never starts stops the first one for good.
#[tokio::test]
async fn a_voter_that_never_starts_costs_no_quorum() -> Result<()> {
    let mut cluster = one(Kind::Quorate).await?;
    let port = cluster.ports()[0];
    let (ghost, _) = add(&cluster, port, "ghost", false).await?;
    for number in 0..20 {
        put(port, &format!("key{number}")).await?;
    }
    let members = list(port).await?;
    let seen = members.iter().find(|member| member.id == ghost.id);
    let seen = seen.context("the new member is listed")?;
    ensure!(seen.name.is_empty() && !seen.is_learner, "{seen:?}");
    // As in etcd, it counts as a voter that is not there.
    let request = pb::MemberAddRequest {
        peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
        is_learner: false,
    };
    let refused = refusal(members::client(port)?.member_add(request).await)?;
    let text = "etcdserver: re-configuration failed due to not enough started members";
    ensure!(refused == (Code::Unknown, text.to_owned()), "{refused:?}");
    // Nor after a restart.
    cluster.members[0].kill()?;
    cluster.members[0].restart()?;
    cluster.ready().await?;
    put(port, "after").await?;
    remove(port, ghost.id).await?;
    ensure!(list(port).await?.len() == 1);
    put(port, "last").await
}

/// A learner serves serializable reads and its status, and is promoted by hand.
#[tokio::test]
async fn a_learner_is_promoted() -> Result<()> {
    let mut cluster = one(Kind::under_test()?).await?;
    let port = cluster.ports()[0];
    put(port, "key").await?;
    let (learner, spec) = add(&cluster, port, "m2", true).await?;
    ensure!(learner.is_learner);
    let mut client = members::client(port)?;
    let promotion = pb::MemberPromoteRequest { id: learner.id };
    let refused = refusal(client.member_promote(promotion).await)?;
    let text = "etcdserver: can only promote a learner member which is in sync with leader";
    ensure!(
        refused == (Code::FailedPrecondition, text.to_owned()),
        "{refused:?}"
    );
    let process = Process::start(spec)?;
    let at = process.spec.client_port;
    cluster.members.push(process);
    let mut kv = rpc::kv(rpc::channel(at, Duration::from_secs(5))?);
    let read = pb::RangeRequest {
        key: "key".into(),
        serializable: true,
        ..Default::default()
    };
    wait::until("a learner that has caught up", DEADLINE, async || {
        let answer = kv.range(read.clone()).await;
        Ok(answer
            .is_ok_and(|answer| answer.into_inner().count == 1)
            .then_some(()))
    })
    .await?;
    wait::until(
        "a learner that has published itself",
        DEADLINE,
        async || {
            let members = list(port).await?;
            Ok(members
                .iter()
                .any(|member| member.name == "m2")
                .then_some(()))
        },
    )
    .await?;
    ensure!(rpc::status(at).await?.is_learner);
    let unsupported = "etcdserver: rpc not supported for learner";
    let unsupported = (Code::FailedPrecondition, unsupported.to_owned());
    let linearizable = pb::RangeRequest {
        serializable: false,
        ..read
    };
    ensure!(refusal(kv.range(linearizable).await)? == unsupported);
    ensure!(refusal(kv.put(pb::PutRequest::default()).await)? == unsupported);
    let request = pb::MemberListRequest {
        linearizable: false,
    };
    ensure!(refusal(members::client(at)?.member_list(request).await)? == unsupported);
    promote(port, learner.id).await?;
    cluster.ready().await?;
    promotions_are_counted(port).await?;
    let members = list(port).await?;
    ensure!(
        members.iter().all(|member| !member.is_learner),
        "{members:?}"
    );
    put(at, "from the new voter").await?;
    ensure!(has(port, "from the new voter").await?);
    Ok(())
}

/// Everything that `/metrics` says.
async fn metrics(port: u16) -> Result<String> {
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = quorate_e2e::raw::send(port, request).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn promotions_are_counted(port: u16) -> Result<()> {
    let metrics = metrics(port).await?;
    for line in [
        "etcd_server_learner_promote_successes 1",
        "etcd_server_learner_promote_failures{Reason=\"etcdserver: can only promote a learner \
         member which is in sync with leader\"}",
        "etcd_server_is_learner 0",
    ] {
        ensure!(metrics.contains(line), "{line}: {metrics}");
    }
    Ok(())
}

/// A learner that is removed while it runs ends, and only one of two is ever taken.
#[tokio::test]
async fn two_learners_at_once_are_one_too_many() -> Result<()> {
    let cluster = Cluster::start(&Options::new(Kind::under_test()?, 3)).await?;
    let ports = cluster.ports();
    for _ in 0..3 {
        let (one, other) = tokio::join!(
            add(&cluster, ports[0], "one", true),
            add(&cluster, ports[1], "other", true)
        );
        let (added, refused) = match (one, other) {
            (Ok(added), Err(refused)) | (Err(refused), Ok(added)) => (added, refused),
            both => anyhow::bail!("{both:?}"),
        };
        ensure!(format!("{refused:#}").contains("too many learner members in cluster"));
        let (learner, spec) = added;
        std::fs::remove_dir_all(&spec.data_dir).ok();
        let mut process = Process::start(spec)?;
        wait::until(
            "a learner that has published itself",
            DEADLINE,
            async || {
                let members = list(ports[2]).await?;
                let started =
                    |member: &pb::Member| member.id == learner.id && !member.name.is_empty();
                Ok(members.iter().any(started).then_some(()))
            },
        )
        .await?;
        remove(ports[2], learner.id).await?;
        ends_removed(&mut process).await?;
    }
    Ok(())
}

/// Stopped, removed, started again: its peers tell it.
#[tokio::test]
async fn a_member_that_was_down_when_it_was_removed_is_told() -> Result<()> {
    let mut cluster = Cluster::start(&Options::new(Kind::under_test()?, 3)).await?;
    let ports = cluster.ports();
    let leader = cluster.leader().await?;
    let gone = (leader + 1) % 3;
    let id = members::id(ports[gone]).await?;
    cluster.members[gone].kill()?;
    remove(ports[leader], id).await?;
    put(ports[leader], "without").await?;
    let mut removed = cluster.members.remove(gone);
    removed.restart()?;
    ends_removed(&mut removed).await
}

/// A member whose disk is gone cannot pretend that it is still there.
#[tokio::test]
async fn a_wiped_member_is_refused_and_replaced_under_its_url() -> Result<()> {
    let mut cluster = Cluster::start(&Options::new(Kind::under_test()?, 3)).await?;
    let ports = cluster.ports();
    let lost = members::id(ports[1]).await?;
    put(ports[0], "before").await?;
    let member = &mut cluster.members[1];
    member.kill()?;
    std::fs::remove_dir_all(&member.spec.data_dir)?;
    member.restart()?;
    let status = member.ended(DEADLINE).await?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    let told = format!("member {lost:x} has already been bootstrapped");
    ensure!(member.log()?.contains(&told), "{}", member.log_tail()?);
    let other = cluster.leader().await?;
    let at = ports[other];
    remove(at, lost).await?;
    let mut spec = cluster.members[1].spec.clone();
    std::fs::remove_dir_all(&spec.data_dir).ok();
    let replacement = members::add_as(at, &mut spec, false).await?;
    ensure!(replacement.id != lost, "an ID that was used before");
    cluster.members[1] = Process::start(spec)?;
    cluster.ready().await?;
    ensure!(has(ports[1], "before").await?);
    put(ports[1], "after").await?;
    let members = list(at).await?;
    ensure!(members.len() == 3, "{members:?}");
    ensure!(
        members.iter().all(|member| member.id != lost),
        "{members:?}"
    );
    Ok(())
}

/// A joiner whose data is gone once it was part of the cluster does not come back either.
#[tokio::test]
async fn a_wiped_joiner_is_refused() -> Result<()> {
    let mut cluster = one(Kind::Quorate).await?;
    let port = cluster.ports()[0];
    grow(&mut cluster, port, "m2").await?;
    grow(&mut cluster, port, "m3").await?;
    let joiner = &mut cluster.members[2];
    joiner.kill()?;
    std::fs::remove_dir_all(&joiner.spec.data_dir)?;
    joiner.restart()?;
    let status = joiner.ended(DEADLINE).await?;
    ensure!(status.code() == Some(1), "it ended with {status}");
    ensure!(joiner.log()?.contains("has already been bootstrapped"));
    put(port, "two of three").await
}

/// The last survivor of three goes on alone, with all it has, and grows again.
#[tokio::test]
async fn a_survivor_goes_on_alone_when_forced() -> Result<()> {
    let kind = Kind::under_test()?;
    let mut cluster = Cluster::start(&Options::new(kind, 3)).await?;
    let ports = cluster.ports();
    for number in 0..50 {
        put(ports[0], &format!("key{number}")).await?;
    }
    let cluster_id = rpc::status(ports[0])
        .await?
        .header
        .context("a header")?
        .cluster_id;
    let lost = members::id(ports[2]).await?;
    ensure!(has(ports[0], "key49").await?);
    for member in &mut cluster.members {
        member.kill()?;
    }
    let survivor = &mut cluster.members[0];
    survivor
        .spec
        .extra_flags
        .push("--force-new-cluster".to_owned());
    survivor.restart()?;
    survivor.ready().await?;
    let members = list(ports[0]).await?;
    ensure!(members.len() == 1, "{members:?}");
    let header = rpc::status(ports[0]).await?.header.context("a header")?;
    ensure!(header.cluster_id == cluster_id, "another cluster");
    // etcd drops what it does not know to be committed, and with it the last write.
    let kept = if kind == Kind::Etcd { 49 } else { 50 };
    for number in 0..kept {
        ensure!(has(ports[0], &format!("key{number}")).await?, "key{number}");
    }
    put(ports[0], "alone").await?;
    // From now on as any other.
    cluster.members[0].terminate().await?;
    cluster.members[0].spec.extra_flags.pop();
    cluster.members[0].restart()?;
    cluster.members[0].ready().await?;
    ensure!(has(ports[0], "alone").await?);
    let mut others = cluster.members.split_off(1);
    grow(&mut cluster, ports[0], "new").await?;
    ensure!(has(cluster.ports()[1], "alone").await?);
    // One of the others comes back: it is none of us any more.
    let other = &mut others[1];
    ensure!(list(ports[0]).await?.iter().all(|member| member.id != lost));
    other.restart()?;
    ends_removed(other).await
}

/// A member that moves to another peer URL is found there.
#[tokio::test]
async fn a_member_moves_to_another_url() -> Result<()> {
    let mut cluster = Cluster::start(&Options::new(Kind::under_test()?, 3)).await?;
    let ports = cluster.ports();
    let leader = cluster.leader().await?;
    let moving = (leader + 1) % 3;
    let id = members::id(ports[moving]).await?;
    let port = free_port()?;
    let request = pb::MemberUpdateRequest {
        id,
        peer_ur_ls: vec![format!("http://127.0.0.1:{port}")],
    };
    let updated = members::client(ports[(leader + 2) % 3])?;
    let updated = { updated }
        .member_update(request.clone())
        .await?
        .into_inner();
    let seen = updated.members.iter().find(|member| member.id == id);
    ensure!(seen.is_some_and(|member| member.peer_ur_ls == request.peer_ur_ls));
    let member = &mut cluster.members[moving];
    member.terminate().await?;
    put(ports[leader], "meanwhile").await?;
    member.spec.peer_port = port;
    member.spec.advertised_peer_port = port;
    let old = format!("{}=", member.spec.name);
    let entries = member.spec.initial_cluster.split(',').map(|entry| {
        if entry.starts_with(&old) {
            format!("{old}http://127.0.0.1:{port}")
        } else {
            entry.to_owned()
        }
    });
    member.spec.initial_cluster = entries.collect::<Vec<_>>().join(",");
    member.restart()?;
    member.ready().await?;
    ensure!(has(ports[moving], "meanwhile").await?);
    Ok(())
}

/// What a joiner is told when `--initial-cluster` is not what the cluster says.
async fn wrong_joins(kind: Kind) -> Result<Vec<String>> {
    let cluster = one(kind).await?;
    let port = cluster.ports()[0];
    let first = &cluster.members[0].spec;
    let (_, spec) = add(&cluster, port, "m2", true).await?;
    let m1 = format!("m1=http://127.0.0.1:{}", first.peer_port);
    let m2 = format!("m2=http://127.0.0.1:{}", spec.peer_port);
    let nowhere = free_port()?;
    let mut told = Vec::new();
    for (initial, expected) in [
        (
            format!("{m1},{m2},m3=http://127.0.0.1:{nowhere}"),
            "member count is unequal",
        ),
        (
            format!("{m1},m2=http://127.0.0.1:{nowhere}"),
            "PeerURLs: no match found for existing member",
        ),
        (
            format!("m1=http://127.0.0.1:{nowhere},{m2}"),
            "cannot fetch cluster info from peer urls: could not retrieve cluster information \
             from the given URLs",
        ),
        (
            m1.clone(),
            "couldn't find local name \\\"m2\\\" in the initial cluster configuration",
        ),
    ] {
        let mut spec = spec.clone();
        spec.initial_cluster = initial;
        let mut process = Process::start(spec)?;
        let status = process.ended(DEADLINE).await?;
        let log = process.log()?;
        ensure!(
            log.contains(expected),
            "{expected}: {}",
            process.log_tail()?
        );
        told.push(format!("{:?} {expected}", status.code()));
    }
    Ok(told)
}

#[tokio::test]
async fn wrong_initial_clusters_are_told_in_the_words_of_etcd() -> Result<()> {
    let expected = wrong_joins(Kind::Etcd).await?;
    let found = wrong_joins(Kind::under_test()?).await?;
    ensure!(expected == found, "{expected:?} {found:?}");
    Ok(())
}
