//! What the operating system knows of this process, under Prometheus' standard names.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Linux counts processor time in hundredths of a second for every program (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
const KIBIBYTE: i64 = 1024;

/// Reads `/proc` at each scrape.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = read("/proc/self/status");
        let files = open_files();
        let files_max = field(&read("/proc/self/limits"), "Max open files");
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes",
                field(&status, "VmRSS:").map(|kib| kib * KIBIBYTE),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes",
                field(&status, "VmSize:").map(|kib| kib * KIBIBYTE),
            ),
            ("process_open_fds", "Number of open file descriptors", files),
            (
                "process_max_fds",
                "Maximum number of open file descriptors",
                files_max,
            ),
            ("os_fd_used", "The number of used file descriptors", files),
            ("os_fd_limit", "The file descriptor limit", files_max),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
                gauge.encode(metric)?;
            }
        }
        if let Some((cpu_seconds, start_seconds)) = times() {
            let cpu = ConstCounter::new(cpu_seconds);
            let metric = encoder.encode_descriptor(
                "process_cpu_seconds",
                "Total user and system CPU time spent in seconds",
                None,
                cpu.metric_type(),
            )?;
            cpu.encode(metric)?;
            let start = ConstGauge::new(start_seconds);
            let metric = encoder.encode_descriptor(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds",
                None,
                start.metric_type(),
            )?;
            start.encode(metric)?;
        }
        Ok(())
    }
}

/// A file of `/proc`; empty where there is none, and then its metrics are left out.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The first number behind a label at the start of a line.
fn field(text: &str, label: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_files() -> Option<i64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    i64::try_from(entries.count()).ok()
}

/// Processor time used, and when the process started since 1970, both in seconds.
fn times() -> Option<(f64, f64)> {
    let stat = read("/proc/self/stat");
    // The name of the program, in parentheses, may hold spaces; what follows does not.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let cpu = (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
    let boot = field(&read("/proc/stat"), "btime")? as f64;
    Some((cpu, boot + ticks(19)? / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn the_values_are_those_of_a_live_process() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let text = crate::telemetry::exposition::text(&registry);
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")))
                .unwrap_or_else(|| panic!("{name} is missing in {text}"));
            line.rsplit(' ')
                .next()
                .expect("a value")
                .parse()
                .expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = jiff::Timestamp::now().as_second() as f64;
        let started = value("process_start_time_seconds");
        assert!(
            started <= now + 1.0 && started > now - 1e6,
            "{started} {now}"
        );
    }
}
