//! A frozen view of the store, tied to the store it freezes.

use std::sync::Arc;

use rocksdb::ReadOptions;
use self_cell::self_cell;

use super::layout::{Column, META_PROGRESS, Progress};
use super::read::Reader;
use super::{Db, Error};

/// The engine's snapshot and the options that read at it, made once for all reads.
pub(super) struct Frozen<'a> {
    pub(super) snapshot: rocksdb::Snapshot<'a>,
    pub(super) options: ReadOptions,
    /// Of the newest change in it.
    pub(super) revision: i64,
}

self_cell!(
    struct Cell {
        owner: Arc<Db>,
        #[covariant]
        dependent: Frozen,
    }
);

/// A frozen view of the store; cheap to hold for as long as a reader needs it.
pub struct Snapshot {
    cell: Cell,
}

impl Snapshot {
    pub(super) fn new(db: Arc<Db>) -> Self {
        Self {
            cell: Cell::new(db, |db| {
                let snapshot = db.raw().snapshot();
                let mut options = ReadOptions::default();
                options.set_snapshot(&snapshot);
                let revision = db.progress().revision;
                Frozen {
                    snapshot,
                    options,
                    revision,
                }
            }),
        }
    }

    /// Reads of the frozen state.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(
            self.cell.borrow_owner(),
            Some(self.cell.borrow_dependent()),
            None,
        )
    }

    /// How far the frozen state has come; none when it does not say so whole.
    pub fn progress(&self) -> Result<Option<Progress>, Error> {
        let frozen = self.cell.borrow_dependent();
        let db = self.db();
        let encoded = db.get(Column::Meta, META_PROGRESS, &frozen.options)?;
        let progress = encoded.and_then(|encoded| Progress::decode(&encoded));
        // The number beside the snapshot is read after it and may be of a later commit.
        Ok(progress.filter(|progress| progress.revision == frozen.revision))
    }

    /// The store that is frozen here.
    pub fn db(&self) -> &Arc<Db> {
        self.cell.borrow_owner()
    }
}
