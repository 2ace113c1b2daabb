//! Whose data directory this is. It belongs to one member of one cluster and to one process at a
//! time; anything else is refused at start.

use std::fmt;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::state::{io_error, sync_directory, write_atomically};
use crate::storage::Error;

const IDENTITY: &str = "identity";
pub(super) const LOCK: &str = "lock";
/// The line of the identity that says that there is a raft log.
const LOG_MADE: &str = "log made";
/// How the line of the identity begins that holds the cluster token.
const TOKEN: &str = "token ";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "data directory {path} belongs to member {found_member:016x} of cluster \
         {found_cluster:016x}, but this is member {member:016x} of cluster {cluster:016x}"
    )]
    OtherMember {
        path: String,
        found_member: u64,
        found_cluster: u64,
        member: u64,
        cluster: u64,
    },
    /// A directory of etcd's that cannot be taken over.
    #[error("cannot import {path}: {what}")]
    Import { path: String, what: String },
    #[error("data directory {path} is in use by another process")]
    InUse { path: String },
    #[error(transparent)]
    Disk(#[from] Error),
    #[error("{0}")]
    Configuration(String),
    #[error("raft: {0}")]
    Raft(String),
}

/// A data directory that this process holds.
pub struct DataDirectory {
    pub path: PathBuf,
    /// How often it was started, this time included: 1 at the first.
    pub boots: u64,
    /// Whether a raft log was made here, and must be found again.
    pub has_log: bool,
    identity: Identity,
    /// Held for as long as the process uses the directory.
    _lock: fs::File,
}

struct Identity {
    member: u64,
    cluster: u64,
    boots: u64,
    has_log: bool,
    /// The cluster token of the first start, escaped; not known of a directory that was imported.
    token: Option<String>,
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            member,
            cluster,
            boots,
            has_log,
            token,
        } = self;
        writeln!(formatter, "member {member:016x}")?;
        writeln!(formatter, "cluster {cluster:016x}")?;
        writeln!(formatter, "boots {boots}")?;
        if *has_log {
            writeln!(formatter, "{LOG_MADE}")?;
        }
        match token {
            Some(token) => writeln!(formatter, "{TOKEN}{token}"),
            None => Ok(()),
        }
    }
}

impl Identity {
    fn read(file: &Path) -> Result<Self, StartError> {
        let text = fs::read_to_string(file).map_err(|error| io_error(file, error))?;
        let found = Self::parse(&text).ok_or_else(|| Error::Damaged {
            path: file.display().to_string(),
            offset: 0,
            what: "it names no member and cluster".into(),
        })?;
        Ok(found)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |name: &str| {
            let (found, value) = lines.next()?.split_once(' ')?;
            (found == name).then_some(value)
        };
        Some(Self {
            member: u64::from_str_radix(value("member")?, 16).ok()?,
            cluster: u64::from_str_radix(value("cluster")?, 16).ok()?,
            boots: value("boots")?.parse().ok()?,
            has_log: text.lines().any(|line| line == LOG_MADE),
            token: text
                .lines()
                .find_map(|line| line.strip_prefix(TOKEN))
                .map(str::to_owned),
        })
    }
}

/// Whom a data directory belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub member: u64,
    pub cluster: u64,
    /// Whether a raft log was made here.
    pub has_log: bool,
    token: Option<String>,
}

impl Owner {
    /// Whether the first start had another cluster token, as far as that is known.
    pub fn has_other_token(&self, token: &str) -> bool {
        let kept = self.token.as_deref();
        kept.is_some_and(|kept| kept != escaped(token))
    }

    /// The cluster token of the first start as it is kept, with escapes as in Rust.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }
}

/// One line, whatever the token holds.
fn escaped(token: &str) -> String {
    token.escape_default().to_string()
}

/// The member and cluster that a data directory belongs to; none before its first start.
///
/// # Errors
/// When it cannot be read, or names nobody.
pub fn owner_of(path: &Path) -> Result<Option<Owner>, StartError> {
    let file = path.join(IDENTITY);
    if !fs::exists(&file).map_err(|error| io_error(&file, error))? {
        return Ok(None);
    }
    let found = Identity::read(&file)?;
    Ok(Some(Owner {
        member: found.member,
        cluster: found.cluster,
        has_log: found.has_log,
        token: found.token,
    }))
}

impl DataDirectory {
    /// Takes the directory for this member, making it when it does not exist.
    ///
    /// # Errors
    /// [`StartError::OtherMember`] and [`StartError::InUse`], besides disk errors.
    pub fn take(path: &Path, member: u64, cluster: u64) -> Result<Self, StartError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| io_error(path, error))?;
        let lock = take_lock(path)?;
        let file = path.join(IDENTITY);
        let exists = fs::exists(&file).map_err(|error| io_error(&file, error))?;
        let (boots, has_log, token) = if exists {
            let found = Identity::read(&file)?;
            if (found.member, found.cluster) != (member, cluster) {
                return Err(StartError::OtherMember {
                    path: path.display().to_string(),
                    found_member: found.member,
                    found_cluster: found.cluster,
                    member,
                    cluster,
                });
            }
            (found.boots + 1, found.has_log, found.token)
        } else {
            (1, false, None)
        };
        let identity = Identity {
            member,
            cluster,
            boots,
            has_log,
            token,
        };
        write_atomically(&file, identity.to_string().as_bytes())?;
        Ok(Self {
            path: path.to_owned(),
            boots,
            has_log,
            identity,
            _lock: lock,
        })
    }

    /// Notes for the next start that there is a raft log. Without it, the member would not miss a
    /// log that was lost before its state was first flushed, and would forget its votes.
    ///
    /// # Errors
    /// Disk errors.
    pub fn note_log(&mut self) -> Result<(), StartError> {
        if !self.has_log {
            sync_directory(&self.path)?;
            self.has_log = true;
            self.identity.has_log = true;
            let file = self.path.join(IDENTITY);
            write_atomically(&file, self.identity.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Keeps the cluster token of a first start, by which a directory of another cluster is known
    /// later on.
    ///
    /// # Errors
    /// Disk errors.
    pub fn keep_token(&mut self, token: &str) -> Result<(), StartError> {
        if self.boots == 1 && self.identity.token.is_none() {
            self.identity.token = Some(escaped(token));
            let file = self.path.join(IDENTITY);
            write_atomically(&file, self.identity.to_string().as_bytes())?;
        }
        Ok(())
    }
}

fn take_lock(path: &Path) -> Result<fs::File, StartError> {
    let name = path.join(LOCK);
    let opened = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&name);
    let lock = opened.map_err(|error| io_error(&name, error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(StartError::InUse {
                path: path.display().to_string(),
            });
        }
        Err(error) => return Err(io_error(&name, error.into()).into()),
    }
    sync_directory(path)?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_bound_to_its_member_and_counts_starts() {
        let root = tempfile::tempdir().unwrap();
        let mut first = DataDirectory::take(root.path(), 1, 2).unwrap();
        assert_eq!((first.boots, first.has_log), (1, false));
        let second = DataDirectory::take(root.path(), 1, 2);
        assert!(matches!(second, Err(StartError::InUse { .. })));
        first.keep_token("a b\n").unwrap();
        drop(first);
        let mut second = DataDirectory::take(root.path(), 1, 2).unwrap();
        assert_eq!((second.boots, second.has_log), (2, false));
        second.note_log().unwrap();
        second.keep_token("other").unwrap();
        drop(second);
        let owner = owner_of(root.path()).unwrap().unwrap();
        assert_eq!((owner.member, owner.cluster), (1, 2));
        assert!(!owner.has_other_token("a b\n") && owner.has_other_token("other"));
        let third = DataDirectory::take(root.path(), 1, 2).unwrap();
        assert_eq!((third.boots, third.has_log), (3, true));
        drop(third);
        for (member, cluster) in [(3, 2), (1, 3)] {
            let refused = DataDirectory::take(root.path(), member, cluster);
            let error = refused.err().unwrap().to_string();
            assert!(
                error.contains("belongs to member 0000000000000001"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_damaged_identity_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(IDENTITY), b"member x\n").unwrap();
        let refused = DataDirectory::take(root.path(), 1, 2);
        assert!(matches!(
            refused,
            Err(StartError::Disk(Error::Damaged { .. }))
        ));
    }
}
