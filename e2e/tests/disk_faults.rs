//! One of three members has a disk that is full, damaged, or holds other data: it says so and
//! stops, the others serve, and it comes back or is replaced.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options, specs};
use quorate_e2e::disk::{self, Full, Tmpfs};
use quorate_e2e::history::History;
use quorate_e2e::large::Shape;
use quorate_e2e::members::{client, id, once_healthy};
use quorate_e2e::process::Process;
use quorate_e2e::rpc::{self, channel};
use quorate_e2e::tools::{ctl, restore_words, utl};
use quorate_e2e::traffic::Traffic;
use quorate_e2e::{verify, wait};
use quorate_proto::etcdserverpb as pb;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const TMPFS_MEGABYTES: u32 = 400;
const VALUE_BYTES: usize = 100_000;

/// Writes at one member until `end` says that it is enough.
async fn write_until(port: u16, mut end: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut kv = rpc::kv(channel(port, SOON)?);
    for number in 0..20_000_u64 {
        if end()? {
            return Ok(());
        }
        let request = pb::PutRequest {
            key: format!("fill-{}", number % 500).into(),
            value: noise(number),
            ..Default::default()
        };
        kv.put(request).await?;
    }
    anyhow::bail!("two gigabytes were not enough")
}

/// Bytes that no compression makes small.
fn noise(seed: u64) -> bytes::Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(VALUE_BYTES + 8);
    while bytes.len() < VALUE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_disk_is_full_stops_and_comes_back() -> Result<()> {
    for full in Full::all() {
        full_disk(full).await.with_context(|| format!("{full:?}"))?;
    }
    Ok(())
}

async fn full_disk(full: Full) -> Result<()> {
    let options = Options::new(Kind::Quorate, 3).flag("--quota-backend-bytes=-1");
    let (mut specs, folder) = specs(&options)?;
    let mut tmpfs = None;
    match full {
        Full::Limit => specs[2].launcher = disk::launcher_of_limit(),
        Full::Tmpfs => tmpfs = Some(Tmpfs::mount(&specs[2].data_dir, TMPFS_MEGABYTES)?),
    }
    let members = specs.into_iter().map(Process::start);
    let mut cluster = Cluster::from_parts(members.collect::<Result<_>>()?, folder);
    cluster.ready().await?;
    let history = Arc::new(History::default());
    let healthy = [cluster.ports()[0], cluster.ports()[1]];
    let traffic = Traffic::start(&history, &healthy, 4, "full", 5)?;
    if full == Full::Limit {
        disk::limit_files(&cluster.members[2], 1 << 20)?;
    }
    let victim = &mut cluster.members[2];
    write_until(healthy[0], || Ok(victim.exit_status()?.is_some())).await?;
    let log = victim.log()?;
    let reasons = ["File too large", "No space left on device"];
    ensure!(
        reasons.iter().any(|reason| log.contains(reason)),
        "it does not say why it stopped: {}",
        victim.log_tail()?
    );
    let before = history.acknowledged();
    wait::until("writes without it", SOON, async || {
        Ok((history.acknowledged() > before + 100).then_some(()))
    })
    .await?;
    if let Some(tmpfs) = &tmpfs {
        tmpfs.resize(4 * TMPFS_MEGABYTES)?;
    }
    cluster.members[2].ended(SOON).await?;
    cluster.members[2].restart()?;
    cluster.ready().await?;
    traffic.stop().await?;
    verify::all(&cluster, &history, Vec::new()).await?;
    Ok(())
}

/// Three members with enough in them that it lies in files of the store and of the log.
async fn filled() -> Result<Cluster> {
    let cluster = Cluster::start(&Options::new(Kind::Quorate, 3)).await?;
    let mut puts = 0;
    let enough = || {
        puts += 1;
        Ok(puts > 600)
    };
    write_until(cluster.ports()[0], enough).await?;
    Ok(cluster)
}

/// Removes a member that has ended and starts an empty one under its name and URLs.
async fn replace(cluster: &mut Cluster, number: usize, member_id: u64) -> Result<()> {
    let at = cluster.ports()[(number + 1) % 3];
    let peer_url = format!(
        "http://127.0.0.1:{}",
        cluster.members[number].spec.peer_port
    );
    once_healthy(async || {
        let request = pb::MemberRemoveRequest { id: member_id };
        let mut client = client(at).map_err(|error| tonic::Status::unknown(error.to_string()))?;
        client.member_remove(request).await
    })
    .await??;
    once_healthy(async || {
        let request = pb::MemberAddRequest {
            peer_ur_ls: vec![peer_url.clone()],
            is_learner: false,
        };
        let mut client = client(at).map_err(|error| tonic::Status::unknown(error.to_string()))?;
        client.member_add(request).await
    })
    .await??;
    let member = &mut cluster.members[number];
    std::fs::remove_dir_all(&member.spec.data_dir)?;
    let existing = "--initial-cluster-state=existing".to_owned();
    member.spec.extra_flags.push(existing);
    member.restart()?;
    member.ready().await
}

fn all_equal(cluster: &Cluster) -> Result<()> {
    let mut hashes = Vec::new();
    for port in cluster.ports() {
        let line = ctl(Kind::Etcd, port, &["endpoint", "hashkv"], b"")?;
        let (_, hash) = line.split_once(", ").context("a hash")?;
        hashes.push(hash.to_owned());
    }
    ensure!(
        hashes.windows(2).all(|pair| pair[0] == pair[1]),
        "{hashes:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_a_damaged_log_refuses_and_is_replaced() -> Result<()> {
    let mut cluster = filled().await?;
    let member_id = id(cluster.ports()[2]).await?;
    cluster.members[2].kill()?;
    let file = disk::largest(&cluster.members[2].spec.data_dir.join("log"), "")?;
    disk::flip_bits(&file, 3)?;
    ends_and_names(&mut cluster, &file).await?;
    replace(&mut cluster, 2, member_id).await?;
    all_equal(&cluster)
}

/// Starts the member with damage, which must end with an error that names the file and a place.
async fn ends_and_names(cluster: &mut Cluster, file: &Path) -> Result<()> {
    let member = &mut cluster.members[2];
    member.restart()?;
    let status = member.ended(SOON).await?;
    let log = member.log()?;
    let name = file.file_name().context("a file")?.to_string_lossy();
    ensure!(!status.success(), "it ended well");
    ensure!(
        log.contains(&*name) && log.contains("offset"),
        "{name} and an offset are not named: {}",
        member.log_tail()?
    );
    rpc::linearizable_read(cluster.ports()[0]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_a_damaged_store_stops_and_is_replaced() -> Result<()> {
    let mut cluster = filled().await?;
    let member_id = id(cluster.ports()[2]).await?;
    cluster.members[2].terminate().await?;
    let data_dir = cluster.members[2].spec.data_dir.clone();
    let file = disk::largest(&data_dir, ".sst")?;
    disk::flip_bits(&file, 40)?;
    let member = &mut cluster.members[2];
    member.restart()?;
    // It need not see it before it reads there; then it must not tell anything untrue.
    let port = member.spec.client_port;
    let mut kv = rpc::kv(channel(port, SOON)?);
    wait::until("an end for the damage", SOON, async || {
        let request = pb::RangeRequest {
            key: "fill-".into(),
            range_end: "fill.".into(),
            ..Default::default()
        };
        if let Ok(answer) = kv.range(request).await {
            let records = answer.into_inner().kvs;
            ensure!(
                records.iter().all(|it| it.value.len() >= VALUE_BYTES),
                "a damaged record was told"
            );
        }
        member.exit_status()
    })
    .await?;
    let name = file
        .file_name()
        .context("a file")?
        .to_string_lossy()
        .into_owned();
    let log = member.log()?;
    ensure!(
        log.contains(&name) && log.contains("offset"),
        "{name} and an offset are not named: {}",
        member.log_tail()?
    );
    rpc::linearizable_read(cluster.ports()[0]).await?;
    cluster.members[2].ended(SOON).await?;
    replace(&mut cluster, 2, member_id).await?;
    all_equal(&cluster)
}

/// Two members are restored from one file, the third from one in which a value differs.
#[tokio::test]
async fn a_member_with_other_data_does_not_pass_the_initial_check() -> Result<()> {
    let (mut specs, folder) = specs(&Options::new(Kind::Quorate, 3))?;
    let right = folder.path().join("right");
    let shape = Shape {
        keys: 500,
        value_bytes: 64,
    };
    shape.write(&right)?;
    let mut bytes = std::fs::read(&right)?;
    let large = bytes
        .windows(64)
        .position(|it| it.iter().all(|byte| *byte == b'v'));
    bytes[large.context("the large value")? + 32] = b'w';
    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, bytes)?;
    for (spec, file) in specs.iter().zip([&right, &right, &wrong]) {
        let ended = utl(
            Kind::Quorate,
            &restore_words(file, spec, &["--skip-hash-check"])?,
        )?;
        ensure!(ended.code == Some(0), "{ended:?}");
    }
    let gate = "--feature-gates=InitialCorruptCheck=true".to_owned();
    specs[2].extra_flags.push(gate);
    let mut odd = specs.pop().context("three members")?;
    let members = specs.into_iter().map(Process::start);
    let mut cluster = Cluster::from_parts(members.collect::<Result<_>>()?, folder);
    cluster.ready().await?;
    let mut member = Process::start(odd.clone())?;
    let status = member.ended(SOON).await?;
    let log = member.log()?;
    ensure!(
        !status.success() && log.contains("found data inconsistency with peers"),
        "{log}"
    );
    ensure!(!log.contains("has no effect"), "{log}");
    // With the right data it passes.
    std::fs::remove_dir_all(&odd.data_dir)?;
    let ended = utl(Kind::Quorate, &restore_words(&right, &odd, &[])?)?;
    ensure!(ended.code == Some(0), "{ended:?}");
    odd.log = cluster.dir().join("again.log");
    let member = Process::start(odd)?;
    cluster.members.push(member);
    cluster.ready().await?;
    all_equal(&cluster)
}
