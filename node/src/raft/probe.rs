//! A look at a data directory that no member uses: what it is, whose it is, and whether a start
//! could read it. Nothing is made, locked or changed.
//!
//! It refuses what a start refuses before it talks to anybody: an identity, a pointer, a log or a
//! state that cannot be read. Records of the state are read when they are needed, as at a start.

use std::fs;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::identity::{LOCK, Owner, StartError, owner_of};
use super::import;
use super::state::{CURRENT, STATE, StateDirectory, io_error};
use crate::storage::log::{Identity, Log};
use crate::storage::{Db, Error};

/// What a data directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probed {
    /// It does not exist, or holds nothing of a member: a first start is possible.
    Empty,
    /// A member was started in it.
    Member(Owner),
    /// A directory of etcd's that a first start would import.
    Import { member: u64, cluster: u64 },
}

/// Looks at the data directory `path`.
///
/// # Errors
/// What a start would refuse: it is in use, cannot be read, or is damaged.
pub fn probe(path: &Path) -> Result<Probed, StartError> {
    if !exists(path)? {
        return Ok(Probed::Empty);
    }
    check_unused(path)?;
    let source = import::find(path)?;
    if let Some(source) = &source {
        source.check()?;
    }
    let Some(owner) = owner_of(path)? else {
        return match source {
            Some(source) => Ok(Probed::Import {
                member: source.member_id,
                cluster: source.cluster_id,
            }),
            None => check_empty(path),
        };
    };
    if source.is_none() {
        check_stores(path, &owner)?;
    }
    Ok(Probed::Member(owner))
}

fn exists(path: &Path) -> Result<bool, StartError> {
    Ok(fs::exists(path).map_err(|error| io_error(path, error))?)
}

fn damaged(path: &Path, what: impl Into<String>) -> StartError {
    StartError::Disk(Error::Damaged {
        path: path.display().to_string(),
        offset: 0,
        what: what.into(),
    })
}

fn check_unused(path: &Path) -> Result<(), StartError> {
    let name = path.join(LOCK);
    if !exists(&name)? {
        return Ok(());
    }
    let lock = fs::File::open(&name).map_err(|error| io_error(&name, error))?;
    // It is given back when the file is closed.
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::InUse {
            path: path.display().to_string(),
        }),
        Err(error) => Err(io_error(&name, error.into()).into()),
    }
}

/// A directory without an identity must hold no log and no state either: they would be mixed
/// with those of a new member.
fn check_empty(path: &Path) -> Result<Probed, StartError> {
    for name in fs::read_dir(path).map_err(|error| io_error(path, error))? {
        let name = name.map_err(|error| io_error(path, error))?.file_name();
        let name = name.to_string_lossy();
        if name == "log" || name == CURRENT || name.starts_with(STATE) {
            let what = format!("there is {name}, but no file that says whose it is");
            return Err(damaged(path, what));
        }
    }
    Ok(Probed::Empty)
}

fn check_stores(path: &Path, owner: &Owner) -> Result<(), StartError> {
    let pointer = path.join(CURRENT);
    let is_applied = match exists(&pointer)? {
        true => {
            let state = StateDirectory::current_below(path)?;
            let is_there = exists(&state)?;
            if !is_there && owner.has_log {
                return Err(damaged(
                    &state,
                    "the state is gone, but there is a raft log",
                ));
            }
            is_there && Db::check(&state)?
        }
        false if owner.has_log => {
            return Err(damaged(&pointer, "it is gone, but there is a raft log"));
        }
        false => false,
    };
    let identity = Identity {
        member_id: owner.member,
        cluster_id: owner.cluster,
    };
    Log::check(&path.join("log"), identity, owner.has_log || is_applied)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::identity::DataDirectory;
    use super::*;
    use crate::storage::log::Options;

    fn started(root: &Path) {
        let mut directory = DataDirectory::take(root, 1, 2).unwrap();
        let states = StateDirectory::open(root).unwrap();
        let db = Db::open(&states.current_path().unwrap()).unwrap();
        db.flush().unwrap();
        let options = Options {
            identity: Identity {
                member_id: 1,
                cluster_id: 2,
            },
            ..Options::default()
        };
        let (log, _) = Log::open(&root.join("log"), options).unwrap();
        directory.note_log().unwrap();
        log.close().unwrap();
    }

    #[test]
    fn a_directory_is_empty_a_members_or_in_use() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(probe(&root.path().join("none")).unwrap(), Probed::Empty);
        assert_eq!(probe(root.path()).unwrap(), Probed::Empty);
        started(root.path());
        let found = probe(root.path()).unwrap();
        assert!(matches!(
            found,
            Probed::Member(Owner {
                member: 1,
                cluster: 2,
                ..
            })
        ));
        let held = DataDirectory::take(root.path(), 1, 2).unwrap();
        assert!(matches!(probe(root.path()), Err(StartError::InUse { .. })));
        drop(held);
    }

    #[test]
    fn what_is_lost_or_broken_is_told() {
        for (name, broken) in [
            ("identity", b"member x\n".as_slice()),
            ("CURRENT", b"state-9\n"),
            ("state-1/CURRENT", b"MANIFEST-000999\n"),
            ("log/00000001.log", b"no head"),
        ] {
            let root = tempfile::tempdir().unwrap();
            started(root.path());
            fs::write(root.path().join(name), broken).unwrap();
            let found = probe(root.path());
            assert!(
                matches!(found, Err(StartError::Disk(_))),
                "{name}: {found:?}"
            );
        }
        for name in ["identity", "CURRENT", "log/00000001.log"] {
            let root = tempfile::tempdir().unwrap();
            started(root.path());
            fs::remove_file(root.path().join(name)).unwrap();
            let found = probe(root.path());
            assert!(
                matches!(found, Err(StartError::Disk(_))),
                "{name}: {found:?}"
            );
        }
    }
}
