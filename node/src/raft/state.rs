//! The folders of this member's state: `state-<n>` and the file `CURRENT` that names the live one,
//! so that an installed snapshot takes over in one atomic rename.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::storage::{Db, Error};

pub const CURRENT: &str = "CURRENT";
const INCOMING: &str = "incoming-";
const CHECKPOINT: &str = "checkpoint-";
pub const STATE: &str = "state-";

/// The data directory, as far as the state is concerned. Clones share it.
#[derive(Clone)]
pub struct StateDirectory {
    root: Arc<Path>,
    numbers: Arc<AtomicU64>,
    /// Replaced states that readers may still hold, with their folders.
    retired: Arc<Mutex<Vec<Retired>>>,
}

type Retired = (Weak<Db>, PathBuf);

/// `operation` on `path` failed.
pub fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}

/// Makes the names in a folder durable.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    let synced = fs::File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| io_error(path, error))
}

/// Replaces the file `path` in one step: either the old or the new content is there after a crash.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    let written = fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(|error| io_error(&temporary, error))?;
    fs::rename(&temporary, path).map_err(|error| io_error(path, error))?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

impl StateDirectory {
    /// Finds the live state below `root`, or names a fresh one, and removes what a crash left.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let directory = Self {
            root: root.into(),
            numbers: Arc::new(AtomicU64::new(1)),
            retired: Arc::default(),
        };
        let pointer = root.join(CURRENT);
        match fs::exists(&pointer) {
            Ok(true) => {}
            Ok(false) => write_atomically(&pointer, format!("{STATE}1\n").as_bytes())?,
            Err(error) => return Err(io_error(&pointer, error)),
        }
        directory.remove_leftovers()?;
        Ok(directory)
    }

    /// Makes the complete and synced folder `built` the live state of a directory that has none.
    pub fn found(root: &Path, built: &Path) -> Result<(), Error> {
        let path = root.join(format!("{STATE}1"));
        if fs::exists(&path).map_err(|error| io_error(&path, error))? {
            // A crash came between the rename and the pointer.
            fs::remove_dir_all(&path).map_err(|error| io_error(&path, error))?;
        }
        fs::rename(built, &path).map_err(|error| io_error(built, error))?;
        sync_directory(root)?;
        write_atomically(&root.join(CURRENT), format!("{STATE}1\n").as_bytes())
    }

    /// The folder of the live state.
    pub fn current_path(&self) -> Result<PathBuf, Error> {
        Self::current_below(&self.root)
    }

    /// The folder of the live state below `root`.
    pub fn current_below(root: &Path) -> Result<PathBuf, Error> {
        let pointer = root.join(CURRENT);
        let name = fs::read_to_string(&pointer).map_err(|error| io_error(&pointer, error))?;
        let name = name.trim_end();
        let is_state = name
            .strip_prefix(STATE)
            .is_some_and(|number| number.parse::<u64>().is_ok());
        if !is_state {
            return Err(Error::Damaged {
                path: pointer.display().to_string(),
                offset: 0,
                what: format!("{name:?} names no state"),
            });
        }
        Ok(root.join(name))
    }

    fn remove_leftovers(&self) -> Result<(), Error> {
        let current = self.current_path()?;
        let number = current.file_name().and_then(|name| name.to_str());
        let number = number.and_then(|name| name.strip_prefix(STATE)?.parse::<u64>().ok());
        self.numbers
            .fetch_max(number.unwrap_or(0) + 1, Ordering::Relaxed);
        let names = fs::read_dir(&self.root).map_err(|error| io_error(&self.root, error))?;
        for name in names {
            let path = name.map_err(|error| io_error(&self.root, error))?.path();
            let text = path.file_name().and_then(|name| name.to_str());
            let Some(text) = text else { continue };
            let ours = [INCOMING, CHECKPOINT, STATE];
            let Some(number) = ours.iter().find_map(|prefix| text.strip_prefix(prefix)) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            self.numbers.fetch_max(number + 1, Ordering::Relaxed);
            if path != current {
                tracing::info!(path = %path.display(), "removing what an earlier run left behind");
                fs::remove_dir_all(&path).map_err(|error| io_error(&path, error))?;
            }
        }
        Ok(())
    }

    fn fresh(&self, prefix: &str) -> PathBuf {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!("{prefix}{number}"))
    }

    /// A name for the files of a snapshot that is being received.
    pub fn fresh_incoming(&self) -> PathBuf {
        self.fresh(INCOMING)
    }

    /// A name for a checkpoint that is to be sent.
    pub fn fresh_checkpoint(&self) -> PathBuf {
        self.fresh(CHECKPOINT)
    }

    /// Makes the complete and synced folder `received` the live state; its new path.
    pub fn adopt(&self, received: &Path) -> Result<PathBuf, Error> {
        let path = self.fresh(STATE);
        fs::rename(received, &path).map_err(|error| io_error(received, error))?;
        sync_directory(&self.root)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("built from a prefix and a number");
        write_atomically(&self.root.join(CURRENT), format!("{name}\n").as_bytes())?;
        Ok(path)
    }

    /// `replaced` lives on for as long as readers hold views of it; then its folder goes.
    pub fn retire(&self, replaced: &Arc<Db>, path: PathBuf) {
        self.retired.lock().push((Arc::downgrade(replaced), path));
    }

    /// Removes the folders of replaced states that nobody reads any longer.
    pub fn remove_retired(&self) -> Result<(), Error> {
        let mut unread = Vec::new();
        self.retired.lock().retain(|(db, path)| {
            let read = db.strong_count() > 0;
            if !read {
                unread.push(path.clone());
            }
            read
        });
        for path in unread {
            fs::remove_dir_all(&path).map_err(|error| io_error(&path, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adopted_state_is_current_after_a_restart_and_leftovers_go() {
        let root = tempfile::tempdir().unwrap();
        let directory = StateDirectory::open(root.path()).unwrap();
        let first = directory.current_path().unwrap();
        fs::create_dir(&first).unwrap();
        let incoming = directory.fresh_incoming();
        fs::create_dir(&incoming).unwrap();
        fs::write(incoming.join("file"), b"content").unwrap();
        let adopted = directory.adopt(&incoming).unwrap();
        let checkpoint = directory.fresh_checkpoint();
        fs::create_dir(&checkpoint).unwrap();

        let again = StateDirectory::open(root.path()).unwrap();
        assert_eq!(again.current_path().unwrap(), adopted);
        assert_eq!(fs::read(adopted.join("file")).unwrap(), b"content");
        assert!(!first.exists() && !incoming.exists() && !checkpoint.exists());
        assert_ne!(again.fresh_checkpoint(), checkpoint);
    }

    #[test]
    fn a_pointer_to_nowhere_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(CURRENT), b"../other\n").unwrap();
        assert!(matches!(
            StateDirectory::open(root.path()),
            Err(Error::Damaged { .. })
        ));
    }
}
