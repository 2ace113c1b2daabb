//! The names of Pods, for programs that ask the system: a hosts file of their own.
//!
//! Each program runs in a mount namespace in which that file lies over `/etc/hosts`. An
//! unprivileged user may make one inside a user namespace; where neither is allowed, root can
//! still write the machine's own file, which is what happens in a plain container.

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SYSTEM: &str = "/etc/hosts";

/// Puts the first argument over the system's file and becomes the rest.
const ENTER: &str = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;

/// How programs come to see the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `unshare` with these flags, then a bind mount.
    Namespace(&'static [&'static str]),
    /// The machine's own file, between two marks.
    System,
}

/// The names and how programs come to see them.
#[derive(Debug)]
pub(super) struct Names {
    file: PathBuf,
    way: Way,
    /// By who has them. Held while the file is written.
    entries: Mutex<BTreeMap<String, (Ipv4Addr, Vec<String>)>>,
}

impl Names {
    /// Finds a way that this machine allows.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn new(directory: &Path) -> Result<Self> {
        let file = directory.join("hosts");
        std::fs::write(&file, "127.0.0.1 localhost\n")?;
        let names = Self {
            way: find_way(&file)?,
            file,
            entries: Mutex::default(),
        };
        names.write(&BTreeMap::new())?;
        Ok(names)
    }

    /// In words, for the log.
    pub(super) fn way(&self) -> String {
        match self.way {
            Way::Namespace(flags) => format!("a mount namespace ({})", flags.join(" ")),
            Way::System => format!("the machine's own {SYSTEM}"),
        }
    }

    /// Gives names to an address, in place of those that `owner` had.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn set(&self, owner: &str, address: Ipv4Addr, names: Vec<String>) -> Result<()> {
        let mut entries = self.entries.lock();
        entries.insert(owner.to_owned(), (address, names));
        self.write(&entries)
    }

    /// Takes the names away again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn remove(&self, owner: &str) -> Result<()> {
        let mut entries = self.entries.lock();
        match entries.remove(owner) {
            Some(_) => self.write(&entries),
            None => Ok(()),
        }
    }

    /// The command line that runs `program` where the names are known.
    pub(super) fn command(&self, program: &Path) -> (OsString, Vec<OsString>) {
        let Way::Namespace(flags) = self.way else {
            return (program.into(), Vec::new());
        };
        let mut args: Vec<OsString> = flags.iter().map(OsString::from).collect();
        args.extend(["--", "sh", "-c", ENTER, "sh"].map(OsString::from));
        args.extend([self.file.clone().into(), program.into()]);
        ("unshare".into(), args)
    }

    /// In place, since a file that is mounted must stay the same file.
    fn write(&self, entries: &BTreeMap<String, (Ipv4Addr, Vec<String>)>) -> Result<()> {
        let mut text = String::new();
        for (address, names) in entries.values() {
            text.push_str(&format!("{address} {}\n", names.join(" ")));
        }
        match self.way {
            Way::Namespace(_) => overwrite(&self.file, &format!("127.0.0.1 localhost\n{text}")),
            Way::System => overwrite(Path::new(SYSTEM), &with_block(&self.file, &text)?),
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if self.way == Way::System {
            // The machine's file is as it was, but for a failure that nobody can be told of here.
            with_block(&self.file, "")
                .and_then(|text| overwrite(Path::new(SYSTEM), &text))
                .ok();
        }
    }
}

/// One write, so that a reader sees the old names or the new ones.
fn overwrite(file: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(file)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)?;
    Ok(())
}

/// The system's file with our part of it replaced.
fn with_block(owner: &Path, text: &str) -> Result<String> {
    let begin = format!("# begin {}", owner.display());
    let end = format!("# end {}", owner.display());
    let mut kept = String::new();
    let mut is_ours = false;
    for line in std::fs::read_to_string(SYSTEM)?.lines() {
        is_ours |= line == begin;
        if !is_ours {
            kept.push_str(line);
            kept.push('\n');
        }
        is_ours &= line != end;
    }
    Ok(match text.is_empty() {
        true => kept,
        false => format!("{kept}{begin}\n{text}{end}\n"),
    })
}

fn find_way(file: &Path) -> Result<Way> {
    let mut refusals = Vec::new();
    let ways: [&'static [&'static str]; 2] = [&["--mount"], &["--map-root-user", "--mount"]];
    for flags in ways {
        let output = Command::new("unshare")
            .args(flags)
            .args(["--", "sh", "-c", ENTER, "sh"])
            .arg(file)
            .arg("true")
            .stdin(Stdio::null())
            .output()
            .context("unshare of util-linux")?;
        if output.status.success() {
            return Ok(Way::Namespace(flags));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        refusals.push(format!("unshare {}: {}", flags.join(" "), said.trim()));
    }
    match std::fs::OpenOptions::new().write(true).open(SYSTEM) {
        Ok(_) => Ok(Way::System),
        Err(error) => bail!(
            "no way to give Pods their names: {}; {SYSTEM}: {error}. Run as root, or allow user \
             namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0)",
            refusals.join("; ")
        ),
    }
}
