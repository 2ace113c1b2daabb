//! Scans over user keys: the current state (with a batch's overlay merged in), and the state at
//! an older revision (from `live` and `past`).

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;
use rocksdb::DBRawIterator;

use super::Error;
use super::layout::{self, Column, Head, LiveValue, damaged};
use super::read::{Pair, Reader};
use super::record::Record;
use crate::model::KeyRange;

/// Where a scan found the version of a key that it looks for.
#[derive(Debug, Clone, Copy)]
pub enum Found<'a> {
    /// The newest version; its record comes along when it is at hand.
    Live {
        head: Head,
        record: Option<&'a [u8]>,
    },
    /// A superseded version, whose record lies in `rev`.
    Past { main: i64, sub: i64 },
}

impl Found<'_> {
    /// (main, sub) of the version.
    pub fn revision(&self) -> (i64, i64) {
        match self {
            Self::Live { head, .. } => (head.mod_revision, head.sub),
            Self::Past { main, sub } => (*main, *sub),
        }
    }
}

/// What a scan calls for each key; false ends the scan.
pub type Visit<'v> = dyn FnMut(&[u8], Found<'_>) -> Result<bool, Error> + 'v;

impl<'a> Reader<'a> {
    /// Hands each key of `range`, in order, to `visit`: as it is now, or as it was at the
    /// revision `at`, which must not be compacted and of which pending writes are not part.
    pub fn scan(
        &self,
        range: &KeyRange,
        at: Option<i64>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        match (range, at) {
            (KeyRange::One(key), None) => self.visit_now(key, visit),
            (KeyRange::One(key), Some(at)) => self.visit_at(key, at, visit),
            _ if range.is_empty() => Ok(()),
            (_, None) => self.scan_now(range, visit),
            (_, Some(at)) => self.scan_at(range, at, visit),
        }
    }

    /// Hands the whole record of what a scan found to `use_record`.
    pub fn with_record<T>(
        &self,
        found: &Found<'_>,
        use_record: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Error> {
        if let Found::Live {
            record: Some(record),
            ..
        } = found
        {
            return Ok(use_record(record));
        }
        let (main, sub) = found.revision();
        Ok(use_record(&self.present(main, sub)?))
    }

    /// The whole record of what a scan found.
    pub fn load(&self, found: &Found<'_>) -> Result<Bytes, Error> {
        self.with_record(found, Bytes::copy_from_slice)
    }

    /// The head of what a scan found.
    pub fn load_head(&self, found: &Found<'_>) -> Result<Head, Error> {
        match found {
            Found::Live { head, .. } => Ok(*head),
            Found::Past { main, sub } => {
                let encoded = self.present(*main, *sub)?;
                let record = Record::parse(&encoded)
                    .ok_or_else(|| damaged(Column::Rev, &layout::revision_key(*main, *sub)))?;
                Ok(Head::of(&record, *sub))
            }
        }
    }

    fn visit_now(&self, key: &[u8], visit: &mut Visit<'_>) -> Result<(), Error> {
        if let Some(pair) = self.pair(key)? {
            visit(key, pair.found())?;
        }
        Ok(())
    }

    fn visit_at(&self, key: &[u8], at: i64, visit: &mut Visit<'_>) -> Result<(), Error> {
        if let Some(encoded) = self.get(Column::Live, key)? {
            let found = decode(key, &encoded)?;
            if found.revision().0 <= at {
                visit(key, found)?;
                return Ok(());
            }
        }
        let mut seek = Vec::with_capacity(key.len() + 18);
        layout::past_key(key, at.saturating_add(1), 0, &mut seek);
        let mut end = Vec::with_capacity(key.len() + 19);
        past_end(key, &mut end);
        let mut past = self.iterate(Column::Past, seek.clone(), Some(end));
        past.seek(&seek);
        match past.value() {
            None => past.status()?,
            Some(encoded) => {
                if let Some(found) = superseded(encoded, at)? {
                    visit(key, found)?;
                }
            }
        }
        Ok(())
    }

    fn scan_now(&self, range: &KeyRange, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut disk = self.iterate_live(range);
        let pending = self.overlay().map(|overlay| {
            let start = Bound::Included(range.start().clone());
            let end = match range {
                KeyRange::Between { end, .. } => Bound::Excluded(end.clone()),
                _ => Bound::Unbounded,
            };
            overlay.live.range((start, end))
        });
        let mut pending = pending.into_iter().flatten().peekable();
        loop {
            let order = match (disk.key(), pending.peek()) {
                (None, None) => return Ok(disk.status()?),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(key), Some((pending_key, _))) => key.cmp(pending_key.as_ref()),
            };
            if order == Ordering::Less {
                if let Some((key, encoded)) = disk.item()
                    && !visit(key, decode(key, encoded)?)?
                {
                    return Ok(());
                }
                disk.next();
                continue;
            }
            if order == Ordering::Equal {
                disk.next();
            }
            if let Some((key, Some(pair))) = pending.next()
                && !visit(key, pair.found())?
            {
                return Ok(());
            }
        }
    }

    pub(super) fn iterate_live(&self, range: &KeyRange) -> DBRawIterator<'a> {
        let upper = match range {
            KeyRange::Between { end, .. } => Some(end.to_vec()),
            _ => None,
        };
        let mut disk = self.iterate(Column::Live, range.start().to_vec(), upper);
        disk.seek(range.start());
        disk
    }

    fn scan_at(&self, range: &KeyRange, at: i64, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut live = self.iterate_live(range);
        let mut past = Past::new(self, range)?;
        loop {
            let order = match (live.key(), past.key()) {
                (None, None) => return Ok(live.status()?),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(key), Some(past_key)) => key.cmp(past_key),
            };
            let mut more = true;
            let mut done = false;
            if order != Ordering::Greater
                && let Some((key, encoded)) = live.item()
            {
                let found = decode(key, encoded)?;
                if found.revision().0 <= at {
                    more = visit(key, found)?;
                    done = true;
                }
                live.next();
            }
            if order != Ordering::Less {
                if !done && let Some(found) = past.find(at)? {
                    more = visit(&past.key, found)?;
                }
                past.skip_key()?;
            }
            if !more {
                return Ok(());
            }
        }
    }
}

impl Pair {
    fn found(&self) -> Found<'_> {
        Found::Live {
            head: self.head,
            record: Some(&self.record),
        }
    }
}

fn decode<'v>(key: &[u8], encoded: &'v [u8]) -> Result<Found<'v>, Error> {
    let live = LiveValue::decode(encoded).ok_or_else(|| damaged(Column::Live, key))?;
    Ok(Found::Live {
        head: live.head,
        record: live.record,
    })
}

/// Reads a value of `past` that was superseded after `at`: the version if it existed at `at`.
fn superseded(encoded: &[u8], at: i64) -> Result<Option<Found<'static>>, Error> {
    let (main, sub) =
        layout::decode_revision(encoded).ok_or_else(|| damaged(Column::Past, encoded))?;
    Ok((main <= at).then_some(Found::Past { main, sub }))
}

/// What sorts behind every entry of `key` in `past` and before every other key.
fn past_end(key: &[u8], buffer: &mut Vec<u8>) {
    layout::escape(key, buffer);
    buffer.extend_from_slice(&[0xff; 17]);
}

/// Walks `past` from key to key.
struct Past<'a> {
    disk: DBRawIterator<'a>,
    /// The user key that the iterator stands at; meaningless when it is at its end.
    key: Vec<u8>,
    seek: Vec<u8>,
}

impl<'a> Past<'a> {
    fn new(reader: &Reader<'a>, range: &KeyRange) -> Result<Self, Error> {
        let mut lower = Vec::new();
        layout::escape(range.start(), &mut lower);
        let upper = match range {
            KeyRange::Between { end, .. } => {
                let mut upper = Vec::new();
                layout::escape(end, &mut upper);
                Some(upper)
            }
            _ => None,
        };
        let mut disk = reader.iterate(Column::Past, lower.clone(), upper);
        disk.seek(&lower);
        let mut past = Self {
            disk,
            key: Vec::new(),
            seek: lower,
        };
        past.read_key()?;
        Ok(past)
    }

    fn key(&self) -> Option<&[u8]> {
        self.disk.valid().then_some(&self.key)
    }

    fn read_key(&mut self) -> Result<(), Error> {
        match self.disk.key() {
            None => Ok(self.disk.status()?),
            Some(encoded) => match layout::unescape(encoded, &mut self.key) {
                None => Err(damaged(Column::Past, encoded)),
                Some(_) => Ok(()),
            },
        }
    }

    /// The version of the current key that was there at `at`, if it was superseded later.
    fn find(&mut self, at: i64) -> Result<Option<Found<'static>>, Error> {
        self.seek.clear();
        layout::past_key(&self.key, at.saturating_add(1), 0, &mut self.seek);
        if self
            .disk
            .key()
            .is_some_and(|key| key < self.seek.as_slice())
        {
            self.disk.seek(&self.seek);
        }
        let prefix = &self.seek[..self.seek.len() - 16];
        match self.disk.item() {
            None => {
                self.disk.status()?;
                Ok(None)
            }
            Some((key, encoded)) if key.starts_with(prefix) => superseded(encoded, at),
            Some(_) => Ok(None),
        }
    }

    /// Goes on to the next key.
    fn skip_key(&mut self) -> Result<(), Error> {
        self.seek.clear();
        past_end(&self.key, &mut self.seek);
        // Most keys have few entries: a step is cheaper than a seek.
        if self.behind() {
            self.disk.next();
            if self.behind() {
                self.disk.seek(&self.seek);
            }
        }
        self.read_key()
    }

    fn behind(&self) -> bool {
        self.disk
            .key()
            .is_some_and(|key| key < self.seek.as_slice())
    }
}
