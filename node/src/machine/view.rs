//! What is published after each apply: a frozen store and the numbers that belong to it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::history::history;
pub use super::range::EncodedRange;
use super::{Position, hash, range, txn};
use crate::model::kv::{RangeRequest, RangeResponse, TxnRequest, TxnResponse};
use crate::model::member::Member;
use crate::model::{Conditions, Event, KeyRange, Refusal};
use crate::storage::layout::LeaseRow;
use crate::storage::{Db, Error, Reader, Snapshot};

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk failed: the node stops.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// One lease as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRecord {
    pub id: i64,
    pub ttl_seconds: i64,
    /// From the last checkpoint; 0 when there is none.
    pub remaining_seconds: i64,
}

/// A frozen store with its numbers: header and data always agree.
pub struct View {
    snapshot: Snapshot,
    pub revision: i64,
    /// -1 before the first compaction.
    pub compacted: i64,
    pub applied: Position,
    pub conditions: Arc<Conditions>,
}

impl View {
    /// A view of what `db` has committed. The applier's, and at start.
    pub fn of(db: &Arc<Db>) -> Self {
        let progress = db.progress();
        Self {
            snapshot: db.snapshot(),
            revision: progress.revision,
            compacted: progress.compacted,
            applied: progress.applied,
            conditions: db.conditions(),
        }
    }

    /// The same state frozen anew, so that what compaction has deleted since is no longer held;
    /// none when more was applied meanwhile.
    pub fn again(&self) -> Result<Option<Self>, Error> {
        let snapshot = self.db().snapshot();
        let same = snapshot.progress()?.is_some_and(|progress| {
            progress.applied == self.applied
                && (progress.revision, progress.compacted) == (self.revision, self.compacted)
        });
        Ok(same.then(|| Self {
            snapshot,
            revision: self.revision,
            compacted: self.compacted,
            applied: self.applied,
            conditions: Arc::clone(&self.conditions),
        }))
    }

    /// The store that this is a view of.
    pub fn db(&self) -> &Arc<Db> {
        self.snapshot.db()
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        self.snapshot.reader()
    }

    fn pinned(&self, revision: i64) -> Result<Option<i64>, Refusal> {
        range::pinned(revision, self.revision, self.compacted)
    }

    /// Answers a Range that `api/parse.rs` has checked. The header holds the revision alone.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        let at = self.pinned(request.revision)?;
        let reader = self.snapshot.reader();
        Ok(range::respond(reader, request, at, self.revision)?)
    }

    /// As [`View::range`], with the records spliced in as they lie on disk.
    pub fn range_encoded(&self, request: &RangeRequest) -> Result<EncodedRange, ReadError> {
        let at = self.pinned(request.revision)?;
        Ok(range::encode(self.snapshot.reader(), request, at)?)
    }

    /// Answers a txn whose branches hold nothing but ranges, as etcd does: without the log.
    ///
    /// # Errors
    /// A txn that writes is the caller's mistake, and fails.
    pub fn txn(&self, request: &TxnRequest) -> Result<TxnResponse, ReadError> {
        let reader = self.snapshot.reader();
        txn::read_only(reader, request, self.revision, self.compacted)
    }

    /// Events in `range` from revision `from` on: whole revisions, at most about `records_max`
    /// records looked at. Returns them with the revision to go on from (`self.revision + 1` at
    /// the end).
    ///
    /// # Errors
    /// [`Refusal::Compacted`] when `from` lies below the compacted revision.
    pub fn history(
        &self,
        from: i64,
        range: &KeyRange,
        records_max: usize,
    ) -> Result<(Vec<(i64, Event)>, i64), ReadError> {
        if from < self.compacted {
            return Err(Refusal::Compacted.into());
        }
        let numbers = (self.revision, self.compacted);
        let reader = self.snapshot.reader();
        Ok(history(reader, from, range, records_max, numbers)?)
    }

    /// The encoded `mvccpb.KeyValue` at (main, sub); none once it is compacted.
    pub fn record(&self, main: i64, sub: i64) -> Result<Option<Bytes>, Error> {
        self.snapshot.reader().record(main, sub)
    }

    /// etcd's HashKV at `revision` (0 for the current one): (hash, compacted, hash revision).
    /// Walks the whole history.
    pub fn hash_kv(&self, revision: i64) -> Result<(u32, i64, i64), ReadError> {
        if revision > 0 && revision < self.compacted {
            return Err(Refusal::Compacted.into());
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision.into());
        }
        let at = if revision == 0 {
            self.revision
        } else {
            revision
        };
        let sum = hash::hash_kv(self.snapshot.reader(), at, self.compacted)?;
        Ok((sum, self.compacted, at))
    }

    /// A hash of the whole store, equal on members that have applied the same. Walks it all.
    pub fn hash(&self) -> Result<u32, Error> {
        hash::hash(self.snapshot.reader(), self.revision, self.compacted)
    }

    /// All leases, by ID.
    pub fn leases(&self) -> Result<Vec<LeaseRecord>, Error> {
        let leases = self.snapshot.reader().leases()?;
        Ok(leases.into_iter().map(LeaseRecord::from).collect())
    }

    pub fn lease(&self, id: i64) -> Result<Option<LeaseRecord>, Error> {
        let row = self.snapshot.reader().lease(id)?;
        Ok(row.map(|row| LeaseRecord::from((id, row))))
    }

    /// The keys attached to a lease, in order.
    pub fn lease_keys(&self, id: i64) -> Result<Vec<Bytes>, Error> {
        self.snapshot.reader().lease_keys(id)
    }

    /// The members by ID, as the applied log has them.
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        self.snapshot.reader().members()
    }

    /// Whether a member with this ID was removed.
    pub fn is_removed(&self, id: u64) -> Result<bool, Error> {
        self.snapshot.reader().is_removed(id)
    }
}

impl From<(i64, LeaseRow)> for LeaseRecord {
    fn from((id, row): (i64, LeaseRow)) -> Self {
        Self {
            id,
            ttl_seconds: row.ttl_seconds,
            remaining_seconds: row.remaining_seconds,
        }
    }
}

/// Where the newest view hangs. One writer (the applier), any number of readers, no lock.
pub struct ViewCell {
    current: ArcSwap<View>,
    applied: tokio::sync::watch::Sender<Position>,
}

impl ViewCell {
    pub fn new(view: View) -> Arc<Self> {
        let applied = tokio::sync::watch::channel(view.applied).0;
        Arc::new(Self {
            current: ArcSwap::from_pointee(view),
            applied,
        })
    }

    /// The newest view.
    pub fn load(&self) -> Arc<View> {
        self.current.load_full()
    }

    /// Publishes `view` and wakes who waits for its position.
    pub fn store(&self, view: Arc<View>) {
        let applied = view.applied;
        self.current.store(view);
        self.applied.send_replace(applied);
    }

    /// Puts [`View::again`] in the place of `old`, unless another view has been published.
    pub fn renew(&self, old: &Arc<View>, again: Arc<View>) {
        self.current.compare_and_swap(old, again);
    }

    /// Follows the applied position.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<Position> {
        self.applied.subscribe()
    }
}
