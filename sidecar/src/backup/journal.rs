//! What is being uploaded, on the local disk: a sidecar that was killed finds there what its
//! successor has to remove. An upload without an end costs money and is seen by nobody.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use quorate_sidecar::wire::Store;
use serde::{Deserialize, Serialize};

use super::manifest_key;
use crate::failure::{Failure, Reason};
use crate::store::{Mounts, Place};

const NAME: &str = "uploads.json";
/// More than that means that a store has refused for long; the oldest are left to its own rules.
const ENTRIES_MAX: usize = 32;

/// The uploads that have not ended.
pub struct Journal {
    path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    store: Store,
    key: String,
    /// By what the store knows its parts.
    upload_id: Option<String>,
}

impl Journal {
    /// Reads the journal in `folder`; one that cannot be read is begun anew.
    pub fn open(folder: &Path) -> Self {
        let path = folder.join(NAME);
        let entries = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the journal of uploads is broken");
                Vec::new()
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "no journal of uploads");
                Vec::new()
            }
        };
        Self { path, entries }
    }

    /// Notes an upload to `key`, or its ID.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(
        &mut self,
        store: &Store,
        key: &str,
        upload_id: Option<&str>,
    ) -> Result<(), Failure> {
        self.entries.retain(|entry| entry.key != key);
        if self.entries.len() == ENTRIES_MAX {
            self.entries.remove(0);
        }
        self.entries.push(Entry {
            store: store.clone(),
            key: key.to_owned(),
            upload_id: upload_id.map(str::to_owned),
        });
        self.write()
    }

    /// Strikes out what has ended.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn remove(&mut self, key: &str) -> Result<(), Failure> {
        self.entries.retain(|entry| entry.key != key);
        self.write()
    }

    fn write(&self) -> Result<(), Failure> {
        let failed = |error| Failure::disk(self.path.display(), &error);
        let text = serde_json::to_vec(&self.entries);
        let text = text.map_err(|error| Failure::internal(error.to_string()))?;
        let part = self.path.with_extension("part");
        fs::write(&part, text).map_err(failed)?;
        fs::rename(&part, &self.path).map_err(failed)
    }

    /// Deletes the object `key`, which does not count as a backup, and strikes it out.
    pub async fn forget(&mut self, place: &Place, key: &str) {
        let forgotten = match place.delete(key).await {
            Ok(()) => self.remove(key),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = forgotten {
            tracing::warn!(key, %failure, "an object that is no backup may be left");
        }
    }

    /// Removes what earlier uploads left. What cannot be removed is tried again another time.
    pub async fn clean(&mut self, mounts: &Mounts) {
        for entry in self.entries.clone() {
            let cleaned = match clean(&entry, mounts).await {
                Ok(()) => self.remove(&entry.key),
                Err(failure) => Err(failure),
            };
            let key = &entry.key;
            match cleaned {
                Ok(()) => tracing::info!(key, "removed what an unfinished upload left"),
                Err(failure) => {
                    tracing::warn!(key, %failure, "what an unfinished upload left is still there");
                }
            }
        }
    }
}

async fn clean(entry: &Entry, mounts: &Mounts) -> Result<(), Failure> {
    let place = Place::open(&entry.store, mounts)?;
    place.clean(&entry.key, entry.upload_id.as_deref()).await?;
    // The last moment before its end: with a manifest it is a backup.
    match place.size(&manifest_key(&entry.key)?).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.reason == Reason::NotFound => place.delete(&entry.key).await,
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_sidecar::wire::PvcStore;

    #[tokio::test]
    async fn what_a_killed_upload_left_in_a_volume_goes_and_backups_stay() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        fs::create_dir_all(volume.join("a")).unwrap();
        for name in ["x.snap.zst#1", "y.snap.zst", "z.snap.zst", "z.json"] {
            fs::write(volume.join("a").join(name), b"content").unwrap();
        }
        let store = Store {
            pvc: Some(PvcStore {
                claim_name: "c".into(),
            }),
            ..Store::default()
        };
        let mut journal = Journal::open(folder.path());
        for key in ["a/x.snap.zst", "a/y.snap.zst", "a/z.snap.zst"] {
            journal.add(&store, key, None).unwrap();
        }
        let mut journal = Journal::open(folder.path());
        assert_eq!(journal.entries.len(), 3);
        let mounts = Mounts {
            credentials: None,
            volume: volume.clone(),
        };
        journal.clean(&mounts).await;
        let names = fs::read_dir(volume.join("a")).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["z.json", "z.snap.zst"]);
        assert!(Journal::open(folder.path()).entries.is_empty());
    }
}
