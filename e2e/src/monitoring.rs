//! What a Prometheus would see of a cluster, for promtool to judge alerts on: two real scrapes with
//! some time between them, and what follows if it went on like that for half an hour.

use crate::cluster::Cluster;
use crate::raw;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The job of the scrapes; the alerts want "etcd" in it.
const JOB: &str = "quorate-etcd";
/// As often as the alerts suppose that one scrapes.
const INTERVAL_SECONDS: f64 = 30.0;
/// For so many scrapes it goes on: longer than any alert waits.
const STEPS: usize = 80;
/// When the alerts are looked at.
const EVALUATED_AT: &str = "39m";

/// One scrape of all members.
#[derive(Debug, Clone)]
pub struct Scrape {
    at: Instant,
    /// By member: its samples, or none when it does not answer.
    members: BTreeMap<String, Option<Samples>>,
}

/// By series, as it stands in the text: its value, and whether it only grows.
type Samples = BTreeMap<String, (f64, bool)>;

impl Scrape {
    /// Asks every member for its metrics.
    ///
    /// # Errors
    /// When a member that runs does not answer, or tells nonsense.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let mut members = BTreeMap::new();
        for member in &cluster.members {
            let samples = match member.pid() {
                Some(_) => Some(parse(&text(member.spec.client_port).await?)?),
                None => None,
            };
            members.insert(member.spec.name.clone(), samples);
        }
        Ok(Self {
            at: Instant::now(),
            members,
        })
    }

    /// The value of a series of a member.
    pub fn value(&self, member: &str, series: &str) -> Option<f64> {
        let samples = self.members.get(member)?.as_ref()?;
        samples.get(series).map(|sample| sample.0)
    }

    /// How many series of a member begin so.
    pub fn series(&self, member: &str, begin: &str) -> usize {
        let samples = self.members.get(member).and_then(Option::as_ref);
        let names = samples.into_iter().flat_map(BTreeMap::keys);
        names.filter(|name| name.starts_with(begin)).count()
    }

    /// Changes what the members told, for what cannot be brought about in a test.
    pub fn alter(&mut self, mut change: impl FnMut(&str, &mut f64)) {
        for samples in self.members.values_mut().flatten() {
            for (series, (value, _)) in samples {
                change(series, value);
            }
        }
    }
}

/// Everything that `/metrics` says.
///
/// # Errors
/// When the member does not answer.
pub async fn text(port: u16) -> Result<String> {
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = String::from_utf8(raw::send(port, request).await?)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

fn parse(text: &str) -> Result<Samples> {
    let mut samples = Samples::new();
    let mut gauges = Vec::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            gauges.extend(kind.strip_suffix(" gauge"));
        }
        let Some((series, value)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let name = series.split('{').next().unwrap_or_default();
        let grows = !gauges.contains(&name);
        let value = value.parse().with_context(|| line.to_owned())?;
        samples.insert(series.to_owned(), (value, grows));
    }
    ensure!(
        samples.len() > 100,
        "only {} samples: {text}",
        samples.len()
    );
    Ok(samples)
}

/// What becomes of gauges after the second scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gauges {
    /// They stay.
    Stay,
    /// They go on as they went from the first scrape to the second.
    GoOn,
}

/// Lets promtool judge `rules`; the names of the alerts that fire must be just `expected`.
///
/// # Errors
/// When others fire, or promtool cannot be run.
pub fn judge(
    rules: &Path,
    (first, second): (&Scrape, &Scrape),
    gauges: Gauges,
    expected: &[&str],
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let test = folder.path().join("test.yml");
    std::fs::write(&test, test_file(rules, first, second, gauges, expected)?)?;
    let mut promtool = Command::new("promtool");
    let output = promtool
        .args(["test", "rules"])
        .arg(&test)
        .output()
        .context("promtool, which `make test` installs")?;
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    ensure!(output.status.success(), "not just {expected:?}: {told}");
    Ok(())
}

fn test_file(
    rules: &Path,
    first: &Scrape,
    second: &Scrape,
    gauges: Gauges,
    expected: &[&str],
) -> Result<String> {
    let elapsed = (second.at - first.at).as_secs_f64();
    let mut text = format!(
        "rule_files: ['{}']\nevaluation_interval: 30s\ntests:\n- interval: 30s\n  input_series:\n",
        rules.canonicalize()?.display()
    );
    for (member, samples) in &second.members {
        let up = i32::from(samples.is_some());
        let labels = format!("job=\"{JOB}\",instance=\"{member}\"");
        writeln!(text, "  - series: 'up{{{labels}}}'")?;
        writeln!(text, "    values: '{up}+0x{STEPS}'")?;
        for (series, (value, grows)) in samples.iter().flatten() {
            let before = first.value(member, series);
            let step = match gauges {
                Gauges::Stay if !grows => 0.0,
                Gauges::Stay | Gauges::GoOn => {
                    // A counter that is not there yet is 0.
                    (value - before.unwrap_or(0.0)) / elapsed * INTERVAL_SECONDS
                }
            };
            let (name, more) = match series.split_once('{') {
                Some((name, rest)) => (name, format!(",{}", rest.trim_end_matches('}'))),
                None => (series.as_str(), String::new()),
            };
            let series = format!("{name}{{{labels}{more}}}").replace('\'', "''");
            writeln!(text, "  - series: '{series}'")?;
            writeln!(text, "    values: '{value:.9}{step:+.9}x{STEPS}'")?;
        }
    }
    text += "  promql_expr_test:\n";
    text += "  - expr: group by (alertname) (ALERTS{alertstate=\"firing\"})\n";
    writeln!(text, "    eval_time: {EVALUATED_AT}")?;
    let samples = if expected.is_empty() { " []" } else { "" };
    writeln!(text, "    exp_samples:{samples}")?;
    for name in expected {
        writeln!(text, "    - labels: '{{alertname=\"{name}\"}}'")?;
        text += "      value: 1\n";
    }
    Ok(text)
}
