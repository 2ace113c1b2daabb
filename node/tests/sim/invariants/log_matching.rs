//! Entries of two logs with the same index and term are the same, and so are all before them.

use std::path::{Path, PathBuf};

use quorate::storage::log::{Entry, Log, Options};

/// Compares the logs of members that are down.
pub fn check(directories: &[PathBuf]) {
    let logs: Vec<Vec<Entry>> = directories
        .iter()
        .map(|directory| read(directory))
        .collect();
    let mut compared = 0;
    for (at, log) in logs.iter().enumerate() {
        for other in &logs[..at] {
            compared += compare(log, other);
        }
    }
    assert!(compared > 0, "the logs have nothing in common");
}

fn read(directory: &Path) -> Vec<Entry> {
    let identity = quorate::storage::log::Identity {
        member_id: member(directory),
        cluster_id: crate::sim::cluster::CLUSTER_ID,
    };
    let options = Options {
        identity,
        ..Options::default()
    };
    let (log, recovered) = Log::open(&directory.join("log"), options).expect("a sound log");
    assert_eq!(recovered.torn_bytes, 0, "it was closed in peace");
    log.read(0..u64::MAX, usize::MAX).expect("a readable log")
}

/// The member's ID, from `member-<id>-life-<n>`.
fn member(directory: &Path) -> u64 {
    let name = directory.file_name().and_then(|name| name.to_str());
    let id = name.and_then(|name| name.split('-').nth(1)?.parse().ok());
    id.unwrap_or_else(|| panic!("{} names no member", directory.display()))
}

/// Compares from the end: once index and term are the same, all must be, down to where one log
/// begins. Returns how many entries that were.
fn compare(log: &[Entry], other: &[Entry]) -> usize {
    let mut same = 0;
    for entry in log.iter().rev() {
        let Some(first) = other.first() else { break };
        let Some(at) = entry.index.checked_sub(first.index) else {
            break;
        };
        let Some(twin) = other.get(usize::try_from(at).expect("a small log")) else {
            continue;
        };
        if same > 0 || twin.term == entry.term {
            assert!(twin == entry, "entry {} differs", entry.index);
            same += 1;
        }
    }
    same
}
