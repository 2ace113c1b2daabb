//! A checkpoint: a folder of hard links to the state's files, with a manifest of sizes and
//! checksums, and its adoption by another member.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Db, Error};

/// What is read at once to compute a checksum.
const READ_BYTES: usize = 256 * 1024;

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    pub name: String,
    pub size_bytes: u64,
    pub crc32c: u32,
}

/// A complete checkpoint on disk.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub directory: PathBuf,
    /// By name.
    pub files: Vec<CheckpointFile>,
}

impl Checkpoint {
    /// Flushes `db` and links its files into the fresh folder `directory`, whose parent exists.
    pub fn create(db: &Db, directory: &Path) -> Result<Self, Error> {
        Self::link(db, directory)?;
        Self::measure(directory)
    }

    /// The first half of [`Checkpoint::create`], which freezes the state: it takes no longer for a
    /// large one.
    pub fn link(db: &Db, directory: &Path) -> Result<(), Error> {
        db.flush()?;
        rocksdb::checkpoint::Checkpoint::new(db.raw())?.create_checkpoint(directory)?;
        Ok(())
    }

    /// The second half of [`Checkpoint::create`], which reads every file.
    pub fn measure(directory: &Path) -> Result<Self, Error> {
        let mut files = Vec::new();
        for name in names(directory)? {
            files.push(measure(directory, name)?);
        }
        sync_all(directory, &files)?;
        Ok(Self {
            directory: directory.to_owned(),
            files,
        })
    }

    /// Checks sizes and checksums of the files in `directory` against `files`, and syncs them.
    ///
    /// # Errors
    /// [`Error::Damaged`] names the first file that is missing, foreign or different.
    pub fn verify(directory: &Path, files: &[CheckpointFile]) -> Result<Self, Error> {
        let mut expected = files.to_vec();
        expected.sort_by(|a, b| a.name.cmp(&b.name));
        let found = names(directory)?;
        for name in &found {
            if !expected.iter().any(|file| file.name == *name) {
                return Err(damaged(directory, name, "it is not part of the checkpoint"));
            }
        }
        for file in &expected {
            if !found.contains(&file.name) {
                return Err(damaged(directory, &file.name, "it is missing"));
            }
            let measured = measure(directory, file.name.clone())?;
            if measured.size_bytes != file.size_bytes {
                let what = format!(
                    "it has {} bytes, not {}",
                    measured.size_bytes, file.size_bytes
                );
                return Err(damaged(directory, &file.name, &what));
            }
            if measured.crc32c != file.crc32c {
                return Err(damaged(directory, &file.name, "its checksum is wrong"));
            }
        }
        sync_all(directory, &expected)?;
        Ok(Self {
            directory: directory.to_owned(),
            files: expected,
        })
    }
}

fn damaged(directory: &Path, name: &str, what: &str) -> Error {
    Error::Damaged {
        path: directory.join(name).display().to_string(),
        offset: 0,
        what: what.to_owned(),
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Io {
        path: path.clone(),
        source,
    }
}

/// The files in `directory`, sorted. RocksDB makes no folders in it.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(at(directory))? {
        let name = entry.map_err(at(directory))?.file_name();
        let name = name
            .into_string()
            .map_err(|name| damaged(directory, &name.to_string_lossy(), "its name is not UTF-8"))?;
        names.push(name);
    }
    names.sort();
    Ok(names)
}

fn measure(directory: &Path, name: String) -> Result<CheckpointFile, Error> {
    let path = directory.join(&name);
    let mut file = File::open(&path).map_err(at(&path))?;
    let mut buffer = vec![0; READ_BYTES];
    let (mut size_bytes, mut crc32c) = (0, 0);
    loop {
        let length = file.read(&mut buffer).map_err(at(&path))?;
        if length == 0 {
            break;
        }
        size_bytes += length as u64;
        crc32c = crc32c::crc32c_append(crc32c, &buffer[..length]);
    }
    Ok(CheckpointFile {
        name,
        size_bytes,
        crc32c,
    })
}

/// Makes the files and their names durable.
fn sync_all(directory: &Path, files: &[CheckpointFile]) -> Result<(), Error> {
    for file in files {
        let path = directory.join(&file.name);
        let file = File::open(&path).map_err(at(&path))?;
        file.sync_all().map_err(at(&path))?;
    }
    for folder in [Some(directory), directory.parent()].into_iter().flatten() {
        let file = File::open(folder).map_err(at(folder))?;
        file.sync_all().map_err(at(folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Position;

    fn store(directory: &Path) -> Arc<Db> {
        let db = Db::open(&directory.join("state")).unwrap();
        let mut batch = db.batch();
        batch.set_membership(b"members");
        batch.finish_entry(Position { term: 3, index: 9 });
        db.commit(batch).unwrap();
        db
    }

    #[test]
    fn a_checkpoint_opens_as_a_store_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let db = store(directory.path());
        let path = directory.path().join("checkpoint");
        let checkpoint = Checkpoint::create(&db, &path).unwrap();
        assert!(checkpoint.files.iter().any(|file| file.name == "CURRENT"));
        let verified = Checkpoint::verify(&path, &checkpoint.files).unwrap();
        assert_eq!(verified.files, checkpoint.files);

        // What is written later is not part of it.
        let mut batch = db.batch();
        batch.finish_entry(Position { term: 3, index: 10 });
        db.commit(batch).unwrap();
        let copy = Db::open(&path).unwrap();
        assert_eq!(copy.progress().applied, Position { term: 3, index: 9 });
        assert_eq!(copy.membership().unwrap().unwrap(), b"members".as_slice());
    }

    #[test]
    fn damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let db = store(directory.path());
        let path = directory.path().join("checkpoint");
        let files = Checkpoint::create(&db, &path).unwrap().files;
        let refused = |files: &[CheckpointFile]| {
            let error = Checkpoint::verify(&path, files).unwrap_err();
            error.to_string()
        };

        let table = files.iter().find(|it| it.name.ends_with(".sst")).unwrap();
        let table_path = path.join(&table.name);
        let bytes = std::fs::read(&table_path).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        // A new file: the old one is shared with the store.
        std::fs::remove_file(&table_path).unwrap();
        std::fs::write(&table_path, &flipped).unwrap();
        assert!(refused(&files).ends_with("its checksum is wrong"));
        std::fs::write(&table_path, &bytes[..10]).unwrap();
        assert!(refused(&files).contains("it has 10 bytes"));
        std::fs::remove_file(&table_path).unwrap();
        assert!(refused(&files).contains(&table.name));
        std::fs::write(&table_path, &bytes).unwrap();
        assert!(refused(&files[1..]).ends_with("it is not part of the checkpoint"));
        Checkpoint::verify(&path, &files).unwrap();
    }
}
