//! The load generator: callers in closed loops over shared connections, and what they saw.

use crate::flags::VALUE_BYTES;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate_client::{Channel, Client, ClientConfig, TlsConfig};
use quorate_e2e::cluster::Cluster;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest call that a histogram holds, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;

/// Puts in one transaction while a store is filled.
const FILL_BATCH: u64 = 100;

/// What one caller does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Put,
    /// A linearizable read of one key.
    Get,
    /// A serializable read of one key.
    SerializableGet,
    /// Compare the version of a key with a number that it exceeds, then put it.
    Txn,
}

/// One measured run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Operations a second.
    pub rate: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// CPU time of all members together for one operation.
    pub cpu_us: f64,
    /// Resident memory of the largest member at the end.
    pub resident_bytes: f64,
}

/// Whom the load goes to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub cluster: &'a Cluster,
    /// With certificates, all connections are TLS.
    pub tls: Option<&'a TlsConfig>,
}

impl<'a> From<&'a Cluster> for Target<'a> {
    fn from(cluster: &'a Cluster) -> Self {
        Self { cluster, tls: None }
    }
}

/// Channels spread over the members, as many as there are connections; the project's own, because
/// they cost the generator less than tonic's, and what it takes the servers cannot have.
///
/// # Errors
/// When an address is no URI.
pub fn channels(target: Target<'_>, connections: usize) -> Result<Vec<Channel>> {
    let ports = target.cluster.ports();
    let channel = |number: usize| {
        let port = ports[number % ports.len()];
        let config = ClientConfig {
            tls: target.tls.cloned(),
            ..ClientConfig::new([format!("127.0.0.1:{port}")])
        };
        Ok(Client::connect_lazy(config)?.channel())
    };
    (0..connections).map(channel).collect()
}

/// The name of a key by its number.
pub fn key(number: u64) -> Bytes {
    format!("key-{number:012}").into()
}

/// A value that no compression makes small.
pub fn value(random: &mut StdRng) -> Bytes {
    let mut bytes = vec![0; VALUE_BYTES];
    random.fill(&mut bytes[..]);
    bytes.into()
}

/// Runs `clients` callers for the warm-up and the measured time.
///
/// # Errors
/// When a call fails: a rate with failures in it says nothing.
pub async fn run(
    target: Target<'_>,
    work: Work,
    clients: usize,
    connections: usize,
    keys: u64,
    times: (Duration, Duration),
) -> Result<Sample> {
    let cluster = target.cluster;
    let channels = channels(target, connections.min(clients))?;
    let measuring = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for number in 0..clients {
        let caller = Caller {
            kv: KvClient::new(channels[number % channels.len()].clone()),
            random: StdRng::seed_from_u64(number as u64),
            work,
            keys,
            measuring: measuring.clone(),
            stop: stop.clone(),
        };
        tasks.push(tokio::spawn(caller.run()));
    }
    tokio::time::sleep(times.0).await;
    let cpu_before = cpu(cluster)?;
    let start = Instant::now();
    measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(times.1).await;
    measuring.store(false, Ordering::Relaxed);
    let elapsed = start.elapsed();
    let cpu_used = cpu(cluster)?.saturating_sub(cpu_before);
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Histogram::<u64>::new_with_bounds(1, LATENCY_US_MAX, 3)?;
    for task in tasks {
        latencies.add(task.await??)?;
    }
    ensure!(!latencies.is_empty(), "no operation ended in time");
    let operations = latencies.len() as f64;
    Ok(Sample {
        rate: operations / elapsed.as_secs_f64(),
        p50_us: latencies.value_at_quantile(0.5) as f64,
        p99_us: latencies.value_at_quantile(0.99) as f64,
        cpu_us: cpu_used.as_micros() as f64 / operations,
        resident_bytes: resident_bytes_max(cluster)?,
    })
}

struct Caller {
    kv: KvClient<Channel>,
    random: StdRng,
    work: Work,
    keys: u64,
    measuring: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Caller {
    async fn run(mut self) -> Result<Histogram<u64>> {
        let mut latencies = Histogram::<u64>::new_with_bounds(1, LATENCY_US_MAX, 3)?;
        while !self.stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            self.call().await?;
            if self.measuring.load(Ordering::Relaxed) {
                let elapsed_us = start.elapsed().as_micros() as u64;
                latencies.record(elapsed_us.clamp(1, LATENCY_US_MAX))?;
            }
        }
        Ok(latencies)
    }

    async fn call(&mut self) -> Result<()> {
        let key = key(self.random.random_range(0..self.keys));
        match self.work {
            Work::Put => {
                let request = self.put(key);
                self.kv.put(request).await?;
            }
            Work::Get | Work::SerializableGet => {
                let request = pb::RangeRequest {
                    key,
                    serializable: self.work == Work::SerializableGet,
                    ..Default::default()
                };
                let answer = self.kv.range(request).await?.into_inner();
                ensure!(answer.kvs.len() == 1, "a key that was put is there");
            }
            Work::Txn => {
                let compare = pb::Compare {
                    result: pb::compare::CompareResult::Greater as i32,
                    target: pb::compare::CompareTarget::Version as i32,
                    key: key.clone(),
                    target_union: Some(pb::compare::TargetUnion::Version(0)),
                    ..Default::default()
                };
                let request = pb::TxnRequest {
                    compare: vec![compare],
                    success: vec![put_op(self.put(key))],
                    failure: Vec::new(),
                };
                let answer = self.kv.txn(request).await?.into_inner();
                ensure!(answer.succeeded, "a key that was put has a version");
            }
        }
        Ok(())
    }

    fn put(&mut self, key: Bytes) -> pb::PutRequest {
        pb::PutRequest {
            key,
            value: value(&mut self.random),
            ..Default::default()
        }
    }
}

fn put_op(request: pb::PutRequest) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(request)),
    }
}

/// CPU time of all members together.
///
/// # Errors
/// When a member does not run.
pub fn cpu(cluster: &Cluster) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for member in &cluster.members {
        sum += member.usage()?.cpu;
    }
    Ok(sum)
}

/// Resident memory of the largest member.
///
/// # Errors
/// When a member does not run.
pub fn resident_bytes_max(cluster: &Cluster) -> Result<f64> {
    let mut largest = 0;
    for member in &cluster.members {
        largest = largest.max(member.usage()?.resident_bytes);
    }
    Ok(largest as f64)
}

/// Puts `keys` keys into an empty store, many in a transaction.
///
/// # Errors
/// When a call fails.
pub async fn fill(target: Target<'_>, keys: u64) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for (number, channel) in channels(target, 8)?.into_iter().enumerate() {
        let next = next.clone();
        let mut kv = KvClient::new(channel);
        let mut random = StdRng::seed_from_u64(number as u64);
        tasks.push(tokio::spawn(async move {
            loop {
                let first = next.fetch_add(FILL_BATCH, Ordering::Relaxed);
                if first >= keys {
                    return Ok::<_, anyhow::Error>(());
                }
                let puts = (first..keys.min(first + FILL_BATCH)).map(|number| {
                    put_op(pb::PutRequest {
                        key: key(number),
                        value: value(&mut random),
                        ..Default::default()
                    })
                });
                let request = pb::TxnRequest {
                    success: puts.collect(),
                    ..Default::default()
                };
                kv.txn(request).await.context("fill the store")?;
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}
