//! Builds the state from the content of etcd's file (a snapshot, or `member/snap/db`).
//!
//! Records come in the order of their revisions, so that each finds what it replaces in `live`:
//! the same rows come about as when the commands had been applied one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_snapshot::{Entries, Error as FileError, etcd};

use super::layout::{Head, LeaseRow};
use super::record::Record;
use super::{Batch, Db, Error};
use crate::model::kv::{AlarmMember, KeyValue};
use crate::model::member::Member;
use crate::model::{Conditions, Position};

/// A commit's size: large enough that its cost does not count, small enough for any machine.
const COMMIT_BYTES: usize = 1024 * 1024;
/// etcd's first revision.
const REVISION_FIRST: i64 = 1;
const NEVER_COMPACTED: i64 = -1;

/// Receives a file's content and writes it to an empty store.
pub struct Importer {
    db: Arc<Db>,
    batch: Batch,
    bucket: Vec<u8>,
    revision: i64,
    compacted: i64,
    applied: Position,
    members: Vec<Member>,
    alarms: Vec<AlarmMember>,
    leases: BTreeSet<i64>,
    /// Leases that records name, which may not be there.
    named_leases: BTreeSet<i64>,
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
    pub fn new(db: Arc<Db>) -> Self {
        Self {
            batch: db.batch(),
            db,
            bucket: Vec::new(),
            revision: REVISION_FIRST,
            compacted: NEVER_COMPACTED,
            applied: Position::default(),
            members: Vec::new(),
            alarms: Vec::new(),
            leases: BTreeSet::new(),
            named_leases: BTreeSet::new(),
        }
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
        // A key may name a lease that is gone; such a lease must not get the key if it comes back.
        self.batch.commit_pending()?;
        for lease in self.named_leases.difference(&self.leases) {
            for key in self.db.reader().lease_keys(*lease)? {
                self.batch.set_attached(*lease, &key, false);
            }
        }
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
        self.db.flush()?;
        Ok(imported)
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
        let key = Bytes::copy_from_slice(record.key);
        let replaced = self.batch.reader().head(&key).map_err(FileError::sink)?;
        let old_lease = replaced.map_or(0, |head| head.lease);
        if at.is_tombstone {
            let tombstone = KeyValue {
                key: key.clone(),
                mod_revision: at.main,
                ..Default::default()
            };
            let tombstone = tombstone.encode_to_vec();
            self.attach(&key, old_lease, 0);
            let place = (at.main, at.sub);
            self.batch
                .delete_imported(&key, place, &tombstone, replaced.as_ref());
        } else {
            if record.version < 1 || record.mod_revision != at.main {
                return Err(bad("says another revision, or version 0"));
            }
            self.attach(&key, old_lease, record.lease);
            let head = Head::of(&record, at.sub);
            let record = Bytes::copy_from_slice(value);
            self.batch.put_pair(&key, head, record, replaced.as_ref());
        }
        if self.batch.size_bytes() >= COMMIT_BYTES {
            self.batch.commit_pending().map_err(FileError::sink)?;
        }
        Ok(())
    }

    fn attach(&mut self, key: &Bytes, from: i64, to: i64) {
        if from == to {
            return;
        }
        if from != 0 {
            self.batch.set_attached(from, key, false);
        }
        if to != 0 {
            self.batch.set_attached(to, key, true);
            self.named_leases.insert(to);
        }
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
