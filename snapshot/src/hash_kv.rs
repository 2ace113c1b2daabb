//! etcd's HashKV of a file: what members compare, and what must be equal before and after a move.
//!
//! etcd: server/storage/mvcc/hash.go, key_index.go (keep), kvstore.go (restore).

use std::collections::HashMap;

use super::reader::File;
use super::status::{ShortKey, short_key};
use super::{Entries, Error, etcd};

/// The revision of a store to which nothing was ever written.
const REVISION_FIRST: i64 = 1;
/// What etcd says of a store that was never compacted.
const NEVER_COMPACTED: i64 = -1;

/// The hash of a file's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u32,
    /// Up to which revision records are hashed.
    pub revision: i64,
    /// The newest compaction that the file knows of, also one whose deletions are not done; -1 when
    /// there is none.
    pub compacted: i64,
}

impl HashKv {
    /// Hashes the records up to `revision`, or all of them when it is 0. Reads the file twice and
    /// holds some 50 bytes a key in memory.
    ///
    /// # Errors
    /// When the file is damaged or not etcd's, and when `revision` is compacted or not there yet.
    pub fn of(file: &File, revision: i64) -> Result<Self, Error> {
        let mut survey = Survey {
            limit: if revision == 0 { i64::MAX } else { revision },
            in_meta: false,
            in_key: false,
            last: REVISION_FIRST,
            compacted: NEVER_COMPACTED,
            newest: HashMap::new(),
        };
        file.walk(&mut survey)?;
        let current = survey.last.max(survey.compacted);
        if revision > 0 && revision < survey.compacted {
            return Err(Error::Compacted);
        }
        if revision > current {
            return Err(Error::Future);
        }
        let revision = if revision == 0 { current } else { revision };
        let mut sum = Sum {
            hash: crc32c::crc32c(etcd::KEY),
            in_key: false,
            limit: revision,
            compacted: survey.compacted,
            newest: survey.newest,
        };
        file.walk(&mut sum)?;
        Ok(Self {
            hash: sum.hash,
            revision,
            compacted: survey.compacted,
        })
    }
}

/// The first pass: the newest record of each key that is there, and the marks of compactions.
struct Survey {
    limit: i64,
    in_meta: bool,
    in_key: bool,
    last: i64,
    compacted: i64,
    newest: HashMap<ShortKey, (i64, i64)>,
}

impl Entries for Survey {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.in_meta = name == etcd::META;
        self.in_key = name == etcd::KEY;
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.in_meta && (key == etcd::FINISHED_COMPACT || key == etcd::SCHEDULED_COMPACT) {
            self.compacted = self.compacted.max(etcd::decode_compaction(value)?);
        }
        if !self.in_key {
            return Ok(());
        }
        let at = etcd::decode_revision(key)?;
        self.last = self.last.max(at.main);
        if at.main > self.limit {
            return Ok(());
        }
        let user_key = short_key(&etcd::user_key(value)?);
        if at.is_tombstone {
            self.newest.remove(&user_key);
        } else {
            self.newest.insert(user_key, (at.main, at.sub));
        }
        Ok(())
    }
}

/// The second pass.
struct Sum {
    hash: u32,
    in_key: bool,
    limit: i64,
    compacted: i64,
    newest: HashMap<ShortKey, (i64, i64)>,
}

impl Sum {
    /// Whether a compaction has superseded the record, be it deleted yet or not. When no key is
    /// there, etcd asks that of tombstones alone.
    fn is_superseded(&self, at: etcd::Revision, value: &[u8]) -> Result<bool, Error> {
        if at.main > self.compacted {
            return Ok(false);
        }
        if !self.newest.is_empty() {
            let user_key = short_key(&etcd::user_key(value)?);
            let newest = self.newest.get(&user_key);
            if at.is_tombstone || newest != Some(&(at.main, at.sub)) {
                return Ok(true);
            }
        }
        Ok(at.is_tombstone && at.main == self.compacted)
    }
}

impl Entries for Sum {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.in_key = name == etcd::KEY;
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if !self.in_key {
            return Ok(());
        }
        let at = etcd::decode_revision(key)?;
        if at.main <= self.limit && !self.is_superseded(at, value)? {
            self.hash = crc32c::crc32c_append(self.hash, key);
            self.hash = crc32c::crc32c_append(self.hash, value);
        }
        Ok(())
    }
}
