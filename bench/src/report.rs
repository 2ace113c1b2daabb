//! The table: etcd, Quorate, their ratio, and the first line to cross beside it.

use crate::flags::{Flags, VALUE_BYTES};
use crate::load::{self, Sample};
use crate::machine;
use crate::rows::Row;
use anyhow::Result;
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::Cluster;
use std::fmt::Write as _;
use std::io::Write as _;

/// The first line to cross: ratios of Quorate to etcd.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    pub text: &'static str,
    cpu_max: Option<f64>,
    rate_min: Option<f64>,
    p50_max: Option<f64>,
    figure_max: Option<f64>,
    ours_max: Option<f64>,
}

impl Line {
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            cpu_max: None,
            rate_min: None,
            p50_max: None,
            figure_max: None,
            ours_max: None,
        }
    }

    pub const fn cpu(mut self, ratio_max: f64) -> Self {
        self.cpu_max = Some(ratio_max);
        self
    }

    pub const fn rate(mut self, ratio_min: f64) -> Self {
        self.rate_min = Some(ratio_min);
        self
    }

    pub const fn p50(mut self, ratio_max: f64) -> Self {
        self.p50_max = Some(ratio_max);
        self
    }

    pub const fn figure(mut self, ratio_max: f64) -> Self {
        self.figure_max = Some(ratio_max);
        self
    }

    /// A line that is drawn by a figure, not by etcd.
    pub const fn ours(mut self, max: f64) -> Self {
        self.ours_max = Some(max);
        self
    }

    fn crossed(&self, etcd: &Sample, ours: &Sample) -> bool {
        let at_most = |limit: Option<f64>, ratio: f64| limit.is_none_or(|max| ratio <= max);
        at_most(self.cpu_max, ours.cpu_us / etcd.cpu_us)
            && at_most(self.p50_max, ours.p50_us / etcd.p50_us)
            && self.rate_min.is_none_or(|min| ours.rate / etcd.rate >= min)
    }
}

/// The rows so far, as lines of Markdown.
#[derive(Debug, Default)]
pub struct Report {
    loads: String,
    plain: String,
}

impl Report {
    /// Tells the one who waits how it goes.
    ///
    /// # Errors
    /// When standard error is closed.
    pub fn progress(&self, kind: Kind, members: usize, row: &Row, sample: &Sample) -> Result<()> {
        writeln!(
            std::io::stderr(),
            "{:8} {members} members  {:8} {}",
            kind.name(),
            row.name,
            cell(Some(sample))
        )?;
        Ok(())
    }

    /// Tells the one who waits a figure.
    ///
    /// # Errors
    /// When standard error is closed.
    pub fn told(&self, kind: Kind, what: &str) -> Result<()> {
        writeln!(std::io::stderr(), "{:8} {what}", kind.name())?;
        Ok(())
    }

    /// Adds a row of rates; a server that was not measured has none.
    pub fn add(&mut self, row: &Row, members: usize, etcd: Option<Sample>, ours: Option<Sample>) {
        if etcd.is_none() && ours.is_none() {
            return;
        }
        let title = format!("{}, {members} member{}", row.title, plural(members));
        let (ratio, verdict) = match (&etcd, &ours) {
            (Some(etcd), Some(ours)) => (ratios(etcd, ours), yes_no(row.line.crossed(etcd, ours))),
            _ => ("–".to_owned(), "–"),
        };
        push(
            &mut self.loads,
            &[
                &title,
                &cell(etcd.as_ref()),
                &cell(ours.as_ref()),
                &ratio,
                row.line.text,
                verdict,
            ],
        );
    }

    /// Adds a row of one figure.
    pub fn add_plain(
        &mut self,
        title: &str,
        unit: &str,
        etcd: Option<f64>,
        ours: Option<f64>,
        line: Line,
    ) {
        let figure = |value: Option<f64>| match value {
            Some(value) => format!("{} {unit}", rounded(value)),
            None => "–".to_owned(),
        };
        let within = |limit: Option<f64>, value: f64| limit.is_none_or(|max| value <= max);
        let (ratio, verdict) = match (etcd, ours) {
            (Some(etcd), Some(ours)) => {
                let ratio = ours / etcd;
                let crossed = within(line.figure_max, ratio) && within(line.ours_max, ours);
                (format!("{ratio:.3}x"), yes_no(crossed))
            }
            (None, Some(ours)) if line.ours_max.is_some() => {
                ("–".to_owned(), yes_no(within(line.ours_max, ours)))
            }
            _ => ("–".to_owned(), "–"),
        };
        let verdict = if line.text.is_empty() { "–" } else { verdict };
        push(
            &mut self.plain,
            &[
                title,
                &figure(etcd),
                &figure(ours),
                &ratio,
                line.text,
                verdict,
            ],
        );
    }

    /// Adds the memory of the largest member after all rows.
    ///
    /// # Errors
    /// When a member does not run.
    pub fn add_memory(
        &mut self,
        members: usize,
        clusters: &[(Kind, Cluster)],
        keys: u64,
    ) -> Result<()> {
        let mut figures = [None, None];
        for (kind, cluster) in clusters {
            let megabytes = load::resident_bytes_max(cluster)? / 1e6;
            figures[usize::from(*kind == Kind::Quorate)] = Some(megabytes);
        }
        let title = format!(
            "memory of the largest of {members} member{}, {keys} keys, after all rows",
            plural(members)
        );
        self.add_plain(
            &title,
            "MB",
            figures[0],
            figures[1],
            Line::new("≤ 1x").figure(1.0),
        );
        Ok(())
    }

    /// The tables.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.loads.is_empty() {
            text += "| | etcd 3.7.3 | Quorate | ratio | first line to cross | crossed |\n";
            text += "|---|---|---|---|---|---|\n";
            text += &self.loads;
            text.push('\n');
        }
        if !self.plain.is_empty() {
            text += "| | etcd 3.7.3 | Quorate | ratio | first line to cross | crossed |\n";
            text += "|---|---|---|---|---|---|\n";
            text += &self.plain;
        }
        text
    }

    /// The page for `docs/`.
    ///
    /// # Errors
    /// When the machine cannot be described.
    pub fn document(&self, flags: &Flags) -> Result<String> {
        let folder = flags.data_dir.clone().unwrap_or_else(std::env::temp_dir);
        let mut page = String::from("# Benchmarks\n\n");
        write!(
            page,
            "`make bench` writes this page. Quorate beside the real etcd 3.7.3, both with fsync on \
             and default settings, interleaved on one machine: {}. The load generator runs on the \
             same machine and takes part of it, so rates are bound by it too; the servers' CPU for \
             an operation carries over better. Values of {VALUE_BYTES} random bytes, {} keys, {} \
             clients on {} connections, medians of {} rounds of {} s. Rows of rates read: rate · \
             p50/p99 · CPU of all members together for one operation · resident memory of the \
             largest member.\n\n",
            machine::describe(&folder)?,
            flags.keys,
            flags.clients,
            flags.connections,
            flags.rounds(),
            flags.measure().as_secs(),
        )?;
        page += &self.text();
        Ok(page)
    }
}

fn push(table: &mut String, cells: &[&str]) {
    *table += "| ";
    *table += &cells.join(" | ");
    *table += " |\n";
}

fn cell(sample: Option<&Sample>) -> String {
    let Some(sample) = sample else {
        return "–".to_owned();
    };
    format!(
        "{}/s · {}/{} ms · {} µs · {} MB",
        rounded(sample.rate),
        rounded(sample.p50_us / 1e3),
        rounded(sample.p99_us / 1e3),
        rounded(sample.cpu_us),
        rounded(sample.resident_bytes / 1e6),
    )
}

fn ratios(etcd: &Sample, ours: &Sample) -> String {
    format!(
        "rate {:.2}x · p50 {:.2}x · CPU 1/{:.1} · memory {:.2}x",
        ours.rate / etcd.rate,
        ours.p50_us / etcd.p50_us,
        etcd.cpu_us / ours.cpu_us,
        ours.resident_bytes / etcd.resident_bytes,
    )
}

/// Three figures that count.
fn rounded(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "**no**" }
}
