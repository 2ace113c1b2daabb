//! The same random calls to a real etcd 3.7.3 and to Quorate: every answer must be the same.
//!
//! `QUORATE_SEED` plays a seed again; `QUORATE_SCRIPT_STEPS` sets the length.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::player::Player;
use quorate_e2e::script::{Script, Step};
use quorate_e2e::{rpc, seed, verify};
use quorate_proto::etcdserverpb as pb;
use std::time::Instant;

/// Calls in one script of a plain test run.
const STEPS: usize = 2_000;

fn steps() -> Result<usize> {
    match std::env::var("QUORATE_SCRIPT_STEPS") {
        Ok(steps) => steps.parse().context("QUORATE_SCRIPT_STEPS is a number"),
        Err(_) => Ok(STEPS),
    }
}

/// Values can be megabytes; a message needs the beginning.
fn short(text: &str) -> String {
    text.chars().take(2_000).collect()
}

fn difference(etcd: &str, ours: &str) -> String {
    let pairs = etcd.lines().zip(ours.lines()).enumerate();
    match pairs.into_iter().find(|(_, (a, b))| a != b) {
        Some((number, (a, b))) => {
            format!("line {number}:\n  etcd {}\n  ours {}", short(a), short(b))
        }
        None => "one answer is longer".to_owned(),
    }
}

async fn play(size: usize, seed: u64) -> Result<()> {
    let etcd = Cluster::start(&Options::new(Kind::Etcd, 1)).await?;
    let ours = Cluster::start(&Options::new(Kind::under_test()?, size)).await?;
    let mut player_etcd = Player::new(etcd.ports()[0])?;
    let mut player_ours = Player::new(ours.ports()[0])?;
    let mut script = Script::new(seed);
    let start = Instant::now();
    let steps = steps()?;
    for number in 0..steps {
        let step = match steps - number {
            1 => Step::WatchSync,
            2 => Step::Put(pb::PutRequest {
                key: "last".into(),
                ..Default::default()
            }),
            _ => script.step(),
        };
        let context = || {
            format!(
                "seed {seed}, step {number}: {}",
                short(&format!("{step:?}"))
            )
        };
        let both = tokio::join!(player_etcd.play(&step), player_ours.play(&step));
        let answer_etcd = both.0.with_context(context)?;
        let answer_ours = both.1.with_context(context)?;
        ensure!(
            answer_etcd.text == answer_ours.text,
            "{}\n{}\n--- etcd\n{}\n--- ours\n{}",
            context(),
            difference(&answer_etcd.text, &answer_ours.text),
            short(&answer_etcd.text),
            short(&answer_ours.text)
        );
        script.saw_revision(answer_etcd.revision);
    }
    let revision = rpc::linearizable_read(etcd.ports()[0]).await?;
    for port in ours.ports() {
        rpc::linearizable_read(port).await?;
    }
    let hash_etcd = &verify::hashes(&etcd, revision).await?[0];
    for hash in verify::hashes(&ours, revision).await? {
        ensure!(
            hash.hash == hash_etcd.hash,
            "{hash:?} is not etcd's {hash_etcd:?}"
        );
        ensure!(
            hash.compact_revision == hash_etcd.compact_revision,
            "{hash:?}, {hash_etcd:?}"
        );
    }
    eprintln!("{steps} steps, revision {revision}, {:?}", start.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_answers_like_etcd() -> Result<()> {
    play(1, seed::from_environment("differential, one member")?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_answer_like_etcd() -> Result<()> {
    play(3, seed::from_environment("differential, three members")?).await
}
