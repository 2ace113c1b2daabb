//! Builds the state from the content of etcd's file (a snapshot, or `member/snap/db`).
//!
//! Records come in the order of their revisions, so that `rev` is written as a table at once. What
//! belongs to a key is sorted beside and then written by key: the same rows come about as when the
//! commands had been applied one by one, and each is written once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_snapshot::{Entries, Error as FileError, etcd};

use super::layout::{self, Column, Head, LeaseRow, LiveValue};
use super::record::Record;
use super::tables::Tables;
use super::versions::{Version, Versions};
use super::{Batch, Db, Error};
use crate::model::kv::{AlarmMember, KeyValue};
use crate::model::member::Member;
use crate::model::{Conditions, Position};

/// The folder in the store's in which tables are written.
const FOLDER: &str = "import";
/// A commit's size: large enough that its cost does not count, small enough for any machine.
const COMMIT_BYTES: usize = 1024 * 1024;
/// etcd's first revision.
const REVISION_FIRST: i64 = 1;
const NEVER_COMPACTED: i64 = -1;

/// Receives a file's content and writes it to an empty store.
pub struct Importer {
    db: Arc<Db>,
    batch: Batch,
    /// Where tables and runs lie until the store has taken them in.
    folder: PathBuf,
    records: Tables,
    versions: Versions,
    scratch: Vec<u8>,
    /// Where the last record lies.
    last: (i64, i64),
    bucket: Vec<u8>,
    revision: i64,
    compacted: i64,
    applied: Position,
    members: Vec<Member>,
    alarms: Vec<AlarmMember>,
    leases: BTreeSet<i64>,
}

/// What a file said, apart from its records and leases.
#[derive(Debug, Clone)]
pub struct Imported {
    pub revision: i64,
    pub compacted: i64,
    /// The last raft entry that is in it.
    pub applied: Position,
    pub members: Vec<Member>,
}

impl Importer {
    /// Writes to `db`, which holds nothing.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn new(db: Arc<Db>) -> Result<Self, Error> {
        let folder = db.path().join(FOLDER);
        std::fs::create_dir(&folder).map_err(|source| Error::Io {
            path: folder.display().to_string(),
            source,
        })?;
        Ok(Self {
            batch: db.batch(),
            records: Tables::new(Column::Rev, &folder),
            versions: Versions::new(&folder),
            folder,
            scratch: Vec::new(),
            last: (0, -1),
            db,
            bucket: Vec::new(),
            revision: REVISION_FIRST,
            compacted: NEVER_COMPACTED,
            applied: Position::default(),
            members: Vec::new(),
            alarms: Vec::new(),
            leases: BTreeSet::new(),
        })
    }

    /// Ends the import. `membership` gives raft's membership, as bytes, for what was read. The
    /// store is durable afterwards.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(
        mut self,
        membership: impl FnOnce(&Imported) -> Result<Vec<u8>, Error>,
    ) -> Result<Imported, Error> {
        self.write_versions()?;
        for member in &self.members {
            self.batch.put_member(member.clone());
        }
        let imported = Imported {
            revision: self.revision.max(self.compacted),
            compacted: self.compacted,
            applied: self.applied,
            members: std::mem::take(&mut self.members),
        };
        if !self.alarms.is_empty() {
            let alarms = std::mem::take(&mut self.alarms);
            self.batch
                .set_conditions(Arc::new(Conditions::new(alarms, None)));
        }
        self.batch.set_membership(&membership(&imported)?);
        self.batch
            .finish_command(imported.revision, imported.compacted);
        self.batch.finish_entry(imported.applied);
        self.batch.commit_pending()?;
        self.records.take_in(&self.db)?;
        self.db.flush()?;
        std::fs::remove_dir_all(&self.folder).map_err(|source| Error::Io {
            path: self.folder.display().to_string(),
            source,
        })?;
        Ok(imported)
    }

    /// Writes what is by key: the newest version, what each version replaced, and the leases' keys.
    fn write_versions(&mut self) -> Result<(), Error> {
        let versions = std::mem::replace(&mut self.versions, Versions::new(&self.folder));
        let mut by_key = ByKey {
            live: Tables::new(Column::Live, &self.folder),
            past: Tables::new(Column::Past, &self.folder),
            leases: &self.leases,
            batch: &mut self.batch,
            newest: None,
            scratch: Vec::new(),
        };
        versions.merge(|version| by_key.take(version))?;
        by_key.end_key()?;
        let ByKey { live, past, .. } = by_key;
        live.take_in(&self.db)?;
        past.take_in(&self.db)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), FileError> {
        let at = etcd::decode_revision(key)?;
        self.revision = self.revision.max(at.main);
        let bad = |what: &str| FileError::Content {
            bucket: "key".into(),
            what: format!("the record at revision {}/{} {what}", at.main, at.sub),
        };
        if value.is_empty() {
            // A restore with --bump-revision marks the new revision so.
            return Ok(());
        }
        let record = Record::parse(value).ok_or_else(|| bad("is no mvccpb.KeyValue"))?;
        if record.key.is_empty() {
            return Err(bad("has no key"));
        }
        let place = (at.main, at.sub);
        if place <= self.last {
            return Err(bad("is there twice"));
        }
        self.last = place;
        let row = layout::revision_key(at.main, at.sub);
        if at.is_tombstone {
            let tombstone = KeyValue {
                key: Bytes::copy_from_slice(record.key),
                mod_revision: at.main,
                ..Default::default()
            };
            let tombstone = tombstone.encode_to_vec();
            self.records
                .put(&row, &tombstone)
                .map_err(FileError::sink)?;
            let pushed = self.versions.push(record.key, place, 0, None);
            return pushed.map_err(FileError::sink);
        }
        if record.version < 1 || record.mod_revision != at.main {
            return Err(bad("says another revision, or version 0"));
        }
        self.records.put(&row, value).map_err(FileError::sink)?;
        self.scratch.clear();
        LiveValue::encode(&Head::of(&record, at.sub), value, &mut self.scratch);
        let live = Some(self.scratch.as_slice());
        let pushed = self.versions.push(record.key, place, record.lease, live);
        pushed.map_err(FileError::sink)
    }

    fn lease(&mut self, value: &[u8]) -> Result<(), FileError> {
        let lease = etcd::lease(value)?;
        let row = LeaseRow {
            ttl_seconds: lease.ttl,
            remaining_seconds: lease.remaining_ttl,
        };
        self.batch.put_lease(lease.id, row);
        self.leases.insert(lease.id);
        if self.batch.size_bytes() >= COMMIT_BYTES {
            self.batch.commit_pending().map_err(FileError::sink)?;
        }
        Ok(())
    }

    fn meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), FileError> {
        match key {
            etcd::CONSISTENT_INDEX => self.applied.index = etcd::number(value)?,
            etcd::TERM => self.applied.term = etcd::number(value)?,
            etcd::SCHEDULED_COMPACT | etcd::FINISHED_COMPACT => {
                self.compacted = self.compacted.max(etcd::decode_compaction(value)?);
            }
            etcd::STORAGE_VERSION => etcd::check_storage_version(value)?,
            _ => {}
        }
        Ok(())
    }
}

/// Writes versions as they come by key.
struct ByKey<'a> {
    live: Tables,
    past: Tables,
    leases: &'a BTreeSet<i64>,
    batch: &'a mut Batch,
    /// The last version of the key at work, unless it is a tombstone.
    newest: Option<Version>,
    scratch: Vec<u8>,
}

impl ByKey<'_> {
    fn take(&mut self, version: Version) -> Result<(), Error> {
        let same = self.newest.as_ref().is_some_and(|it| it.key == version.key);
        if same && let Some(replaced) = &self.newest {
            self.scratch.clear();
            layout::past_key(&version.key, version.at.0, version.at.1, &mut self.scratch);
            let before = layout::revision_key(replaced.at.0, replaced.at.1);
            self.past.put(&self.scratch, &before)?;
        } else {
            self.end_key()?;
        }
        self.newest = version.live.is_some().then_some(version);
        Ok(())
    }

    /// The key that was at work has no version more.
    fn end_key(&mut self) -> Result<(), Error> {
        let Some(newest) = self.newest.take() else {
            return Ok(());
        };
        self.live
            .put(&newest.key, newest.live.as_deref().unwrap_or_default())?;
        // A key may name a lease that is gone; such a lease must not get the key if it comes back.
        if newest.lease != 0 && self.leases.contains(&newest.lease) {
            self.batch
                .set_attached(newest.lease, &newest.key.into(), true);
            if self.batch.size_bytes() >= COMMIT_BYTES {
                self.batch.commit_pending()?;
            }
        }
        Ok(())
    }
}

impl Entries for Importer {
    fn bucket(&mut self, name: &[u8]) -> Result<(), FileError> {
        self.bucket = name.to_vec();
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), FileError> {
        let unsupported = |what: &str| FileError::Content {
            bucket: String::from_utf8_lossy(&self.bucket).into_owned(),
            what: format!("{what} not supported yet"),
        };
        match self.bucket.as_slice() {
            etcd::KEY => self.record(key, value),
            etcd::LEASE => self.lease(value),
            etcd::META => self.meta(key, value),
            etcd::MEMBERS => {
                let member = etcd::Member::decode(value)?;
                self.members.push(Member {
                    id: member.id,
                    name: member.name,
                    peer_urls: member.peer_urls,
                    client_urls: member.client_urls,
                    is_learner: member.is_learner,
                });
                Ok(())
            }
            // Without them, everybody could read what only some may.
            etcd::AUTH if key == etcd::AUTH_ENABLED && value == [1] => {
                Err(unsupported("authentication is on, which is"))
            }
            etcd::AUTH_USERS | etcd::AUTH_ROLES => Err(unsupported("users and roles are")),
            etcd::ALARM => {
                // The alarm is the key; there is no value.
                let alarm = AlarmMember::decode(key).map_err(|error| FileError::Content {
                    bucket: "alarm".into(),
                    what: format!("a key is no AlarmMember: {error}"),
                })?;
                self.alarms.push(alarm);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
