//! A snapshot made into the file of a new cluster: its records with other members.
//!
//! etcd: etcdutl/snapshot/v3_snapshot.go (Restore).

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;

use super::etcd::{self, BUCKETS, ConfState, Member, Revision};
use super::reader::File;
use super::{Entries, Error, Plan, Writer};

/// etcd restores into the first term.
const TERM: u64 = 1;

/// What is to be different in the restored file.
#[derive(Debug, Clone)]
pub struct Restore {
    /// The members of the new cluster.
    pub members: Vec<Member>,
    /// How much to increase the revision, which is then marked as compacted; 0 for not at all.
    pub bump_revision: u64,
}

/// Writes `source` to `sink` with what `restore` changes; the size of the result in bytes.
///
/// # Errors
/// When `source` is damaged or of a newer version, or `sink` fails.
pub fn restore<W: Write>(source: &File, restore: &Restore, sink: W) -> Result<(u64, W), Error> {
    let mut plan = Plan::new();
    pass(source, restore, &mut plan)?;
    let mut writer = Writer::new(plan, sink)?;
    let total_bytes = writer.total_bytes();
    pass(source, restore, &mut writer)?;
    let (_, sink) = writer.finish()?;
    Ok((total_bytes, sink))
}

fn pass(source: &File, restore: &Restore, out: &mut dyn Entries) -> Result<(), Error> {
    let mut rewrite = Rewrite {
        restore,
        out,
        missing: BUCKETS.iter().copied().collect(),
        bucket: Vec::new(),
        revision: 0,
        meta: BTreeMap::new(),
    };
    source.walk(&mut rewrite)?;
    rewrite.finish()
}

struct Rewrite<'a> {
    restore: &'a Restore,
    out: &'a mut dyn Entries,
    /// Buckets of etcd's that did not come yet.
    missing: VecDeque<&'static [u8]>,
    bucket: Vec<u8>,
    /// The last revision.
    revision: i64,
    /// The bucket `meta`, in which entries are added.
    meta: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Rewrite<'_> {
    fn finish(mut self) -> Result<(), Error> {
        self.end_bucket()?;
        while let Some(name) = self.missing.pop_front() {
            self.begin_bucket(name)?;
            self.end_bucket()?;
        }
        Ok(())
    }

    fn begin_bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.bucket = name.to_vec();
        self.out.bucket(name)
    }

    /// Adds what the bucket must hold at its end.
    fn end_bucket(&mut self) -> Result<(), Error> {
        match self.bucket.as_slice() {
            etcd::KEY if self.restore.bump_revision > 0 => {
                self.revision = self.bumped()?;
                let mut key = Vec::new();
                let revision = Revision {
                    main: self.revision,
                    sub: 0,
                    is_tombstone: false,
                };
                etcd::encode_revision(revision, &mut key);
                self.out.entry(&key, &[])
            }
            etcd::MEMBERS => {
                let mut members: Vec<_> = self.restore.members.iter().collect();
                members.sort_by_key(|member| member.key());
                for member in members {
                    self.out.entry(member.key().as_bytes(), &member.encode()?)?;
                }
                Ok(())
            }
            etcd::META => self.end_meta(),
            _ => Ok(()),
        }
    }

    fn bumped(&self) -> Result<i64, Error> {
        let bump = i64::try_from(self.restore.bump_revision).ok();
        let bumped = bump.and_then(|bump| self.revision.checked_add(bump));
        bumped.ok_or_else(|| {
            let what = format!(
                "the revision {} cannot grow by {}",
                self.revision, self.restore.bump_revision
            );
            Error::content(etcd::KEY, what)
        })
    }

    fn end_meta(&mut self) -> Result<(), Error> {
        let mut meta = std::mem::take(&mut self.meta);
        let members = &self.restore.members;
        // As if each member had been added by an entry of its own.
        let index = members.len() as u64;
        meta.insert(etcd::CONSISTENT_INDEX.into(), index.to_be_bytes().into());
        meta.insert(etcd::TERM.into(), TERM.to_be_bytes().into());
        let conf_state = ConfState {
            voters: members.iter().map(|member| member.id).collect(),
            ..ConfState::default()
        };
        let conf_state = serde_json::to_vec(&conf_state).map_err(Error::sink)?;
        meta.insert(etcd::CONF_STATE.into(), conf_state);
        if self.restore.bump_revision > 0 {
            let mut revision = Vec::new();
            etcd::encode_compaction(self.revision, &mut revision);
            meta.insert(etcd::SCHEDULED_COMPACT.into(), revision);
        }
        for (key, value) in meta {
            self.out.entry(&key, &value)?;
        }
        Ok(())
    }
}

impl Entries for Rewrite<'_> {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.end_bucket()?;
        while let Some(missing) = self.missing.pop_front_if(|missing| *missing <= name) {
            if missing == name {
                break;
            }
            self.begin_bucket(missing)?;
            self.end_bucket()?;
        }
        self.begin_bucket(name)
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        match self.bucket.as_slice() {
            etcd::MEMBERS | etcd::MEMBERS_REMOVED => Ok(()),
            etcd::META => {
                if key == etcd::STORAGE_VERSION {
                    etcd::check_storage_version(value)?;
                }
                self.meta.insert(key.to_vec(), value.to_vec());
                Ok(())
            }
            etcd::KEY => {
                self.revision = etcd::decode_revision(key)?.main;
                self.out.entry(key, value)
            }
            _ => self.out.entry(key, value),
        }
    }
}
