//! Hashes that members compare.

use prost::Message;

use bytes::Bytes;

use crate::model::KeyRange;
use crate::model::kv::KeyValue;
use crate::storage::layout::{self, LeaseRow, encode_member};
use crate::storage::{Error, Reader, Record};

/// The name of the bucket that etcd begins its hash with.
const BUCKET: &[u8] = b"key";

/// etcd's HashKV at `revision`: CRC32C over the bucket's name and over key and value of every
/// record up to `revision`, in etcd's encoding.
///
/// Of the records up to the compacted revision, etcd counts those that are live at `revision`;
/// or, if no key is live there, those that its compaction has kept.
///
/// etcd: server/storage/mvcc/hash.go, key_index.go (keep).
pub(super) fn hash_kv(reader: Reader<'_>, revision: i64, compacted: i64) -> Result<u32, Error> {
    let mut sum = crc32c::crc32c(BUCKET);
    let everything = KeyRange::From(Bytes::new());
    let mut any_live = false;
    reader.scan(&everything, Some(revision), &mut |_, _| {
        any_live = true;
        Ok(false)
    })?;
    let live_at = if any_live { revision } else { compacted };
    reader.records((0, 0), |main, sub, encoded, record| {
        if main > revision {
            return Ok(false);
        }
        if main <= compacted {
            let is_live = !record.is_tombstone() && is_at(reader, record, (main, sub), live_at)?;
            if !is_live {
                return Ok(true);
            }
        }
        sum = crc32c::crc32c_append(sum, &etcd_key(main, sub));
        if record.is_tombstone() {
            sum = crc32c::crc32c_append(sum, b"t");
            let tombstone = KeyValue {
                key: Bytes::copy_from_slice(record.key),
                ..Default::default()
            };
            sum = crc32c::crc32c_append(sum, &tombstone.encode_to_vec());
        } else {
            sum = crc32c::crc32c_append(sum, encoded);
        }
        Ok(true)
    })?;
    Ok(sum)
}

/// Whether `record`, which lies at `place`, is what its key has at revision `at`.
fn is_at(
    reader: Reader<'_>,
    record: &Record<'_>,
    place: (i64, i64),
    at: i64,
) -> Result<bool, Error> {
    // Most records of a compacted store are still the newest of their keys, which is found sooner.
    let newest = reader.head(record.key)?;
    if newest.is_some_and(|head| (head.mod_revision, head.sub) == place) {
        return Ok(true);
    }
    let mut is_at = false;
    let key = KeyRange::One(Bytes::copy_from_slice(record.key));
    reader.scan(&key, Some(at), &mut |_, found| {
        is_at = found.revision() == place;
        Ok(false)
    })?;
    Ok(is_at)
}

/// A revision as etcd writes it in its bucket.
fn etcd_key(main: i64, sub: i64) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&main.to_be_bytes());
    key[9..].copy_from_slice(&sub.to_be_bytes());
    key
}

/// A hash of everything that members agree on: the keys, the leases with their keys, the members.
pub(super) fn hash(reader: Reader<'_>, revision: i64, compacted: i64) -> Result<u32, Error> {
    let mut sum = hash_kv(reader, revision, compacted)?;
    for (id, row) in reader.leases()? {
        sum = crc32c::crc32c_append(sum, &layout::lease_key(id));
        // A checkpoint is in the log too, so that all members have it.
        sum = crc32c::crc32c_append(sum, &LeaseRow::encode(&row));
        for key in reader.lease_keys(id)? {
            sum = crc32c::crc32c_append(sum, &key);
        }
    }
    for member in reader.members()? {
        sum = crc32c::crc32c_append(sum, &encode_member(&member));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::super::compaction::{ScrubProgress, scrub_slice};
    use super::super::testing::*;
    use crate::model::Refusal;
    use crate::model::kv::request_op::Request;
    use crate::model::kv::{PutRequest, RequestOp, TxnRequest};

    fn hash_kv(rig: &Rig, revision: i64) -> (u32, i64, i64) {
        rig.view().hash_kv(revision).unwrap()
    }

    /// Compacts, checks that the hash does not depend on how far the deletions have come, and
    /// deletes in small slices.
    fn compact_and_scrub(rig: &mut Rig, revision: i64) {
        rig.apply(compact(revision)).outcome.unwrap();
        let before = hash_kv(rig, 0);
        while matches!(scrub_slice(&rig.db, 2).unwrap(), ScrubProgress::More { .. }) {
            assert_eq!(hash_kv(rig, 0), before);
        }
        assert_eq!(hash_kv(rig, 0), before);
    }

    fn put_op(key: &'static str, value: &'static str) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.into(),
                value: value.into(),
                ..Default::default()
            })),
        }
    }

    /// The numbers are those of a real etcd 3.7.3 that was fed the same calls.
    #[test]
    fn hashes_are_etcds() {
        let mut rig = Rig::new();
        assert_eq!(hash_kv(&rig, 0), (1_084_519_789, -1, 1));
        rig.put("a", "1");
        rig.put("b", "2");
        rig.put("a", "3");
        rig.apply(txn(TxnRequest {
            success: vec![put_op("c", "x"), put_op("d", "y")],
            ..Default::default()
        }));
        rig.apply(delete("b", b""));
        rig.apply(delete("c", b"d"));
        rig.apply(grant(77, 100));
        rig.apply(put("l1", "v", 77));
        rig.apply(put("l2", "v", 77));
        rig.apply(revoke(77));
        rig.put("a", "4");
        rig.put("big", str::from_utf8(&[b'v'; 600]).unwrap());
        assert_eq!(hash_kv(&rig, 0), (981_865_140, -1, 12));
        assert_eq!(hash_kv(&rig, 2), (2_587_454_935, -1, 2));
        assert_eq!(hash_kv(&rig, 6), (1_432_367_665, -1, 6));
        assert_eq!(hash_kv(&rig, 9), (1_764_584_656, -1, 9));

        compact_and_scrub(&mut rig, 6);
        assert_eq!(hash_kv(&rig, 0), (3_181_553_780, 6, 12));
        assert_eq!(hash_kv(&rig, 7), (1_311_401_122, 6, 7));
        assert_eq!(hash_kv(&rig, 11), (2_610_526_398, 6, 11));
        compact_and_scrub(&mut rig, 10);
        assert_eq!(hash_kv(&rig, 0), (2_031_815_613, 10, 12));
        assert_eq!(hash_kv(&rig, 11), (1_402_896_391, 10, 11));
        assert_eq!(hash_kv(&rig, 10), (3_023_390_827, 10, 10));
        rig.put("e", "1");
        compact_and_scrub(&mut rig, 11);
        assert_eq!(hash_kv(&rig, 0), (2_746_193_104, 11, 13));
        assert_eq!(hash_kv(&rig, 12), (2_031_815_613, 11, 12));
    }

    /// As above, with moments at which no key is live.
    #[test]
    fn hashes_are_etcds_when_everything_is_deleted() {
        let mut rig = Rig::new();
        rig.put("k", "v");
        rig.apply(delete("k", b""));
        rig.put("k", "w");
        rig.put("j", "w");
        rig.apply(delete("k", b""));
        compact_and_scrub(&mut rig, 5);
        assert_eq!(hash_kv(&rig, 0), (3_568_469_329, 5, 6));
        rig.apply(delete("j", b""));
        assert_eq!(hash_kv(&rig, 0), (918_023_182, 5, 7));
        assert_eq!(hash_kv(&rig, 6), (3_568_469_329, 5, 6));
        compact_and_scrub(&mut rig, 7);
        assert_eq!(hash_kv(&rig, 0), (1_084_519_789, 7, 7));
        let refused = |revision| rig.view().hash_kv(revision).unwrap_err().to_string();
        assert_eq!(refused(6), Refusal::Compacted.to_string());
        assert_eq!(refused(8), Refusal::FutureRevision.to_string());
    }
}
