//! Clients that send nonsense, do not read, vanish, or want too much: the server goes on serving.
//!
//! Wrong requests and their exact refusals are in `differential.rs`.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use quorate_e2e::watcher::{Stream, request};
use quorate_e2e::{process, raw, rpc, wait};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use std::time::Duration;
use tonic::Code;

const DEADLINE: Duration = Duration::from_secs(60);

async fn one_member() -> Result<Cluster> {
    Cluster::start(&Options::new(Kind::under_test()?, 1)).await
}

/// The same process still serves linearizable reads.
async fn serves_on(cluster: &mut Cluster, pid: Option<u32>) -> Result<()> {
    let member = &mut cluster.members[0];
    let ended = member.exit_status()?;
    ensure!(
        ended.is_none(),
        "it ended with {ended:?}: {}",
        member.log_tail()?
    );
    ensure!(member.pid() == pid, "another process");
    rpc::linearizable_read(member.spec.client_port).await?;
    Ok(())
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let with = |rest: &[u8]| [&preface[..], rest].concat();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let settings_then = |rest: &[u8]| with(&[&settings[..], rest].concat());
    vec![
        ("nothing", Vec::new()),
        (
            "noise",
            (0..4096_u32).map(|n| (n * 31 % 251) as u8).collect(),
        ),
        (
            "a TLS hello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ("a preface and noise", with(&[0xff; 512])),
        ("a preface cut short", preface[..10].to_vec()),
        (
            "a frame larger than allowed",
            settings_then(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        ),
        (
            "data on a stream never opened",
            settings_then(&[0, 0, 1, 0, 0, 0, 0, 0, 9, 0]),
        ),
        (
            "headers that do not decode",
            settings_then(&[0, 0, 3, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff]),
        ),
        (
            "a settings frame with a wrong length",
            with(&[0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]),
        ),
        (
            "HTTP/1 with a huge header",
            [b"GET /".as_slice(), &[b'a'; 1 << 20]].concat(),
        ),
        ("HTTP/1 nonsense", b"NONSENSE / HTTP/9.9\r\n\r\n".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_harm_nobody() -> Result<()> {
    let mut cluster = one_member().await?;
    let pid = cluster.members[0].pid();
    let ports = [
        cluster.members[0].spec.client_port,
        cluster.members[0].spec.peer_port,
    ];
    for (name, bytes) in frames() {
        for port in ports {
            raw::send(port, &bytes).await.context(name)?;
        }
        serves_on(&mut cluster, pid).await.context(name)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_no_messages_are_refused() -> Result<()> {
    let mut cluster = one_member().await?;
    let pid = cluster.members[0].pid();
    let port = cluster.ports()[0];
    let cases: [(&'static str, &[u8], Code); 5] = [
        // A length that goes beyond the end, a number that stops short, a group that never ends.
        (
            "/etcdserverpb.KV/Put",
            &[0x0a, 0xff, 0x01, 0x00],
            Code::Internal,
        ),
        ("/etcdserverpb.KV/Range", &[0x18, 0x80], Code::Internal),
        ("/etcdserverpb.KV/Txn", &[0x0b], Code::Internal),
        ("/etcdserverpb.KV/Nonsense", &[], Code::Unimplemented),
        ("/nonsense.Service/Put", &[], Code::Unimplemented),
    ];
    for (path, message, code) in cases {
        let channel = rpc::channel(port, DEADLINE)?;
        let Err(status) = raw::unary(channel, path, message).await else {
            anyhow::bail!("{path} {message:?} is accepted");
        };
        ensure!(
            status.code() == code,
            "{path} {message:?}: {status:?} instead of {code:?}"
        );
        serves_on(&mut cluster, pid).await?;
    }
    Ok(())
}

/// Values that watchers do not read, in bytes and in number.
const UNREAD_VALUE_BYTES: usize = 64 << 10;
const UNREAD_VALUES: usize = 4096;

/// What a server may grow by meanwhile; the values together are 256 MiB.
const GROWTH_BYTES_MAX: u64 = 160 << 20;

/// Resident memory that is not a mapped file: what queues would grow.
fn anonymous_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .context("RssAnon")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib << 10)
}

async fn put_values(port: u16, count: usize, bytes: usize) -> Result<()> {
    let channel = rpc::channel(port, DEADLINE)?;
    let mut tasks = Vec::new();
    for task in 0..8 {
        let mut kv = rpc::kv(channel.clone());
        tasks.push(tokio::spawn(async move {
            for number in (task..count).step_by(8) {
                let put = pb::PutRequest {
                    key: format!("w/{}", number % 64).into(),
                    value: vec![(number % 251) as u8; bytes].into(),
                    ..Default::default()
                };
                kv.put(put).await?;
            }
            Ok::<_, anyhow::Error>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

fn create(key: &str, range_end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_do_not_read_cost_bounded_memory_and_miss_nothing() -> Result<()> {
    // The same short log in memory for both servers, so that it is the queues that are seen.
    let options = Options::new(Kind::under_test()?, 1)
        .flag("--snapshot-count=200")
        .flag("--snapshot-catchup-entries=50")
        .flag("--quota-backend-bytes=4294967296");
    let mut cluster = Cluster::start(&options).await?;
    let pid = cluster.members[0].pid();
    let port = cluster.ports()[0];
    put_values(port, 256, UNREAD_VALUE_BYTES).await?;
    let before = anonymous_bytes(pid.context("a running member")?)?;
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(Stream::open(port, create("w/", "w0")).await?);
    }
    let mut most = 0;
    for _ in 0..8 {
        put_values(port, UNREAD_VALUES / 8, UNREAD_VALUE_BYTES).await?;
        most = most.max(anonymous_bytes(pid.context("a running member")?)?);
    }
    serves_on(&mut cluster, pid).await?;
    let growth = most.saturating_sub(before);
    eprintln!(
        "{} MiB more for eight watchers that do not read",
        growth >> 20
    );
    ensure!(growth < GROWTH_BYTES_MAX, "{} MiB more", growth >> 20);
    // One of them vanishes; another one reads at last, and misses nothing.
    drop(slow.pop());
    let mut late = slow.pop().context("a watcher")?;
    let mut events = 0;
    let mut last = 0;
    while events < UNREAD_VALUES {
        let answer = tokio::time::timeout(DEADLINE, late.answers.message());
        let answer = answer.await.context("the rest of the events")??;
        for event in answer.context("a stream")?.events {
            let revision = event.kv.context("a key")?.mod_revision;
            ensure!(revision > last, "{revision} after {last}");
            (last, events) = (revision, events + 1);
        }
    }
    serves_on(&mut cluster, pid).await
}

const MANY_WATCHES: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_watches_of_one_client_all_work() -> Result<()> {
    let mut cluster = one_member().await?;
    let pid = cluster.members[0].pid();
    let port = cluster.ports()[0];
    let mut stream = Stream::open(port, create("many", "")).await?;
    let requests = stream.requests.clone();
    let asking = tokio::spawn(async move {
        for _ in 1..MANY_WATCHES {
            let union = RequestUnion::CreateRequest(create("many", ""));
            requests.send(request(union)).await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    let mut created = 0;
    while created < MANY_WATCHES {
        let answer = tokio::time::timeout(DEADLINE, stream.answers.message());
        let answer = answer
            .await
            .context("created answers")??
            .context("a stream")?;
        ensure!(answer.created && !answer.canceled, "{answer:?}");
        created += 1;
    }
    asking.await??;
    let mut kv = rpc::kv(rpc::channel(port, DEADLINE)?);
    for _ in 0..2 {
        let put = pb::PutRequest {
            key: "many".into(),
            value: "x".into(),
            ..Default::default()
        };
        let revision = kv
            .put(put)
            .await?
            .into_inner()
            .header
            .context("a header")?
            .revision;
        let mut told = std::collections::BTreeSet::new();
        while told.len() < MANY_WATCHES {
            let answer = tokio::time::timeout(DEADLINE, stream.answers.message());
            let answer = answer.await.context("events")??.context("a stream")?;
            let kv = answer.events.first().and_then(|event| event.kv.as_ref());
            ensure!(answer.events.len() == 1, "{answer:?}");
            ensure!(
                kv.is_some_and(|kv| kv.mod_revision == revision),
                "{answer:?}"
            );
            ensure!(
                told.insert(answer.watch_id),
                "{} is told twice",
                answer.watch_id
            );
        }
    }
    let used = process::usage(pid.context("a running member")?)?;
    eprintln!(
        "{} MB with {MANY_WATCHES} watches",
        used.resident_bytes / 1_000_000
    );
    // The client vanishes without a word; writes go on as before.
    drop(stream);
    put_values(port, 64, 100).await?;
    serves_on(&mut cluster, pid).await
}

/// Half-open calls: headers and then nothing, many at once; then a client that goes away mid-call.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_leave_nothing_behind() -> Result<()> {
    let mut cluster = one_member().await?;
    let pid = cluster.members[0].pid();
    let port = cluster.ports()[0];
    let descriptors = || -> Result<usize> {
        let pid = pid.context("a running member")?;
        Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    };
    let before = descriptors()?;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(Stream::open(port, create("v", "")).await?);
    }
    let during = descriptors()?;
    ensure!(
        during >= before + 190,
        "each stream has its own connection: {before}, {during}"
    );
    drop(streams);
    wait::until("connections that are closed", DEADLINE, async || {
        Ok((descriptors()? <= before + 20).then_some(()))
    })
    .await?;
    serves_on(&mut cluster, pid).await
}
