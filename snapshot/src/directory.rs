//! A snapshot made into the data directory of a member of a new cluster, in etcd's layout:
//! `member/snap/db` and whose it is. Complete or not there at all.
//!
//! etcd: etcdutl/snapshot/v3_snapshot.go.

use std::fs;
use std::io::{BufWriter, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::reader::io_error;
use super::{Error, File, InitialCluster, Manifest, Restore, restore};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const WRITE_BYTES: usize = 256 * 1024;
/// Where a member's folder is built.
const PART: &str = "member.part";

/// How a directory is made.
#[derive(Debug, Clone)]
pub struct DirectoryOptions<'a> {
    /// The members of the new cluster.
    pub cluster: &'a InitialCluster,
    /// Whose directory it is: a name of the cluster.
    pub name: &'a str,
    /// How much to increase the revision, which is then marked as compacted; 0 for not at all.
    pub bump_revision: u64,
    /// The trailing hash is not looked at, as for a file that was copied from a data directory.
    pub skip_hash_check: bool,
}

/// Makes `data_dir`, which must be empty or not exist, from the snapshot in the file `source`.
/// When it fails, nothing of it is left.
///
/// # Errors
/// [`Error::NotEmpty`], a `source` that is damaged or newer, or a disk that fails.
pub fn restore_directory(
    source: &Path,
    data_dir: &Path,
    options: &DirectoryOptions<'_>,
) -> Result<(), Error> {
    let target = Target::create(data_dir)?;
    match write(source, options, &target).and_then(|()| target.complete()) {
        Ok(()) => Ok(()),
        Err(error) => {
            target.remove()?;
            Err(error)
        }
    }
}

/// Removes from `data_dir` what a [`restore_directory`] that was killed has left there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_unfinished(data_dir: &Path) -> Result<(), Error> {
    let part = data_dir.join(PART);
    match fs::remove_dir_all(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(&part, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The data directory while it is not complete.
struct Target {
    data_dir: PathBuf,
    part: PathBuf,
    made_data_dir: bool,
}

impl Target {
    fn create(data_dir: &Path) -> Result<Self, Error> {
        let listed = fs::read_dir(data_dir).map(|mut names| names.next().is_none());
        let made_data_dir = match listed {
            Ok(true) => false,
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Ok(false) | Err(_) => {
                return Err(Error::NotEmpty {
                    path: data_dir.display().to_string(),
                });
            }
        };
        let target = Self {
            data_dir: data_dir.to_owned(),
            part: data_dir.join(PART),
            made_data_dir,
        };
        let snap = target.part.join("snap");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(&snap)
            .map_err(|error| io_error(&snap, error))?;
        Ok(target)
    }

    /// Gives the folder its name, once all of it is on disk.
    fn complete(&self) -> Result<(), Error> {
        let member = self.data_dir.join("member");
        sync(&self.part.join("snap"))?;
        sync(&self.part)?;
        fs::rename(&self.part, &member).map_err(|error| io_error(&member, error))?;
        sync(&self.data_dir)
    }

    fn remove(&self) -> Result<(), Error> {
        let made = match self.made_data_dir {
            true => &self.data_dir,
            false => &self.part,
        };
        fs::remove_dir_all(made).map_err(|error| io_error(made, error))
    }
}

fn sync(folder: &Path) -> Result<(), Error> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| io_error(folder, error))
}

/// Writes the file and whose it is into the unfinished `target`.
fn write(source: &Path, options: &DirectoryOptions<'_>, target: &Target) -> Result<(), Error> {
    let file = File::open(source)?;
    if !options.skip_hash_check {
        file.verify_digest()?;
    }
    let path = target.part.join("snap").join("db");
    let db = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(|error| io_error(&path, error))?;
    let restored = Restore {
        members: options.cluster.members(),
        bump_revision: options.bump_revision,
    };
    let sink = BufWriter::with_capacity(WRITE_BYTES, db);
    let (_, mut db) = restore(&file, &restored, sink)?;
    db.flush().map_err(|error| io_error(&path, error))?;
    let synced = db.get_ref().sync_all();
    synced.map_err(|error| io_error(&path, error))?;
    let manifest = Manifest {
        member_id: options.cluster.member_id(options.name)?,
        cluster_id: options.cluster.id(),
    };
    manifest.write(&target.part)
}
