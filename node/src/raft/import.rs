//! A first start in a data directory of etcd's: one that `snapshot restore` wrote, ours or
//! etcdutl's, or that of an etcd that was stopped.
//!
//! The state is built beside, made durable, and becomes the live one in one rename; the log begins
//! behind what the file holds. A crash before the rename begins anew, one behind it is harmless.
//! To raft, the file is a snapshot that was installed: a member that is added later gets it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use quorate_snapshot::{File, Manifest, Wal};

use super::bootstrap::RaftOptions;
use super::identity::StartError;
use super::state::{CURRENT, StateDirectory, io_error, sync_directory};
use super::stored;
use super::types::{Membership, Node, StoredMembership, log_id};
use crate::storage::import::{Imported, Importer};
use crate::storage::log::{Log, LogPosition, Options as LogOptions, Vote};
use crate::storage::{Db, Error};

/// What a data directory of etcd's says of itself.
#[derive(Debug, Clone)]
pub struct Source {
    pub member_id: u64,
    pub cluster_id: u64,
    file: PathBuf,
    /// The last entry that etcd's log holds, when there is one.
    wal_last_index: Option<u64>,
}

impl Source {
    /// Opens the file to see whether it is one.
    ///
    /// # Errors
    /// When it cannot be read, or is no file of etcd's.
    pub fn check(&self) -> Result<(), StartError> {
        let file = File::open(&self.file).map_err(|error| refused(&self.file, error))?;
        drop(file);
        Ok(())
    }
}

fn refused(path: &Path, what: impl ToString) -> StartError {
    StartError::Import {
        path: path.display().to_string(),
        what: what.to_string(),
    }
}

/// Looks for a directory of etcd's that was not imported yet.
///
/// # Errors
/// When there is one that cannot be used.
pub fn find(data_dir: &Path) -> Result<Option<Source>, StartError> {
    let exists = |path: &Path| fs::exists(path).map_err(|error| io_error(path, error));
    let member = data_dir.join("member");
    let file = member.join("snap").join("db");
    if exists(&data_dir.join(CURRENT))? || !exists(&file)? {
        return Ok(None);
    }
    let manifest = Manifest::read(&member).map_err(|error| refused(&member, error))?;
    if let Some(manifest) = manifest {
        return Ok(Some(Source {
            member_id: manifest.member_id,
            cluster_id: manifest.cluster_id,
            file,
            wal_last_index: None,
        }));
    }
    let wal = Wal::read(&member.join("wal")).map_err(|error| refused(&member, error))?;
    Ok(Some(Source {
        member_id: wal.member_id,
        cluster_id: wal.cluster_id,
        file,
        wal_last_index: Some(wal.last_index),
    }))
}

/// Imports what [`find`] finds.
///
/// # Errors
/// When the file is damaged, belongs to another member, or lacks what etcd's log holds.
pub fn run(options: &RaftOptions) -> Result<(), StartError> {
    let root = &options.data_dir;
    let Some(source) = find(root)? else {
        return remove_imported(root);
    };
    let file = &source.file;
    if (source.member_id, source.cluster_id) != (options.member_id, options.cluster_id) {
        return Err(StartError::OtherMember {
            path: file.display().to_string(),
            found_member: source.member_id,
            found_cluster: source.cluster_id,
            member: options.member_id,
            cluster: options.cluster_id,
        });
    }
    tracing::info!(path = %file.display(), "importing a data directory of etcd's");
    let incoming = root.join("incoming-0");
    remove_folder(&incoming)?;
    let imported = match build(&source, &incoming) {
        Ok(imported) => imported,
        Err(error) => {
            remove_folder(&incoming)?;
            return Err(error);
        }
    };
    begin_log(options, &imported)?;
    StateDirectory::found(root, &incoming)?;
    tracing::info!(
        revision = imported.revision,
        compacted = imported.compacted,
        index = imported.applied.index,
        "imported a data directory of etcd's"
    );
    remove_imported(root)
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error(path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Builds the state in the fresh folder `incoming`.
fn build(source: &Source, incoming: &Path) -> Result<Imported, StartError> {
    let path = &source.file;
    let file = File::open(path).map_err(|error| refused(path, error))?;
    let db = Db::open(incoming)?;
    let mut importer = Importer::new(db)?;
    file.walk(&mut importer)
        .map_err(|error| refused(path, error))?;
    let imported = importer.finish(membership)?;
    let index = imported.applied.index;
    if let Some(last) = source.wal_last_index.filter(|last| *last > index) {
        let what = format!(
            "the write-ahead log beside it goes on to entry {last}, but the file holds entries up \
             to {index}: start etcd once more and save a snapshot, then restore that"
        );
        return Err(refused(path, what));
    }
    let is_member = imported.members.iter().any(|it| it.id == source.member_id);
    if !is_member || index == 0 {
        let what = format!("it names no member {:x}, or no entry", source.member_id);
        return Err(refused(path, what));
    }
    sync_directory(incoming)?;
    Ok(imported)
}

/// Raft's membership at the entry up to which the file goes.
fn membership(imported: &Imported) -> Result<Vec<u8>, Error> {
    let members = imported.members.iter();
    let voters = members.filter(|it| !it.is_learner).map(|it| it.id);
    let members = imported.members.iter();
    let nodes: BTreeMap<u64, Node> = members
        .map(|member| (member.id, Node::new(member.peer_urls.join(","))))
        .collect();
    let membership = Membership::new(vec![voters.collect()], nodes)
        .map_err(|error| Error::Engine(format!("the imported members: {error}")))?;
    let at = log_id(imported.applied.term, imported.applied.index);
    let stored = StoredMembership::new(Some(at), membership);
    Ok(stored::encode_membership(&stored))
}

/// Makes a log that begins behind the imported state.
fn begin_log(options: &RaftOptions, imported: &Imported) -> Result<(), StartError> {
    let path = options.data_dir.join("log");
    let log_options = LogOptions {
        fsync: options.fsync,
        identity: super::bootstrap::log_identity(options),
        ..LogOptions::default()
    };
    let (log, recovered) = Log::open(&path, log_options)?;
    let position = LogPosition {
        term: imported.applied.term,
        index: imported.applied.index,
    };
    if recovered.last.is_some_and(|last| last != position) || !recovered.entries.is_empty() {
        let what = "there is a raft log already, but no state that belongs to it";
        return Err(refused(&path, what));
    }
    // A leader of the same or an older term would write entries that sort before the imported ones.
    let vote = Vote {
        term: position.term,
        leader: options.member_id,
        committed: false,
    };
    // What fails here is told when the log is closed.
    log.save_vote(vote, Box::new(drop))?;
    log.purge(position)?;
    log.close()?;
    Ok(())
}

/// Removes what our own restore wrote once it is imported. What etcd wrote stays.
fn remove_imported(root: &Path) -> Result<(), StartError> {
    let member = root.join("member");
    let is_ours = Manifest::read(&member).map_err(|error| refused(&member, error))?;
    if is_ours.is_some() && fs::exists(root.join(CURRENT)).is_ok_and(|exists| exists) {
        fs::remove_dir_all(&member).map_err(|error| io_error(&member, error))?;
        sync_directory(root)?;
    }
    Ok(())
}
