//! The writes of one commit, readable before they land.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::WriteBatch;

use super::count::Change;
use super::layout::{self, Column, Head, LeaseRow, LiveValue, Progress};
use super::read::{Pair, Reader};
use super::{Db, Error};
use crate::model::member::Member;
use crate::model::{Conditions, Position};

/// What a batch holds above the committed state. None marks what is deleted.
#[derive(Default)]
pub(super) struct Overlay {
    pub(super) live: BTreeMap<Bytes, Option<Pair>>,
    /// Keys that came or went, in order.
    pub(super) changes: Vec<Change>,
    pub(super) leases: BTreeMap<i64, Option<LeaseRow>>,
    pub(super) attachments: BTreeMap<(i64, Bytes), bool>,
    pub(super) members: BTreeMap<u64, Option<Member>>,
}

impl Overlay {
    fn clear(&mut self) {
        self.live.clear();
        self.changes.clear();
        self.leases.clear();
        self.attachments.clear();
        self.members.clear();
    }
}

/// Of a batch without changes of keys.
const NO_REVISIONS: (i64, i64) = (i64::MAX, 0);

/// Collects the writes of one apply batch; what it holds is seen by later commands of the batch.
///
/// It also counts how far the log is applied, so that a commit always says what it contains: the
/// machine counts each command, and the applier ends each entry with [`Batch::finish_entry`].
pub struct Batch {
    db: Arc<Db>,
    writes: WriteBatch,
    overlay: Overlay,
    progress: Progress,
    /// The revisions of the pending changes, the first and the last.
    revisions: (i64, i64),
    /// Set when they change with this batch.
    conditions: Option<Arc<Conditions>>,
    /// Whether there is anything to commit.
    dirty: bool,
    scratch: Vec<u8>,
}

impl Batch {
    pub(super) fn new(db: Arc<Db>) -> Self {
        let progress = db.progress();
        Self {
            db,
            writes: WriteBatch::default(),
            overlay: Overlay::default(),
            progress,
            revisions: NO_REVISIONS,
            conditions: None,
            dirty: false,
            scratch: Vec::new(),
        }
    }

    /// Reads of the committed state with this batch on top.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.db, None, Some(&self.overlay))
    }

    /// Reads of the committed state alone.
    pub fn committed(&self) -> Reader<'_> {
        self.db.reader()
    }

    /// How far the state is once this batch is committed.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Everything of the raft entry at `position` is applied (also for entries without commands).
    pub fn finish_entry(&mut self, position: Position) {
        self.progress.applied = position;
        self.progress.next_entry_commands = 0;
        self.dirty = true;
    }

    /// One more command of the entry at work is applied, which left these numbers.
    pub fn finish_command(&mut self, revision: i64, compacted: i64) {
        self.progress.next_entry_commands += 1;
        self.progress.revision = revision;
        self.progress.compacted = compacted;
        self.dirty = true;
    }

    /// Stores raft's membership, which the store does not look into.
    pub fn set_membership(&mut self, membership: &[u8]) {
        let meta = &self.db.handle(Column::Meta);
        self.writes
            .put_cf(meta, layout::META_MEMBERSHIP, membership);
        self.dirty = true;
    }

    /// Notes that the member with this ID was removed, for ever.
    pub fn put_removed(&mut self, id: u64) {
        let meta = &self.db.handle(Column::Meta);
        self.writes.put_cf(meta, layout::removed_key(id), []);
        self.dirty = true;
    }

    /// Stores alarms and downgrade, as they hold from here on.
    pub fn set_conditions(&mut self, conditions: Arc<Conditions>) {
        let meta = &self.db.handle(Column::Meta);
        let encoded = layout::encode_conditions(&conditions);
        self.writes.put_cf(meta, layout::META_CONDITIONS, encoded);
        self.conditions = Some(conditions);
        self.dirty = true;
    }

    /// Bytes of the writes so far.
    pub fn size_bytes(&self) -> usize {
        self.writes.size_in_bytes()
    }

    /// Writes what is pending, all at once, and leaves an empty batch on top of it.
    pub fn commit_pending(&mut self) -> Result<(), Error> {
        if !self.dirty {
            return Ok(());
        }
        self.writes.put_cf(
            &self.db.handle(Column::Meta),
            layout::META_PROGRESS,
            self.progress.encode(),
        );
        let recent = self.db.recent();
        recent.begin(self.revisions.1);
        let writes = std::mem::take(&mut self.writes);
        let changes = std::mem::take(&mut self.overlay.changes);
        let write = || self.db.write(writes);
        let counts = self.db.counts();
        counts.commit(&self.db, self.revisions, changes, write)?;
        self.revisions = NO_REVISIONS;
        for (key, pair) in std::mem::take(&mut self.overlay.live) {
            recent.changed(&key, pair);
        }
        self.db.set_progress(self.progress);
        if let Some(conditions) = self.conditions.take() {
            self.db.set_conditions(conditions);
        }
        self.overlay.clear();
        self.dirty = false;
        Ok(())
    }

    /// Writes a new version of a key: its record, what it replaces, and the live pair.
    pub fn put_pair(&mut self, key: &Bytes, head: Head, record: Bytes, replaced: Option<&Head>) {
        self.put_record(key, head.mod_revision, head.sub, &record, replaced);
        self.scratch.clear();
        LiveValue::encode(&head, &record, &mut self.scratch);
        self.writes
            .put_cf(&self.db.handle(Column::Live), key, &self.scratch);
        if replaced.is_none() {
            self.key_changed(key, true);
        }
        self.overlay
            .live
            .insert(key.clone(), Some(Pair { head, record }));
    }

    /// Writes the tombstone of a live key at (main, sub).
    pub fn delete_pair(&mut self, key: &Bytes, at: (i64, i64), tombstone: &[u8], replaced: &Head) {
        self.put_record(key, at.0, at.1, tombstone, Some(replaced));
        self.writes.delete_cf(&self.db.handle(Column::Live), key);
        self.key_changed(key, false);
        self.overlay.live.insert(key.clone(), None);
    }

    fn key_changed(&mut self, key: &Bytes, created: bool) {
        let key = key.clone();
        self.overlay.changes.push(Change { key, created });
    }

    fn put_record(
        &mut self,
        key: &[u8],
        main: i64,
        sub: i64,
        record: &[u8],
        replaced: Option<&Head>,
    ) {
        self.writes.put_cf(
            &self.db.handle(Column::Rev),
            layout::revision_key(main, sub),
            record,
        );
        if let Some(replaced) = replaced {
            self.scratch.clear();
            layout::past_key(key, main, sub, &mut self.scratch);
            self.writes.put_cf(
                &self.db.handle(Column::Past),
                &self.scratch,
                layout::revision_key(replaced.mod_revision, replaced.sub),
            );
        }
        self.revisions = (self.revisions.0.min(main), self.revisions.1.max(main));
        self.dirty = true;
    }

    pub fn put_lease(&mut self, id: i64, row: LeaseRow) {
        let column = &self.db.handle(Column::Lease);
        self.writes
            .put_cf(column, layout::lease_key(id), row.encode());
        self.overlay.leases.insert(id, Some(row));
        self.dirty = true;
    }

    pub fn delete_lease(&mut self, id: i64) {
        let column = &self.db.handle(Column::Lease);
        self.writes.delete_cf(column, layout::lease_key(id));
        self.overlay.leases.insert(id, None);
        self.dirty = true;
    }

    /// Attaches `key` to lease `id`, or detaches it.
    pub fn set_attached(&mut self, id: i64, key: &Bytes, attached: bool) {
        self.scratch.clear();
        layout::lease_attachment(id, key, &mut self.scratch);
        let column = &self.db.handle(Column::LeaseKeys);
        if attached {
            self.writes.put_cf(column, &self.scratch, []);
        } else {
            self.writes.delete_cf(column, &self.scratch);
        }
        self.overlay.attachments.insert((id, key.clone()), attached);
        self.dirty = true;
    }

    pub fn put_member(&mut self, member: Member) {
        self.writes.put_cf(
            &self.db.handle(Column::Member),
            layout::member_key(member.id),
            layout::encode_member(&member),
        );
        self.overlay.members.insert(member.id, Some(member));
        self.dirty = true;
    }

    pub fn delete_member(&mut self, id: u64) {
        let column = &self.db.handle(Column::Member);
        self.writes.delete_cf(column, layout::member_key(id));
        self.overlay.members.insert(id, None);
        self.dirty = true;
    }
}

/// Deletes superseded records, beside the applier and its batches: it touches only what lies
/// before the compacted revision, which no command reads or writes.
pub struct Eraser {
    db: Arc<Db>,
    writes: WriteBatch,
    scratch: Vec<u8>,
}

impl Eraser {
    pub fn new(db: &Arc<Db>) -> Self {
        Self {
            db: Arc::clone(db),
            writes: WriteBatch::default(),
            scratch: Vec::new(),
        }
    }

    /// Deletes the record at (main, sub).
    pub fn delete_record(&mut self, main: i64, sub: i64) {
        let column = &self.db.handle(Column::Rev);
        self.writes
            .delete_cf(column, layout::revision_key(main, sub));
    }

    /// Deletes what points to the version of `key` that was replaced at (main, sub).
    pub fn delete_replaced(&mut self, key: &[u8], main: i64, sub: i64) {
        self.scratch.clear();
        layout::past_key(key, main, sub, &mut self.scratch);
        self.writes
            .delete_cf(&self.db.handle(Column::Past), &self.scratch);
    }

    /// Writes the deletions, and how far they have come, at once.
    pub fn commit(mut self, scrubbed: layout::Scrubbed) -> Result<(), Error> {
        self.writes.put_cf(
            &self.db.handle(Column::Meta),
            layout::META_SCRUBBED,
            scrubbed.encode(),
        );
        self.db.write(self.writes)
    }
}
