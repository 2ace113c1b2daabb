//! Reads along while a snapshot of ours passes by, so that what it holds is known at its end
//! without a second look: its records, its last revision, up to where it is compacted, and whether
//! its trailing hash is right.
//!
//! It holds one page with those that belong to it. It takes every page for one in use, which is
//! so in a file that [`super::Writer`] wrote, and not in one of bbolt's with free pages.

use sha2::{Digest as _, Sha256};

use super::Error;
use super::etcd;
use super::format::{
    ELEMENT_BUCKET, ELEMENT_BYTES, FLAG_LEAF, META_BYTES, Meta, PAGE_BYTES, PAGE_HEADER_BYTES,
    PageHeader, u32_at,
};

const DIGEST_BYTES: usize = 32;
/// A page with those that follow it: far above the largest record.
const RUN_BYTES_MAX: usize = 1 << 30;

/// A snapshot's content in numbers, gathered as its bytes come.
#[derive(Debug, Clone)]
pub struct Scan {
    hash: Sha256,
    /// Bytes of the run of pages that has not ended, and after the last page the hash.
    run: Vec<u8>,
    /// Bytes of pages that were scanned.
    offset: u64,
    /// Bytes of all pages; known from the first page on.
    image_bytes: Option<u64>,
    records: u64,
    last_revision: i64,
    compacted: i64,
}

/// What a whole snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// Revisions of keys: entries of the bucket `key`.
    pub records: u64,
    /// The last revision: that of the last record, or of the compaction if nothing is left there.
    pub revision: i64,
    /// Up to which revision history was compacted, -1 for none.
    pub compacted: i64,
    /// Bytes of the file, its hash included.
    pub bytes: u64,
}

impl Default for Scan {
    fn default() -> Self {
        Self::new()
    }
}

impl Scan {
    pub fn new() -> Self {
        Self {
            hash: Sha256::new(),
            run: Vec::new(),
            offset: 0,
            image_bytes: None,
            records: 0,
            // etcd's first revision, and the mark of a store that was never compacted.
            last_revision: 1,
            compacted: -1,
        }
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// [`Error::Damaged`] when they cannot be a snapshot's.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let missing = self.missing()?;
            if missing == 0 {
                return Err(self.damaged("bytes follow the hash"));
            }
            let taken = bytes.len().min(missing);
            self.run.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if !self.is_past_pages() && self.missing()? == 0 {
                self.end_run()?;
            }
        }
        Ok(())
    }

    /// Ends the file, and compares its hash.
    ///
    /// # Errors
    /// [`Error::NoDigest`] when it ended too early, [`Error::OtherDigest`] when it is not what was
    /// sent.
    pub fn finish(self) -> Result<Scanned, Error> {
        let is_whole = self.is_past_pages();
        let expected: [u8; DIGEST_BYTES] = match self.run.as_slice().try_into() {
            Ok(digest) if is_whole => digest,
            Ok(_) | Err(_) => return Err(Error::NoDigest),
        };
        let found: [u8; DIGEST_BYTES] = self.hash.finalize().into();
        if found != expected {
            return Err(Error::OtherDigest { expected, found });
        }
        Ok(Scanned {
            records: self.records,
            revision: self.last_revision.max(self.compacted),
            compacted: self.compacted,
            bytes: self.offset + DIGEST_BYTES as u64,
        })
    }

    /// Whether all pages came, so that only the hash is left.
    fn is_past_pages(&self) -> bool {
        Some(self.offset) == self.image_bytes
    }

    /// How many bytes the run that has begun, or the hash, still needs.
    fn missing(&self) -> Result<usize, Error> {
        if self.is_past_pages() {
            return Ok(DIGEST_BYTES - self.run.len());
        }
        if self.run.len() < PAGE_BYTES {
            return Ok(PAGE_BYTES - self.run.len());
        }
        let pages = 1 + PageHeader::decode(&self.run).overflow as usize;
        match pages.checked_mul(PAGE_BYTES) {
            Some(length) if length <= RUN_BYTES_MAX => Ok(length - self.run.len()),
            _ => Err(self.damaged(format!("a page that takes {pages} pages"))),
        }
    }

    fn end_run(&mut self) -> Result<(), Error> {
        if self.image_bytes.is_none() {
            let meta = Meta::decode(&self.run[..META_BYTES]).map_err(|what| self.damaged(what))?;
            if meta.page_bytes != PAGE_BYTES {
                let what = format!("pages of {} bytes, not {PAGE_BYTES}", meta.page_bytes);
                return Err(self.damaged(what));
            }
            self.image_bytes = Some(meta.high_water * PAGE_BYTES as u64);
        }
        let run = std::mem::take(&mut self.run);
        self.hash.update(&run);
        if PageHeader::decode(&run).flags == FLAG_LEAF {
            self.leaf(&run)?;
        }
        self.offset += run.len() as u64;
        // Its memory serves the next run.
        self.run = run;
        self.run.clear();
        Ok(())
    }

    fn leaf(&mut self, run: &[u8]) -> Result<(), Error> {
        for number in 0..usize::from(PageHeader::decode(run).count) {
            let at = PAGE_HEADER_BYTES + number * ELEMENT_BYTES;
            let element = run.get(at..at + ELEMENT_BYTES);
            let element = element.ok_or_else(|| self.damaged("a leaf that is too short"))?;
            if u32_at(element, 0) == ELEMENT_BUCKET {
                continue;
            }
            let start = at + u32_at(element, 4) as usize;
            let key_end = start + u32_at(element, 8) as usize;
            let end = key_end + u32_at(element, 12) as usize;
            let (key, value) = match (run.get(start..key_end), run.get(key_end..end)) {
                (Some(key), Some(value)) => (key, value),
                _ => return Err(self.damaged("an element that lies outside of its page")),
            };
            // Which bucket a leaf belongs to is told behind it. No other bucket has such keys.
            if let Ok(revision) = etcd::decode_revision(key) {
                self.records += 1;
                self.last_revision = self.last_revision.max(revision.main);
            } else if key == etcd::SCHEDULED_COMPACT || key == etcd::FINISHED_COMPACT {
                self.compacted = self.compacted.max(etcd::decode_compaction(value)?);
            }
        }
        Ok(())
    }

    fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged {
            path: "the snapshot".into(),
            offset: self.offset,
            what: what.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Plan, Writer};

    /// A file with records up to `last`, of which the largest takes several pages.
    fn file(last: i64) -> Vec<u8> {
        let mut plan = Plan::new();
        fill(&mut plan, last);
        let mut writer = Writer::new(plan, Vec::new()).unwrap();
        fill(&mut writer, last);
        let (digest, mut bytes) = writer.finish().unwrap();
        bytes.extend_from_slice(&digest);
        bytes
    }

    fn fill(entries: &mut dyn crate::Entries, last: i64) {
        entries.bucket(etcd::KEY).unwrap();
        let mut key = Vec::new();
        for main in 2..=last {
            let revision = etcd::Revision {
                main,
                sub: 0,
                is_tombstone: main % 7 == 0,
            };
            etcd::encode_revision(revision, &mut key);
            let value = vec![b'v'; if main == 9 { 50_000 } else { 100 }];
            entries.entry(&key, &value).unwrap();
        }
        entries.bucket(etcd::META).unwrap();
        let mut compacted = Vec::new();
        etcd::encode_compaction(5, &mut compacted);
        entries.entry(etcd::FINISHED_COMPACT, &compacted).unwrap();
    }

    fn scan(bytes: &[u8], chunk: usize) -> Result<Scanned, Error> {
        let mut scan = Scan::new();
        for chunk in bytes.chunks(chunk) {
            scan.push(chunk)?;
        }
        scan.finish()
    }

    #[test]
    fn what_a_file_holds_is_known_at_its_end() {
        for (last, records) in [(3, 2), (2_000, 1_999)] {
            let bytes = file(last);
            let expected = Scanned {
                records,
                revision: last.max(5),
                compacted: 5,
                bytes: bytes.len() as u64,
            };
            for chunk in [1_000, 4_096, 65_536, bytes.len()] {
                assert_eq!(scan(&bytes, chunk).unwrap(), expected);
            }
        }
    }

    #[test]
    fn what_was_cut_changed_or_added_is_refused() {
        let bytes = file(300);
        for length in [
            0,
            10,
            4_096,
            bytes.len() / 2,
            bytes.len() - 32,
            bytes.len() - 1,
        ] {
            let cut = scan(&bytes[..length], 4_000);
            assert!(matches!(cut, Err(Error::NoDigest)), "{length}: {cut:?}");
        }
        for at in (0..bytes.len()).step_by(911) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(scan(&flipped, 4_000).is_err(), "byte {at}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(scan(&longer, 4_000).is_err());
    }
}
