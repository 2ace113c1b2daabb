//! Snapshots of any size, made without a server: etcd's format with keys, history, deletions,
//! leases and a large value.

use anyhow::{Context, Result};
use bytes::Bytes;
use prost::Message as _;
use quorate_proto::mvccpb::KeyValue;
use quorate_snapshot::{Entries, Error, Plan, Writer, etcd};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// The first revision that a client writes.
const FIRST: i64 = 2;
/// Every so many keys one is overwritten, and another deleted.
const OVERWRITTEN_EVERY: u64 = 10;
const DELETED_EVERY: u64 = 50;
/// Keys that hang on leases: so many leases, and one key in so many.
const LEASES: i64 = 100;
const LEASED_EVERY: u64 = 20;
const LARGE_BYTES: usize = 1_500_000;
/// Some 50 years, so that no lease ends while it is looked at.
const TTL_SECONDS: i64 = 1 << 30;

/// What a file holds.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many keys are put.
    pub keys: u64,
    pub value_bytes: usize,
}

impl Shape {
    /// The name of a key by its number.
    pub fn key(number: u64) -> Bytes {
        format!("key-{number:012}").into()
    }

    /// How many keys are there in the end.
    pub fn live_keys(&self) -> u64 {
        // The large one, less what was deleted: key 1 of each 50.
        self.keys + 1 - (self.keys + DELETED_EVERY - 2) / DELETED_EVERY
    }

    /// Writes the file, with its hash behind it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut plan = Plan::new();
        self.feed(&mut plan)?;
        let file = File::create_new(path).with_context(|| path.display().to_string())?;
        let mut writer = Writer::new(plan, BufWriter::with_capacity(1 << 20, file))?;
        self.feed(&mut writer)?;
        let (digest, mut file) = writer.finish()?;
        file.write_all(&digest)?;
        file.flush()?;
        Ok(())
    }

    fn feed(&self, out: &mut dyn Entries) -> Result<(), Error> {
        // Half of the keys were put before the compaction, which superseded nothing.
        let compacted = FIRST + i64::try_from(self.keys / 2).map_err(Error::sink)?;
        let head = etcd::Head {
            applied_index: 1_000,
            applied_term: 3,
            members: vec![etcd::Member {
                id: 1,
                name: "made".into(),
                ..etcd::Member::default()
            }],
            scheduled_compact: Some(compacted),
            finished_compact: Some(compacted),
            storage_version: "3.7.0".into(),
            ..etcd::Head::default()
        };
        head.feed_before_keys(out)?;
        out.bucket(etcd::KEY)?;
        self.feed_keys(out)?;
        out.bucket(etcd::LEASE)?;
        for id in 1..=LEASES {
            let lease = etcd::Lease {
                id,
                ttl: TTL_SECONDS,
                remaining_ttl: 0,
            };
            out.entry(&etcd::lease_key(id), &lease.encoded())?;
        }
        head.feed_after_leases(out)
    }

    fn feed_keys(&self, out: &mut dyn Entries) -> Result<(), Error> {
        let mut records = Records {
            out,
            main: FIRST,
            key: Vec::new(),
            value: Vec::new(),
        };
        for number in 0..self.keys {
            let main = records.main;
            records.put(self.record(number, main, main, 1))?;
        }
        for number in (0..self.keys).step_by(OVERWRITTEN_EVERY as usize) {
            let main = records.main;
            let created = FIRST + i64::try_from(number).map_err(Error::sink)?;
            records.put(self.record(number, created, main, 2))?;
        }
        let large = KeyValue {
            key: "large".into(),
            create_revision: records.main,
            mod_revision: records.main,
            version: 1,
            value: vec![b'v'; LARGE_BYTES].into(),
            lease: 0,
        };
        records.put(large)?;
        for number in (1..self.keys).step_by(DELETED_EVERY as usize) {
            records.delete(&Self::key(number))?;
        }
        Ok(())
    }

    fn record(&self, number: u64, created: i64, main: i64, version: i64) -> KeyValue {
        let lease = if number.is_multiple_of(LEASED_EVERY) {
            (number / LEASED_EVERY) as i64 % LEASES + 1
        } else {
            0
        };
        KeyValue {
            key: Self::key(number),
            create_revision: created,
            mod_revision: main,
            version,
            value: noise(number ^ (version as u64) << 48, self.value_bytes),
            lease,
        }
    }
}

/// Bytes that no compression makes small, the same for the same seed (xorshift).
fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// Writes records at one revision after the other.
struct Records<'a> {
    out: &'a mut dyn Entries,
    main: i64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Records<'_> {
    fn put(&mut self, record: KeyValue) -> Result<(), Error> {
        self.value.clear();
        record.encode(&mut self.value).map_err(Error::sink)?;
        self.write(false)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Error> {
        etcd::encode_tombstone(key, &mut self.value);
        self.write(true)
    }

    fn write(&mut self, is_tombstone: bool) -> Result<(), Error> {
        let revision = etcd::Revision {
            main: self.main,
            sub: 0,
            is_tombstone,
        };
        self.main += 1;
        etcd::encode_revision(revision, &mut self.key);
        self.out.entry(&self.key, &self.value)
    }
}
