//! A view as the content of etcd's snapshot file: one scan over the records, in their order.
//!
//! etcd: server/storage/schema/, server/storage/mvcc/.

use prost::Message;
use quorate_snapshot::{Entries, Error, etcd};

use super::view::View;

/// The revision of etcd's auth store before anything was done to it.
const AUTH_REVISION_FIRST: u64 = 1;

impl View {
    /// Hands everything that etcd's file has to `out`. Two calls give the same, however much is
    /// written meanwhile.
    ///
    /// Records that the last compaction superseded may still be among them; the file says that
    /// they are compacted, and etcd's next compaction deletes them.
    ///
    /// # Errors
    /// When the disk fails, or what `out` returns.
    pub fn export(&self, storage_version: &str, out: &mut dyn Entries) -> Result<(), Error> {
        let compacted = (self.compacted > 0).then_some(self.compacted);
        let members = self.members().map_err(Error::sink)?;
        let head = etcd::Head {
            applied_index: self.applied.index,
            applied_term: self.applied.term,
            members: members
                .into_iter()
                .map(|member| etcd::Member {
                    id: member.id,
                    peer_urls: member.peer_urls,
                    is_learner: member.is_learner,
                    name: member.name,
                    client_urls: member.client_urls,
                })
                .collect(),
            scheduled_compact: compacted,
            finished_compact: compacted,
            storage_version: storage_version.to_owned(),
            auth_revision: AUTH_REVISION_FIRST,
            alarms: self
                .conditions
                .alarms()
                .iter()
                .map(Message::encode_to_vec)
                .collect(),
        };
        head.feed_before_keys(out)?;
        out.bucket(etcd::KEY)?;
        self.export_records(out)?;
        out.bucket(etcd::LEASE)?;
        self.export_leases(out)?;
        head.feed_after_leases(out)
    }

    fn export_records(&self, out: &mut dyn Entries) -> Result<(), Error> {
        let mut key = Vec::new();
        let mut tombstone = Vec::new();
        let mut refused = Ok(());
        let scanned = self.reader().records((0, 0), |main, sub, encoded, record| {
            let is_tombstone = record.is_tombstone();
            let revision = etcd::Revision {
                main,
                sub,
                is_tombstone,
            };
            etcd::encode_revision(revision, &mut key);
            let value = if is_tombstone {
                etcd::encode_tombstone(record.key, &mut tombstone);
                tombstone.as_slice()
            } else {
                encoded
            };
            refused = out.entry(&key, value);
            Ok(refused.is_ok())
        });
        scanned.map_err(Error::sink)?;
        refused
    }

    fn export_leases(&self, out: &mut dyn Entries) -> Result<(), Error> {
        let mut leases = self.leases().map_err(Error::sink)?;
        leases.sort_by_key(|lease| etcd::lease_key(lease.id));
        for lease in leases {
            let value = etcd::Lease {
                id: lease.id,
                ttl: lease.ttl_seconds,
                remaining_ttl: lease.remaining_seconds,
            };
            out.entry(&etcd::lease_key(lease.id), &value.encoded())?;
        }
        Ok(())
    }
}
