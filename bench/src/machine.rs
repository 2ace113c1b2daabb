//! The machine that was measured, without its name.

use anyhow::{Context, Result};
use std::path::Path;

/// One sentence: cores, memory, kernel, filesystem.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn describe(data_dir: &Path) -> Result<String> {
    let cores = std::thread::available_parallelism()?;
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = field(&cpu, "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory_kb = field(&memory, "MemTotal").context("MemTotal")?;
    let memory_kb: u64 = memory_kb.trim_end_matches(" kB").trim().parse()?;
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    Ok(format!(
        "{cores} cores ({model}), {:.0} GiB of memory, Linux {release}, {}",
        memory_kb as f64 / f64::from(1 << 20),
        filesystem(data_dir)?
    ))
}

fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The type of the filesystem that holds the data, by the longest mount point above it.
fn filesystem(data_dir: &Path) -> Result<String> {
    let data_dir = data_dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let above = mounts.filter(|(point, _)| data_dir.starts_with(point));
    let deepest = above.max_by_key(|(point, _)| point.len());
    Ok(deepest.context("a root filesystem")?.1.to_owned())
}
