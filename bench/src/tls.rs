//! Puts and gets over TLS, between clients and members and between members: what it adds to the
//! servers' CPU.

use crate::flags::Flags;
use crate::load::{self, Sample, Target, Work};
use crate::report::{Line, Report};
use crate::rows::{Measure, Row, median, turns};
use anyhow::{Context, Result};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options, specs};
use quorate_e2e::process::Process;
use quorate_e2e::secure::{Files, Sides, ready, set_urls};
use std::collections::BTreeMap;

/// The name of these rows for `--only`.
pub const NAME: &str = "tls";

const ROWS: [Row; 2] = [
    Row {
        name: "put",
        title: "put over TLS",
        measure: Measure::Load(Work::Put, None),
        line: Line::new("CPU ≤ 1x").cpu(1.0),
    },
    Row {
        name: "get",
        title: "linearizable get over TLS",
        measure: Measure::Load(Work::Get, None),
        line: Line::new("CPU ≤ 1x").cpu(1.0),
    },
];

/// Measures both servers in turns, on clusters of each size.
///
/// # Errors
/// When a server does not start or a call fails.
pub async fn run(flags: &Flags, report: &mut Report) -> Result<()> {
    let files = Files::new()?;
    let tls = files.tls();
    for &members in &flags.members {
        let mut clusters = Vec::new();
        for kind in flags.servers() {
            let cluster = start(flags, kind, members, &files).await?;
            let target = Target {
                cluster: &cluster,
                tls: Some(&tls),
            };
            load::fill(target, flags.keys)
                .await
                .with_context(|| format!("fill {}", kind.name()))?;
            clusters.push((kind, cluster));
        }
        let mut samples: BTreeMap<(&str, &str), Vec<Sample>> = BTreeMap::new();
        for round in 0..flags.rounds() {
            for row in &ROWS {
                for (kind, cluster) in turns(&clusters, round) {
                    let target = Target {
                        cluster,
                        tls: Some(&tls),
                    };
                    let sample = measure(flags, row, target).await?;
                    report.progress(kind, members, row, &sample)?;
                    let of = samples.entry((row.name, kind.name())).or_default();
                    of.push(sample);
                }
            }
        }
        for row in &ROWS {
            let of = |kind: Kind| samples.get(&(row.name, kind.name())).map(|s| median(s));
            report.add(row, members, of(Kind::Etcd), of(Kind::Quorate));
        }
    }
    Ok(())
}

async fn start(flags: &Flags, kind: Kind, members: usize, files: &Files) -> Result<Cluster> {
    let mut options = Options::new(kind, members);
    options.parent.clone_from(&flags.data_dir);
    options.extra_flags = files.flags(Sides::BOTH);
    let (mut specs, dir) = specs(&options)?;
    set_urls(&mut specs, Sides::BOTH);
    let members = specs.into_iter().map(Process::start);
    let mut cluster = Cluster::from_parts(members.collect::<Result<_>>()?, dir);
    for member in &mut cluster.members {
        ready(member, true, Some(files.tls())).await?;
    }
    Ok(cluster)
}

async fn measure(flags: &Flags, row: &Row, target: Target<'_>) -> Result<Sample> {
    let Measure::Load(work, _) = row.measure else {
        anyhow::bail!("{} is no row over TLS", row.name);
    };
    let times = (flags.warm_up(), flags.measure());
    let (clients, connections) = (flags.clients, flags.connections);
    load::run(target, work, clients, connections, flags.keys, times).await
}
