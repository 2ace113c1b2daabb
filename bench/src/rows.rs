//! Rates, latencies and CPU: rounds in which the servers take turns, row by row.

use crate::flags::Flags;
use crate::load::{self, Sample, Work};
use crate::report::{Line, Report};
use crate::watchers;
use anyhow::{Context, Result};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use std::collections::BTreeMap;

/// What a row measures.
#[derive(Clone, Copy, Debug)]
pub enum Measure {
    /// Callers in closed loops; `Some(1)` for a lone one.
    Load(Work, Option<usize>),
    Watch,
}

/// A row of the table, for one size of cluster.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub title: &'static str,
    pub measure: Measure,
    /// The first line to cross, as ratios to etcd.
    pub line: Line,
}

const ROWS: [Row; 6] = [
    Row {
        name: "put",
        title: "put",
        measure: Measure::Load(Work::Put, None),
        line: Line::new("CPU ≤ 1/3, rate ≥ 2x").cpu(1.0 / 3.0).rate(2.0),
    },
    Row {
        name: "get",
        title: "linearizable get",
        measure: Measure::Load(Work::Get, None),
        line: Line::new("CPU ≤ 1/2").cpu(0.5),
    },
    Row {
        name: "sget",
        title: "serializable get",
        measure: Measure::Load(Work::SerializableGet, None),
        line: Line::new("CPU ≤ 1/2.5").cpu(0.4),
    },
    Row {
        name: "txn",
        title: "txn (compare + put)",
        measure: Measure::Load(Work::Txn, None),
        line: Line::new("CPU ≤ 1/3, rate ≥ 2x").cpu(1.0 / 3.0).rate(2.0),
    },
    Row {
        name: "put-one",
        title: "put, one client",
        measure: Measure::Load(Work::Put, Some(1)),
        line: Line::new("p50 ≤ 0.7x, CPU ≤ 1/2").p50(0.7).cpu(0.5),
    },
    Row {
        name: "watch",
        title: "watch: 1,000 watchers of one key, events",
        measure: Measure::Watch,
        line: Line::new("rate ≥ 1x").rate(1.0),
    },
];

/// Whether `name` is one of these rows.
pub fn is_row(name: &str) -> bool {
    ROWS.iter().any(|row| row.name == name)
}

/// Measures all rows that are asked for on clusters of `members` members.
///
/// # Errors
/// When a server does not start or a call fails.
pub async fn run(flags: &Flags, members: usize, report: &mut Report) -> Result<()> {
    let mut clusters = Vec::new();
    for kind in flags.servers() {
        let mut options = Options::new(kind, members);
        options.parent.clone_from(&flags.data_dir);
        let cluster = Cluster::start(&options).await?;
        load::fill((&cluster).into(), flags.keys)
            .await
            .with_context(|| format!("fill {}", kind.name()))?;
        clusters.push((kind, cluster));
    }
    let mut samples: BTreeMap<(usize, &'static str), Vec<Sample>> = BTreeMap::new();
    for round in 0..flags.rounds() {
        for (number, row) in ROWS.iter().enumerate() {
            if !flags.wants(row.name) {
                continue;
            }
            for (kind, cluster) in turns(&clusters, round) {
                let sample = measure(flags, row, cluster)
                    .await
                    .with_context(|| format!("{} of {}", row.name, kind.name()))?;
                report.progress(kind, members, row, &sample)?;
                samples
                    .entry((number, kind.name()))
                    .or_default()
                    .push(sample);
            }
        }
    }
    for (number, row) in ROWS.iter().enumerate() {
        let of = |kind: Kind| samples.get(&(number, kind.name())).map(|s| median(s));
        report.add(row, members, of(Kind::Etcd), of(Kind::Quorate));
    }
    report.add_memory(members, &clusters, flags.keys)?;
    Ok(())
}

/// Who goes first changes from round to round.
pub fn turns(clusters: &[(Kind, Cluster)], round: usize) -> Vec<(Kind, &Cluster)> {
    let mut turns: Vec<_> = clusters.iter().map(|(kind, c)| (*kind, c)).collect();
    let count = turns.len();
    turns.rotate_left(round % count);
    turns
}

async fn measure(flags: &Flags, row: &Row, cluster: &Cluster) -> Result<Sample> {
    let times = (flags.warm_up(), flags.measure());
    match row.measure {
        Measure::Load(work, clients) => {
            let clients = clients.unwrap_or(flags.clients);
            let connections = flags.connections;
            load::run(
                cluster.into(),
                work,
                clients,
                connections,
                flags.keys,
                times,
            )
            .await
        }
        Measure::Watch => watchers::run(cluster, flags.measure()).await,
    }
}

/// The median of each figure by itself.
pub fn median(samples: &[Sample]) -> Sample {
    let middle = |figure: fn(&Sample) -> f64| {
        let mut figures: Vec<f64> = samples.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Sample {
        rate: middle(|s| s.rate),
        p50_us: middle(|s| s.p50_us),
        p99_us: middle(|s| s.p99_us),
        cpu_us: middle(|s| s.cpu_us),
        resident_bytes: middle(|s| s.resident_bytes),
    }
}
