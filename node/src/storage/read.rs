//! Point reads and small columns, of a snapshot, of the committed state, or of a batch's overlay
//! above it. Scans over user keys are in `scan.rs`.

use std::collections::BTreeSet;

use bytes::Bytes;
use rocksdb::{DBPinnableSlice, DBRawIterator, ReadOptions};

use super::batch::Overlay;
use super::layout::{self, Column, Head, LeaseRow, LiveValue, damaged};
use super::record::Record;
use super::snapshot::Frozen;
use super::{Db, Error};
use crate::model::member::Member;

/// Reads one state of the store.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    db: &'a Db,
    frozen: Option<&'a Frozen<'a>>,
    overlay: Option<&'a Overlay>,
}

/// A live pair, with its whole record when that lies beside the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub head: Head,
    pub record: Bytes,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        db: &'a Db,
        frozen: Option<&'a Frozen<'a>>,
        overlay: Option<&'a Overlay>,
    ) -> Self {
        Self {
            db,
            frozen,
            overlay,
        }
    }

    pub(super) fn db(&self) -> &'a Db {
        self.db
    }

    /// Reads of what the batch lies on.
    pub(super) fn without_overlay(&self) -> Self {
        Self {
            overlay: None,
            ..*self
        }
    }

    pub(super) fn overlay(&self) -> Option<&'a Overlay> {
        self.overlay
    }

    pub(super) fn get(
        &self,
        column: Column,
        key: &[u8],
    ) -> Result<Option<DBPinnableSlice<'a>>, Error> {
        let options = match self.frozen {
            Some(frozen) => &frozen.options,
            None => self.db.read_options(),
        };
        self.db.get(column, key, options)
    }

    /// An iterator over `column` within `[lower, upper)`; no `upper` is the end.
    pub(super) fn iterate(
        &self,
        column: Column,
        lower: Vec<u8>,
        upper: Option<Vec<u8>>,
    ) -> DBRawIterator<'a> {
        let mut options = ReadOptions::default();
        if let Some(frozen) = self.frozen {
            options.set_snapshot(&frozen.snapshot);
        }
        options.set_iterate_lower_bound(lower);
        if let Some(upper) = upper {
            options.set_iterate_upper_bound(upper);
        }
        self.db.iterate(column, options)
    }

    /// The head of a live key.
    pub fn head(&self, key: &[u8]) -> Result<Option<Head>, Error> {
        if let Some(entry) = self.overlay.and_then(|overlay| overlay.live.get(key)) {
            return Ok(entry.as_ref().map(|pair| pair.head));
        }
        if let Some(pair) = self.db.recent().get(key, self.revision()) {
            return Ok(Some(pair.head));
        }
        let Some(encoded) = self.get(Column::Live, key)? else {
            return Ok(None);
        };
        let live = LiveValue::decode(&encoded).ok_or_else(|| damaged(Column::Live, key))?;
        Ok(Some(live.head))
    }

    /// A live key with its record.
    pub fn pair(&self, key: &[u8]) -> Result<Option<Pair>, Error> {
        if let Some(entry) = self.overlay.and_then(|overlay| overlay.live.get(key)) {
            return Ok(entry.clone());
        }
        let load = || self.load_pair(key);
        self.db.recent().get_or_load(key, self.revision(), load)
    }

    /// The revision of the newest change that this reader sees.
    pub(super) fn revision(&self) -> i64 {
        self.frozen.map_or(i64::MAX, |frozen| frozen.revision)
    }

    fn load_pair(&self, key: &[u8]) -> Result<Option<Pair>, Error> {
        let Some(encoded) = self.get(Column::Live, key)? else {
            return Ok(None);
        };
        let live = LiveValue::decode(&encoded).ok_or_else(|| damaged(Column::Live, key))?;
        let record = match live.record {
            Some(record) => Bytes::copy_from_slice(record),
            None => {
                let record = self.present(live.head.mod_revision, live.head.sub)?;
                Bytes::copy_from_slice(&record)
            }
        };
        Ok(Some(Pair {
            head: live.head,
            record,
        }))
    }

    /// The record at (main, sub); none once it is compacted. Pending writes are not seen.
    pub fn record(&self, main: i64, sub: i64) -> Result<Option<Bytes>, Error> {
        let encoded = self.get(Column::Rev, &layout::revision_key(main, sub))?;
        Ok(encoded.map(|encoded| Bytes::copy_from_slice(&encoded)))
    }

    /// The record at (main, sub), which something points to.
    pub(super) fn present(&self, main: i64, sub: i64) -> Result<DBPinnableSlice<'a>, Error> {
        let record = self.get(Column::Rev, &layout::revision_key(main, sub))?;
        record.ok_or_else(|| Error::Engine(format!("column rev lacks the record at {main}/{sub}")))
    }

    /// The version of `key` that was replaced at (main, sub), unless compaction deleted it.
    pub fn replaced(&self, key: &[u8], main: i64, sub: i64) -> Result<Option<(i64, i64)>, Error> {
        let mut past = Vec::with_capacity(key.len() + 18);
        layout::past_key(key, main, sub, &mut past);
        match self.get(Column::Past, &past)? {
            None => Ok(None),
            Some(encoded) => match layout::decode_revision(&encoded) {
                None => Err(damaged(Column::Past, &past)),
                found => Ok(found),
            },
        }
    }

    /// Hands every record from (main, sub) on to `each`, in order, until it returns false.
    pub fn records(
        &self,
        from: (i64, i64),
        mut each: impl FnMut(i64, i64, &[u8], &Record<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let lower = layout::revision_key(from.0, from.1);
        let mut disk = self.iterate(Column::Rev, lower.to_vec(), None);
        disk.seek(lower);
        while let Some((key, encoded)) = disk.item() {
            let (main, sub) =
                layout::decode_revision(key).ok_or_else(|| damaged(Column::Rev, key))?;
            let record = Record::parse(encoded).ok_or_else(|| damaged(Column::Rev, key))?;
            if !each(main, sub, encoded, &record)? {
                return Ok(());
            }
            disk.next();
        }
        Ok(disk.status()?)
    }

    pub fn lease(&self, id: i64) -> Result<Option<LeaseRow>, Error> {
        if let Some(entry) = self.overlay.and_then(|overlay| overlay.leases.get(&id)) {
            return Ok(*entry);
        }
        let key = layout::lease_key(id);
        match self.get(Column::Lease, &key)? {
            None => Ok(None),
            Some(encoded) => match LeaseRow::decode(&encoded) {
                None => Err(damaged(Column::Lease, &key)),
                row => Ok(row),
            },
        }
    }

    /// All committed leases, by ID.
    pub fn leases(&self) -> Result<Vec<(i64, LeaseRow)>, Error> {
        let mut leases = Vec::new();
        let mut disk = self.iterate(Column::Lease, Vec::new(), None);
        disk.seek_to_first();
        while let Some((key, encoded)) = disk.item() {
            let lease = layout::decode_lease(key).zip(LeaseRow::decode(encoded));
            let ((id, _), row) = lease.ok_or_else(|| damaged(Column::Lease, key))?;
            leases.push((id, row));
            disk.next();
        }
        disk.status()?;
        Ok(leases)
    }

    /// The keys attached to lease `id`, in order.
    pub fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, Error> {
        let mut keys = BTreeSet::new();
        let prefix = layout::lease_key(id);
        let mut disk = self.iterate(Column::LeaseKeys, prefix.to_vec(), None);
        disk.seek(prefix);
        while let Some(key) = disk.key() {
            let Some(user_key) = key.strip_prefix(&prefix) else {
                break;
            };
            keys.insert(Bytes::copy_from_slice(user_key));
            disk.next();
        }
        disk.status()?;
        if let Some(overlay) = self.overlay {
            let from = (id, Bytes::new());
            for ((lease, key), attached) in overlay.attachments.range(from..) {
                if *lease != id {
                    break;
                }
                if *attached {
                    keys.insert(key.clone());
                } else {
                    keys.remove(key);
                }
            }
        }
        Ok(keys.into_iter().collect())
    }

    /// Whether the committed state knows a member with this ID that was removed.
    pub fn is_removed(&self, id: u64) -> Result<bool, Error> {
        let found = self.get(Column::Meta, &layout::removed_key(id))?;
        Ok(found.is_some())
    }

    /// The members by ID.
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        let mut members = std::collections::BTreeMap::new();
        let mut disk = self.iterate(Column::Member, Vec::new(), None);
        disk.seek_to_first();
        while let Some((key, encoded)) = disk.item() {
            let member =
                layout::decode_member(encoded).ok_or_else(|| damaged(Column::Member, key))?;
            members.insert(member.id, member);
            disk.next();
        }
        disk.status()?;
        for (id, entry) in self.overlay.iter().flat_map(|overlay| &overlay.members) {
            match entry {
                Some(member) => members.insert(*id, member.clone()),
                None => members.remove(id),
            };
        }
        Ok(members.into_values().collect())
    }
}
