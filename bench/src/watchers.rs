//! Watch fan-out: a thousand watchers of one key, and how many events a second reach them.

use crate::load::{self, Sample};
use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use quorate_e2e::cluster::Cluster;
use quorate_e2e::rpc;
use quorate_proto::etcdserverpb as pb;
use rand::{SeedableRng, rngs::StdRng};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tonic::transport::Channel;

const STREAMS: usize = 50;
const WATCHERS_PER_STREAM: usize = 20;
const KEY: &str = "watched";

/// Puts one key in a closed loop and counts what the watchers get, until they have all of it.
///
/// # Errors
/// When a stream ends early or a call fails.
pub async fn run(cluster: &Cluster, duration: Duration) -> Result<Sample> {
    let ports = cluster.ports();
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let channel = rpc::stream_channel(ports[number % ports.len()])?;
        streams.push(open(channel).await?);
    }
    let cpu_before = load::cpu(cluster)?;
    let start = Instant::now();
    let (last, latest) = tokio::sync::watch::channel(0_i64);
    let readers: Vec<_> = streams
        .into_iter()
        .map(|stream| tokio::spawn(read(stream, latest.clone())))
        .collect();
    let mut kv = rpc::kv(rpc::channel(ports[0], Duration::from_secs(60))?);
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let mut random = StdRng::seed_from_u64(0);
    let mut revision = 0;
    while start.elapsed() < duration {
        let call = Instant::now();
        let request = pb::PutRequest {
            key: KEY.into(),
            value: load::value(&mut random),
            ..Default::default()
        };
        let answer = kv.put(request).await?.into_inner();
        revision = answer.header.context("a header")?.revision;
        latencies.record((call.elapsed().as_micros() as u64).max(1))?;
    }
    last.send(revision)?;
    let mut events = 0;
    for reader in readers {
        events += reader.await??;
    }
    let elapsed = start.elapsed();
    let expected = latencies.len() * (STREAMS * WATCHERS_PER_STREAM) as u64;
    ensure!(events == expected, "{events} events instead of {expected}");
    let cpu = load::cpu(cluster)?.saturating_sub(cpu_before);
    Ok(Sample {
        rate: events as f64 / elapsed.as_secs_f64(),
        p50_us: latencies.value_at_quantile(0.5) as f64,
        p99_us: latencies.value_at_quantile(0.99) as f64,
        cpu_us: cpu.as_micros() as f64 / events as f64,
        resident_bytes: load::resident_bytes_max(cluster)?,
    })
}

struct Stream {
    answers: tonic::Streaming<pb::WatchResponse>,
    /// Held, because its end would end the stream.
    _requests: mpsc::Sender<pb::WatchRequest>,
}

async fn open(channel: Channel) -> Result<Stream> {
    let (requests, receiver) = mpsc::channel(WATCHERS_PER_STREAM);
    for _ in 0..WATCHERS_PER_STREAM {
        let create = pb::WatchCreateRequest {
            key: KEY.into(),
            ..Default::default()
        };
        let request = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
        };
        requests.send(request).await?;
    }
    let outgoing = futures::stream::unfold(receiver, |mut receiver| async move {
        let request = receiver.recv().await?;
        Some((request, receiver))
    });
    let mut answers = rpc::watch(channel).watch(outgoing).await?.into_inner();
    for _ in 0..WATCHERS_PER_STREAM {
        let answer = answers.message().await?.context("a created answer")?;
        ensure!(answer.created, "watchers are created first");
    }
    Ok(Stream {
        answers,
        _requests: requests,
    })
}

/// Counts events until every watcher of the stream has seen the last revision.
async fn read(mut stream: Stream, mut last: tokio::sync::watch::Receiver<i64>) -> Result<u64> {
    let mut events = 0;
    let mut seen = [0_i64; WATCHERS_PER_STREAM];
    loop {
        let target = *last.borrow_and_update();
        if target > 0 && seen.iter().all(|&revision| revision >= target) {
            return Ok(events);
        }
        tokio::select! {
            answer = stream.answers.message() => {
                let answer = answer?.context("the stream goes on")?;
                events += answer.events.len() as u64;
                let newest = answer.events.last().and_then(|event| event.kv.as_ref());
                if let Some(kv) = newest {
                    seen[usize::try_from(answer.watch_id)?] = kv.mod_revision;
                }
            }
            changed = last.changed(), if target == 0 => changed?,
        }
    }
}
