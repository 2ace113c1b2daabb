//! Sorts the versions of all keys by key, with bounded memory: what comes by revision is written
//! out in sorted runs, which are then merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::Error;

/// Memory for what is not yet written out.
const RUN_BYTES: usize = 32 * 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;
/// Bytes of a row before its key: two lengths, revision, lease.
const HEAD_BYTES: usize = 4 + 4 + 8 + 8 + 8;
/// The length that stands for no live value.
const DELETED: u32 = u32::MAX;

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) key: Vec<u8>,
    /// Main and sub.
    pub(super) at: (i64, i64),
    pub(super) lease: i64,
    /// The value of column `live`; none for a tombstone.
    pub(super) live: Option<Vec<u8>>,
}

/// Takes versions in the order of their revisions.
pub(super) struct Versions {
    folder: PathBuf,
    /// Encoded rows, and where each begins.
    rows: Vec<u8>,
    starts: Vec<usize>,
    runs: Vec<PathBuf>,
}

fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}

fn length(bytes: &[u8]) -> Result<u32, Error> {
    u32::try_from(bytes.len()).map_err(|_| Error::Engine("a row of 4 GB".into()))
}

impl Versions {
    /// Runs go to `folder`, which is there.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            rows: Vec::new(),
            starts: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Adds a version behind all others.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn push(
        &mut self,
        key: &[u8],
        at: (i64, i64),
        lease: i64,
        live: Option<&[u8]>,
    ) -> Result<(), Error> {
        self.starts.push(self.rows.len());
        let live_bytes = live.map_or(Ok(DELETED), length)?;
        self.rows.extend_from_slice(&length(key)?.to_le_bytes());
        self.rows.extend_from_slice(&live_bytes.to_le_bytes());
        for number in [at.0, at.1, lease] {
            self.rows.extend_from_slice(&number.to_le_bytes());
        }
        self.rows.extend_from_slice(key);
        self.rows.extend_from_slice(live.unwrap_or_default());
        if self.rows.len() >= RUN_BYTES {
            self.write_run()?;
        }
        Ok(())
    }

    fn write_run(&mut self) -> Result<(), Error> {
        let path = self.folder.join(format!("run-{}", self.runs.len()));
        let rows = &self.rows;
        let row = |start: usize| {
            let field = |at: usize| {
                let bytes = rows[start + at..].first_chunk::<4>();
                u32::from_le_bytes(*bytes.expect("a row has a head"))
            };
            let key_end = start + HEAD_BYTES + field(0) as usize;
            let live_bytes = if field(4) == DELETED { 0 } else { field(4) };
            (start + HEAD_BYTES..key_end, key_end + live_bytes as usize)
        };
        // Stable: versions of one key stay in the order of their revisions.
        self.starts.sort_by(|one, other| {
            let (one, other) = (row(*one).0, row(*other).0);
            rows[one].cmp(&rows[other])
        });
        let write = || {
            let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(&path)?);
            for start in &self.starts {
                file.write_all(&rows[*start..row(*start).1])?;
            }
            file.flush()
        };
        write().map_err(|error| io_error(&path, error))?;
        self.rows.clear();
        self.starts.clear();
        self.runs.push(path);
        Ok(())
    }

    /// Hands over all versions, by key and then by revision.
    ///
    /// # Errors
    /// When the disk fails, or `take` does.
    pub(super) fn merge(
        mut self,
        mut take: impl FnMut(Version) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.starts.is_empty() {
            self.write_run()?;
        }
        let mut runs = Vec::new();
        let mut next = BinaryHeap::new();
        for (number, path) in self.runs.iter().enumerate() {
            let file = File::open(path).map_err(|error| io_error(path, error))?;
            let mut run = BufReader::with_capacity(BUFFER_BYTES, file);
            let first = read_row(&mut run).map_err(|error| io_error(path, error))?;
            next.extend(first.map(|version| Reverse((version, number))));
            runs.push(run);
        }
        while let Some(Reverse((version, number))) = next.pop() {
            take(version)?;
            let row = read_row(&mut runs[number]);
            let row = row.map_err(|error| io_error(&self.runs[number], error))?;
            next.extend(row.map(|version| Reverse((version, number))));
        }
        Ok(())
    }
}

fn read_row(run: &mut impl Read) -> std::io::Result<Option<Version>> {
    let mut head = [0; HEAD_BYTES];
    match run.read(&mut head[..1])? {
        0 => return Ok(None),
        _ => run.read_exact(&mut head[1..])?,
    }
    let short = |at: usize| {
        let bytes = head[at..].first_chunk::<4>();
        u32::from_le_bytes(*bytes.expect("inside the head"))
    };
    let long = |at: usize| {
        let bytes = head[at..].first_chunk::<8>();
        i64::from_le_bytes(*bytes.expect("inside the head"))
    };
    let mut key = vec![0; short(0) as usize];
    run.read_exact(&mut key)?;
    let live = match short(4) {
        DELETED => None,
        length => {
            let mut live = vec![0; length as usize];
            run.read_exact(&mut live)?;
            Some(live)
        }
    };
    Ok(Some(Version {
        key,
        at: (long(8), long(16)),
        lease: long(24),
        live,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_back_by_key_and_revision() {
        let folder = tempfile::tempdir().unwrap();
        let mut versions = Versions::new(folder.path());
        let mut expected = Vec::new();
        for main in 0..3_000_i64 {
            let key = format!("key-{}", main * 7919 % 101);
            let live = (main % 5 != 0).then(|| vec![main as u8; (main % 40) as usize]);
            let at = (main, main % 3);
            versions
                .push(key.as_bytes(), at, main % 2, live.as_deref())
                .unwrap();
            if main % 1_000 == 999 {
                versions.write_run().unwrap();
            }
            expected.push(Version {
                key: key.into_bytes(),
                at,
                lease: main % 2,
                live,
            });
        }
        expected.sort_by(|one, other| (&one.key, one.at).cmp(&(&other.key, other.at)));
        let mut found = Vec::new();
        versions
            .merge(|version| {
                found.push(version);
                Ok(())
            })
            .unwrap();
        assert!(found == expected);
    }

    #[test]
    fn no_versions_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let merged = Versions::new(folder.path()).merge(|_| panic!("nothing was pushed"));
        merged.unwrap();
    }
}
