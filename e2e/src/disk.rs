//! Disks that are full or damaged under one member.

use crate::process::Process;
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a disk is made full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The kernel refuses to let a file grow: for everybody.
    Limit,
    /// A small filesystem in memory is really full: for root.
    Tmpfs,
}

impl Full {
    /// What can be done here.
    pub fn all() -> Vec<Self> {
        if rustix::process::getuid().is_root() {
            vec![Self::Limit, Self::Tmpfs]
        } else {
            vec![Self::Limit]
        }
    }
}

fn run(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(words)
        .output()
        .context(program.to_owned())?;
    ensure!(output.status.success(), "{program} {words:?}: {output:?}");
    Ok(())
}

/// Words to start a server with that gets an error, not a signal, when a file may not grow.
pub fn launcher_of_limit() -> Vec<String> {
    ["env", "--ignore-signal=XFSZ"].map(str::to_owned).into()
}

/// From here on, no file of a running member may grow beyond `bytes`.
///
/// # Errors
/// When it does not run.
pub fn limit_files(member: &Process, bytes: u64) -> Result<()> {
    let pid = member.pid().context("a running member")?;
    let words = [format!("--pid={pid}"), format!("--fsize={bytes}")];
    run("prlimit", &[&words[0], &words[1]])
}

/// A filesystem in memory, which goes when this is dropped.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of `megabytes` at `path`.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount(path: &Path, megabytes: u32) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let options = format!("size={megabytes}m,mode=700");
        let shown = path.to_str().context("a path that is text")?;
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", shown])?;
        Ok(Self(path.to_owned()))
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// When it cannot be mounted anew.
    pub fn resize(&self, megabytes: u32) -> Result<()> {
        let options = format!("remount,size={megabytes}m");
        run("mount", &["-o", &options, self.0.to_str().context("text")?])
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // What still has files open keeps it until it ends.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

/// Flips a bit at each of so many places, spread evenly over the part of a file that is in use.
///
/// # Errors
/// When the file is empty or cannot be written.
pub fn flip_bits(path: &Path, places: usize) -> Result<()> {
    let content = std::fs::read(path)?;
    let used = content.iter().rposition(|byte| *byte != 0);
    let used = used.context("something is in the file")?;
    let file = std::fs::File::options().write(true).open(path)?;
    for place in 1..=places {
        let at = used * place / (places + 1);
        file.write_all_at(&[content[at] ^ 0x10], at as u64)?;
    }
    file.sync_all()?;
    Ok(())
}

/// The largest file below `folder` whose name ends in `end`.
///
/// # Errors
/// When there is none.
pub fn largest(folder: &Path, end: &str) -> Result<PathBuf> {
    let mut found: Option<(u64, PathBuf)> = None;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().ends_with(end)
                && found
                    .as_ref()
                    .is_none_or(|(size, _)| *size < metadata.len())
            {
                found = Some((metadata.len(), entry.path()));
            }
        }
    }
    let found = found.with_context(|| format!("no file {end} in {}", folder.display()))?;
    Ok(found.1)
}
