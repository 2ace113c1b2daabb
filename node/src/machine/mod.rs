//! Floor 3: the law. Synchronous and deterministic: every member that applies the same commands
//! in the same order holds the same state and gives the same answers. No clock, no randomness, no
//! async, no iteration over hash maps.

pub mod compaction;
mod compare;
mod conditions;
mod export;
mod hash;
mod history;
mod lease;
mod members;
pub mod range;
mod revision;
mod txn;
pub mod view;

use std::sync::Arc;

use crate::model::kv::{Command, DeleteRangeRequest, PutRequest, Reply, ResponseHeader, command};
use crate::model::{Conditions, EventBatch, LeaseChange, Refusal};
use crate::storage::{Batch, Db, Error};

pub use crate::model::Position;
use revision::Revision;

/// What applying one command did.
#[derive(Debug)]
pub struct Applied {
    pub outcome: Result<Reply, Refusal>,
    /// The events of the command's revision, if it made one.
    pub events: Option<EventBatch>,
    pub lease_changes: Vec<LeaseChange>,
}

impl Applied {
    fn refused(refusal: Refusal) -> Self {
        Self {
            outcome: Err(refusal),
            events: None,
            lease_changes: Vec::new(),
        }
    }

    fn done(reply: Reply) -> Self {
        Self {
            outcome: Ok(reply),
            events: None,
            lease_changes: Vec::new(),
        }
    }
}

/// The header of an answer as the machine knows it: the revision alone.
pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..Default::default()
    })
}

/// The state machine: the few numbers that must be at hand; all else lies in the store.
#[derive(Debug, Clone)]
pub struct Machine {
    revision: i64,
    compacted: i64,
    conditions: Arc<Conditions>,
}

impl Machine {
    /// Reads the machine's own numbers back from the store; on an empty store, etcd's start
    /// (revision 1).
    pub fn load(db: &Db) -> Result<Self, Error> {
        let progress = db.progress();
        Ok(Self {
            revision: progress.revision,
            compacted: progress.compacted,
            conditions: db.conditions(),
        })
    }

    /// Applies one command on top of `batch`, and counts it there: a commit says what it holds.
    ///
    /// # Errors
    /// Only when the disk fails. A request that is refused is `Applied::outcome`.
    pub fn apply(&mut self, batch: &mut Batch, command: &Command) -> Result<Applied, Error> {
        let refusal = match &command.kind {
            Some(kind) => conditions::refusal(&self.conditions, kind),
            None => None,
        };
        let applied = match refusal {
            Some(refusal) => Applied::refused(refusal),
            None => self.run(batch, command)?,
        };
        batch.finish_command(self.revision, self.compacted);
        Ok(applied)
    }

    fn run(&mut self, batch: &mut Batch, command: &Command) -> Result<Applied, Error> {
        Ok(match &command.kind {
            Some(command::Kind::Put(request)) => self.put(batch, request)?,
            Some(command::Kind::DeleteRange(request)) => self.delete_range(batch, request)?,
            Some(command::Kind::Txn(request)) => self.txn(batch, request)?,
            Some(command::Kind::Compaction(request)) => self.compact(request),
            Some(command::Kind::LeaseGrant(request)) => self.grant(batch, request)?,
            Some(command::Kind::LeaseRevoke(request)) => self.revoke(batch, request)?,
            Some(command::Kind::LeaseCheckpoint(request)) => self.checkpoint(batch, request)?,
            Some(command::Kind::MemberAttributes(request)) => {
                members::set_attributes(batch, request)?
            }
            Some(command::Kind::Alarm(request)) => self.alarm(batch, request),
            Some(command::Kind::Downgrade(request)) => self.downgrade(batch, request),
            // A command of a version newer than ours: going on would let the members differ.
            None => {
                return Err(Error::Engine(
                    "the log holds a command that this version does not know".into(),
                ));
            }
        })
    }

    /// The current revision, which later views show once the batch is committed.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The revision of the last compaction, below which history is gone; -1 before the first.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// etcd: server/etcdserver/txn/put.go.
    fn put(&mut self, batch: &mut Batch, request: &PutRequest) -> Result<Applied, Error> {
        if let Some(refusal) = revision::check_put(batch.reader(), request)? {
            return Ok(Applied::refused(refusal));
        }
        let mut revision = Revision::begin(batch, self.revision);
        let response = revision.put(request)?;
        Ok(self.end(revision, |_| Reply::Put(response)))
    }

    /// etcd: server/etcdserver/txn/delete.go.
    fn delete_range(
        &mut self,
        batch: &mut Batch,
        request: &DeleteRangeRequest,
    ) -> Result<Applied, Error> {
        let mut revision = Revision::begin(batch, self.revision);
        let response = revision.delete_range(request)?;
        Ok(self.end(revision, |_| Reply::DeleteRange(response)))
    }

    /// Takes over the revision that was made, if one was. `reply` gets the current revision.
    fn end(&mut self, revision: Revision<'_>, reply: impl FnOnce(i64) -> Reply) -> Applied {
        let events = revision.finish();
        if let Some(events) = &events {
            self.revision = events.revision;
        }
        Applied {
            outcome: Ok(reply(self.revision)),
            events,
            lease_changes: Vec::new(),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A machine over a real store in a temporary directory.

    use std::sync::Arc;

    use bytes::Bytes;

    use super::view::View;
    use super::*;
    use crate::model::kv::{
        CompactionRequest, LeaseGrantRequest, LeaseRevokeRequest, RangeRequest, TxnRequest,
    };

    pub struct Rig {
        pub directory: tempfile::TempDir,
        pub db: Arc<Db>,
        pub machine: Machine,
        index: u64,
    }

    impl Rig {
        pub fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let db = Db::open(&directory.path().join("state")).unwrap();
            let machine = Machine::load(&db).unwrap();
            Self {
                directory,
                db,
                machine,
                index: 0,
            }
        }

        /// Applies `commands` as one entry and one commit.
        pub fn apply_all(&mut self, commands: Vec<command::Kind>) -> Vec<Applied> {
            let mut batch = self.db.batch();
            let mut applied = Vec::new();
            for kind in commands {
                let command = Command { kind: Some(kind) };
                applied.push(self.machine.apply(&mut batch, &command).unwrap());
            }
            self.index += 1;
            batch.finish_entry(Position {
                term: 1,
                index: self.index,
            });
            self.db.commit(batch).unwrap();
            applied
        }

        pub fn apply(&mut self, kind: command::Kind) -> Applied {
            self.apply_all(vec![kind]).remove(0)
        }

        pub fn view(&self) -> View {
            View::of(&self.db)
        }

        pub fn put(&mut self, key: &'static str, value: &'static str) -> i64 {
            match self.apply(put(key, value, 0)).outcome.unwrap() {
                Reply::Put(response) => response.header.unwrap().revision,
                other => panic!("{other:?}"),
            }
        }

        /// key=value@mod of a range.
        pub fn list(&self, key: &'static str, end: &'static [u8], revision: i64) -> String {
            let request = range(key, end, revision);
            let response = self.view().range(&request).unwrap();
            show(&response.kvs)
        }
    }

    pub fn show(kvs: &[crate::model::kv::KeyValue]) -> String {
        let shown: Vec<_> = kvs
            .iter()
            .map(|pair| {
                let key = String::from_utf8_lossy(&pair.key);
                let value = String::from_utf8_lossy(&pair.value);
                format!("{key}={value}@{}", pair.mod_revision)
            })
            .collect();
        shown.join(" ")
    }

    pub fn put(key: &'static str, value: &'static str, lease: i64) -> command::Kind {
        command::Kind::Put(PutRequest {
            key: key.into(),
            value: value.into(),
            lease,
            ..Default::default()
        })
    }

    pub fn range(key: &'static str, end: &'static [u8], revision: i64) -> RangeRequest {
        RangeRequest {
            key: key.into(),
            range_end: Bytes::from_static(end),
            revision,
            ..Default::default()
        }
    }

    pub fn delete(key: &'static str, end: &'static [u8]) -> command::Kind {
        command::Kind::DeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: Bytes::from_static(end),
            prev_kv: true,
        })
    }

    pub fn compact(revision: i64) -> command::Kind {
        command::Kind::Compaction(CompactionRequest {
            revision,
            physical: false,
        })
    }

    pub fn grant(id: i64, ttl: i64) -> command::Kind {
        command::Kind::LeaseGrant(LeaseGrantRequest { ttl, id })
    }

    pub fn revoke(id: i64) -> command::Kind {
        command::Kind::LeaseRevoke(LeaseRevokeRequest { id })
    }

    pub fn txn(request: TxnRequest) -> command::Kind {
        command::Kind::Txn(request)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use crate::model::EventKind;

    #[test]
    fn revisions_versions_and_events_of_puts_and_deletes() {
        let mut rig = Rig::new();
        assert_eq!(rig.view().revision, 1);
        assert_eq!(rig.put("a", "1"), 2);
        // Two commands of one batch: the second sees the first.
        let applied = rig.apply_all(vec![put("a", "2", 0), put("a", "3", 0), delete("x", b"")]);
        let last = applied[1].events.as_ref().unwrap();
        assert_eq!(last.revision, 4);
        assert_eq!(last.events[0].previous, Some((3, 0)));
        assert!(applied[2].events.is_none());
        match applied[2].outcome.as_ref().unwrap() {
            Reply::DeleteRange(none) => {
                assert_eq!((none.deleted, none.header.unwrap().revision), (0, 4));
            }
            other => panic!("{other:?}"),
        }
        let pair = rig.view().range(&range("a", b"", 0)).unwrap().kvs.remove(0);
        assert_eq!(
            (pair.create_revision, pair.mod_revision, pair.version),
            (2, 4, 3)
        );

        rig.put("b", "1");
        let gone = rig.apply(delete("", b"\0"));
        let events = gone.events.unwrap();
        assert_eq!(events.revision, 6);
        assert_eq!(events.events.len(), 2);
        assert_eq!(events.events[1].kind, EventKind::Delete);
        assert_eq!(events.events[1].previous, Some((5, 0)));
        match gone.outcome.unwrap() {
            Reply::DeleteRange(response) => {
                assert_eq!(show(&response.prev_kvs), "a=3@4 b=1@5");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(rig.list("", b"\0", 0), "");
        assert_eq!(rig.list("", b"\0", 5), "a=3@4 b=1@5");
        assert_eq!(rig.list("", b"\0", 3), "a=2@3");
        assert_eq!(rig.list("a", b"", 2), "a=1@2");
        assert_eq!(rig.list("b", b"", 4), "");
        // A new life starts at version 1.
        rig.put("a", "4");
        let pair = rig.view().range(&range("a", b"", 0)).unwrap().kvs.remove(0);
        assert_eq!((pair.create_revision, pair.version), (7, 1));
        assert_eq!(rig.list("a", b"", 6), "");
    }

    #[test]
    fn refused_puts_change_nothing() {
        let mut rig = Rig::new();
        let unknown_lease = rig.apply(put("a", "1", 7)).outcome;
        assert_eq!(unknown_lease, Err(Refusal::LeaseNotFound));
        let missing = rig.apply(command::Kind::Put(PutRequest {
            key: "a".into(),
            ignore_value: true,
            ..Default::default()
        }));
        assert_eq!(missing.outcome, Err(Refusal::KeyNotFound));
        assert_eq!(rig.view().revision, 1);
        assert_eq!(rig.list("", b"\0", 0), "");
    }

    #[test]
    fn a_store_that_is_opened_again_goes_on() {
        let mut rig = Rig::new();
        rig.put("a", "1");
        rig.apply(grant(5, 60));
        rig.apply(compact(2));
        rig.db.flush().unwrap();
        let path = rig.db.path().to_owned();
        let Rig { db, directory, .. } = rig;
        drop(db);
        let db = Db::open(&path).unwrap();
        let machine = Machine::load(&db).unwrap();
        assert_eq!((machine.revision(), machine.compacted()), (2, 2));
        let progress = db.progress();
        assert_eq!(progress.applied, Position { term: 1, index: 3 });
        assert_eq!(progress.next_entry_commands, 0);
        assert_eq!(view::View::of(&db).leases().unwrap().len(), 1);
        drop(directory);
    }
}
