//! What `snapshot status` tells of a file.
//!
//! etcd: etcdutl/snapshot/v3_snapshot.go (Status).

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use super::reader::File;
use super::{Entries, Error, etcd};

/// What stands for a key where a key itself may be too long to be held.
pub type ShortKey = [u8; 16];

/// The first half of the key's SHA-256.
pub fn short_key(key: &[u8]) -> ShortKey {
    let digest = Sha256::digest(key);
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

/// A file in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// CRC32C over the names of the buckets, and their keys and values.
    pub hash: u32,
    /// The revision of the last record.
    pub revision: i64,
    /// How many keys are there at that revision.
    pub total_keys: u64,
    pub total_bytes: u64,
    /// The storage version of the file, from etcd 3.6 on.
    pub version: Option<String>,
}

impl Status {
    /// Reads all of `file`, and checks every page. Holds 16 bytes a key in memory.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or holds what etcd does not write.
    pub fn of(file: &File) -> Result<Self, Error> {
        let mut count = Count::default();
        file.walk(&mut count)?;
        Ok(Self {
            hash: count.hash,
            revision: count.revision,
            total_keys: count.keys.len() as u64,
            total_bytes: file.used_bytes(),
            version: count.version,
        })
    }
}

#[derive(Default)]
struct Count {
    hash: u32,
    bucket: Vec<u8>,
    revision: i64,
    /// Hashes of the keys: a file may hold more keys than there is memory for.
    keys: HashSet<ShortKey>,
    version: Option<String>,
}

impl Entries for Count {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.hash = crc32c::crc32c_append(self.hash, name);
        self.bucket = name.to_vec();
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.hash = crc32c::crc32c_append(self.hash, key);
        self.hash = crc32c::crc32c_append(self.hash, value);
        if self.bucket == etcd::META && key == etcd::STORAGE_VERSION {
            self.version = String::from_utf8(value.to_vec()).ok();
        }
        if self.bucket != etcd::KEY {
            return Ok(());
        }
        let revision = etcd::decode_revision(key)?;
        self.revision = revision.main;
        let user_key = etcd::user_key(value)?;
        let short = short_key(&user_key);
        if revision.is_tombstone {
            self.keys.remove(&short);
        } else {
            self.keys.insert(short);
        }
        Ok(())
    }
}
