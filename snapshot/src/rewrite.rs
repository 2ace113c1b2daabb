//! A file written anew with the same content: without the pages that nothing uses any more, and
//! perhaps as another version of etcd would have it.
//!
//! etcd: server/storage/backend/backend.go (defrag), storage/schema/schema.go (Migrate).

use std::io::Write;

use super::reader::File;
use super::{Entries, Error, Plan, Writer, etcd};

/// A version of etcd's storage: major and minor.
pub type Version = (u64, u64);

/// From here on a file says its version.
const VERSION_TOLD: Version = (3, 6);
/// The version of a file that does not say one.
const VERSION_UNTOLD: Version = (3, 5);

/// What becomes of the storage version of a file that is written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageVersion {
    Keep,
    /// Below 3.6 a file says none.
    Set(Version),
}

/// Writes all of `source` to `sink`; the size of the result in bytes. No hash follows.
///
/// # Errors
/// When `source` is damaged, or `sink` fails.
pub fn rewrite<W: Write>(
    source: &File,
    version: StorageVersion,
    sink: W,
) -> Result<(u64, W), Error> {
    let mut plan = Plan::new();
    pass(source, version, &mut plan)?;
    let mut writer = Writer::new(plan, sink)?;
    let total_bytes = writer.total_bytes();
    pass(source, version, &mut writer)?;
    let (_, sink) = writer.finish()?;
    Ok((total_bytes, sink))
}

fn pass(source: &File, version: StorageVersion, out: &mut dyn Entries) -> Result<(), Error> {
    let told = match version {
        StorageVersion::Set((major, minor)) if (major, minor) >= VERSION_TOLD => {
            Some(format!("{major}.{minor}.0"))
        }
        StorageVersion::Set(_) | StorageVersion::Keep => None,
    };
    let mut rewrite = Rewrite {
        out,
        changes: version != StorageVersion::Keep,
        told,
        in_meta: false,
    };
    source.walk(&mut rewrite)?;
    rewrite.tell()
}

struct Rewrite<'a> {
    out: &'a mut dyn Entries,
    changes: bool,
    /// The version that is still to be written.
    told: Option<String>,
    in_meta: bool,
}

impl Rewrite<'_> {
    fn tell(&mut self) -> Result<(), Error> {
        match self.told.take_if(|_| self.in_meta) {
            Some(told) => self.out.entry(etcd::STORAGE_VERSION, told.as_bytes()),
            None => Ok(()),
        }
    }
}

impl Entries for Rewrite<'_> {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.tell()?;
        self.in_meta = name == etcd::META;
        self.out.bucket(name)
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.in_meta && self.changes {
            if key >= etcd::STORAGE_VERSION {
                self.tell()?;
            }
            if key == etcd::STORAGE_VERSION {
                return Ok(());
            }
        }
        self.out.entry(key, value)
    }
}

/// The storage version of a file; none when it is of an etcd before 3.5, or of a 3.5 that has not
/// yet made a raft snapshot.
///
/// # Errors
/// When the file is damaged.
pub fn storage_version(file: &File) -> Result<Option<Version>, Error> {
    let mut look = Look::default();
    file.walk(&mut look)?;
    Ok(look.version.or(look.has_term.then_some(VERSION_UNTOLD)))
}

#[derive(Default)]
struct Look {
    in_meta: bool,
    version: Option<Version>,
    has_term: bool,
}

impl Entries for Look {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.in_meta = name == etcd::META;
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.in_meta && key == etcd::STORAGE_VERSION {
            self.version = etcd::parse_version(&String::from_utf8_lossy(value));
        }
        if self.in_meta && key == etcd::TERM {
            self.has_term = etcd::number(value)? != 0;
        }
        Ok(())
    }
}
