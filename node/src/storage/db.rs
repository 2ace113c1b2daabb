//! The state's RocksDB: open, commit, flush, and the plain reads that everything else is made of.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::{
    ColumnFamily, DB, DBPinnableSlice, DBRawIterator, FlushOptions, Options, ReadOptions,
    WriteBatch, WriteOptions,
};
use self_cell::self_cell;

use super::count::Counts;
use super::layout::{self, Column, Progress, Scrubbed};
use super::read::Reader;
use super::recent::Recent;
use super::{Batch, Error, Snapshot, options};
use crate::model::Conditions;

const DIRECTORY_MODE: u32 = 0o700;

/// Handles of the columns, in the order of [`Column::NAMES`].
struct Columns<'a> {
    handles: [&'a ColumnFamily; Column::COUNT],
}

self_cell!(
    struct Engine {
        owner: DB,
        #[covariant]
        dependent: Columns,
    }
);

impl From<rocksdb::Error> for Error {
    fn from(error: rocksdb::Error) -> Self {
        Self::Engine(error.into_string())
    }
}

/// The open state store of this member.
pub struct Db {
    engine: Engine,
    path: PathBuf,
    write_options: WriteOptions,
    read_options: ReadOptions,
    recent: Recent,
    counts: Counts,
    /// As of the last commit. The applier alone changes it.
    progress: Mutex<Progress>,
    /// As of the last commit, like the progress.
    conditions: Mutex<Arc<Conditions>>,
}

impl Db {
    /// Opens or creates the store in `path`, which is made with mode 0700.
    ///
    /// # Errors
    /// When it cannot be read or written, is in use, or holds columns of a newer version.
    pub fn open(path: &Path) -> Result<Arc<Self>, Error> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(|source| Error::Io {
                path: path.display().to_string(),
                source,
            })?;
        refuse_unknown_columns(path)?;
        let db = DB::open_cf_descriptors(&options::database(), path, options::columns())?;
        let engine = Engine::try_new(db, |db| {
            let mut handles = Vec::with_capacity(Column::COUNT);
            for name in Column::NAMES {
                let missing = || Error::Engine(format!("column {name} was not opened"));
                handles.push(db.cf_handle(name).ok_or_else(missing)?);
            }
            let handles = handles
                .try_into()
                .map_err(|_| Error::Engine("columns were not opened".into()))?;
            Ok::<_, Error>(Columns { handles })
        })?;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        let db = Self {
            engine,
            path: path.to_owned(),
            write_options,
            read_options: ReadOptions::default(),
            recent: Recent::new()?,
            counts: Counts::default(),
            progress: Mutex::new(Progress::default()),
            conditions: Mutex::default(),
        };
        if let Some(encoded) = db.meta(layout::META_PROGRESS)? {
            let progress = Progress::decode(&encoded)
                .ok_or_else(|| layout::damaged(Column::Meta, layout::META_PROGRESS))?;
            *db.progress.lock() = progress;
        }
        if let Some(encoded) = db.meta(layout::META_CONDITIONS)? {
            let conditions = layout::decode_conditions(&encoded)
                .ok_or_else(|| layout::damaged(Column::Meta, layout::META_CONDITIONS))?;
            *db.conditions.lock() = Arc::new(conditions);
        }
        Ok(Arc::new(db))
    }

    /// Reads what [`Db::open`] reads of the store in `path`, and changes nothing. Whether
    /// anything was ever applied to it.
    ///
    /// # Errors
    /// What [`Db::open`] would refuse.
    pub fn check(path: &Path) -> Result<bool, Error> {
        if !path.join("CURRENT").exists() {
            return Ok(false);
        }
        refuse_unknown_columns(path)?;
        let columns = DB::list_cf(&Options::default(), path)?;
        let db = DB::open_cf_for_read_only(&Options::default(), path, columns, false)?;
        let Some(meta) = db.cf_handle(Column::Meta.name()) else {
            return Ok(false);
        };
        match db.get_cf(meta, layout::META_PROGRESS)? {
            None => Ok(false),
            Some(encoded) => Progress::decode(&encoded)
                .map(|_| true)
                .ok_or_else(|| layout::damaged(Column::Meta, layout::META_PROGRESS)),
        }
    }

    /// Where the store lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far the committed state has come.
    pub fn progress(&self) -> Progress {
        *self.progress.lock()
    }

    /// Alarms and downgrade of the committed state.
    pub fn conditions(&self) -> Arc<Conditions> {
        Arc::clone(&self.conditions.lock())
    }

    /// Raft's membership as it was last given to [`Batch::set_membership`].
    pub fn membership(&self) -> Result<Option<Bytes>, Error> {
        self.meta(layout::META_MEMBERSHIP)
    }

    /// How far the last compaction has deleted.
    pub fn scrubbed(&self) -> Result<Scrubbed, Error> {
        match self.meta(layout::META_SCRUBBED)? {
            None => Ok(Scrubbed::default()),
            Some(encoded) => Scrubbed::decode(&encoded)
                .ok_or_else(|| layout::damaged(Column::Meta, layout::META_SCRUBBED)),
        }
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.get(Column::Meta, key, &self.read_options)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// An empty batch on top of the committed state. One at a time: the applier's.
    pub fn batch(self: &Arc<Self>) -> Batch {
        Batch::new(Arc::clone(self))
    }

    /// Writes all of `batch` at once, without a sync: the raft log replays what is lost.
    pub fn commit(&self, mut batch: Batch) -> Result<(), Error> {
        batch.commit_pending()
    }

    /// A frozen view of all columns.
    pub fn snapshot(self: &Arc<Self>) -> Snapshot {
        Snapshot::new(Arc::clone(self))
    }

    /// Reads of what is committed by now.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self, None, None)
    }

    /// Makes all that was committed durable.
    pub fn flush(&self) -> Result<(), Error> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let handles = self.engine.borrow_dependent().handles;
        let handles: Vec<_> = handles.iter().collect();
        Ok(self.raw().flush_cfs_opt(&handles, &options)?)
    }

    /// Gives back the space of what was deleted. Readers and writers go on meanwhile.
    pub fn compact(&self) -> Result<(), Error> {
        self.flush()?;
        for handle in self.engine.borrow_dependent().handles {
            self.raw()
                .compact_range_cf(&handle, None::<&[u8]>, None::<&[u8]>);
        }
        Ok(())
    }

    /// Bytes on disk and in memtables, and bytes of them that are not superseded (an estimate).
    pub fn size_bytes(&self) -> Result<(u64, u64), Error> {
        let (mut total, mut used) = (0, 0);
        for handle in self.engine.borrow_dependent().handles {
            let read = |name: &str| -> Result<u64, Error> {
                let number = self.raw().property_int_value_cf(&handle, name)?;
                Ok(number.unwrap_or(0))
            };
            let memtables = read("rocksdb.size-all-mem-tables")?;
            let tables = read("rocksdb.total-sst-files-size")?;
            total += memtables + tables;
            used += memtables + read("rocksdb.estimate-live-data-size")?.min(tables);
        }
        Ok((total, used))
    }

    /// As [`Db::size_bytes`], the first number alone: cheap enough to ask several times a second.
    pub fn total_bytes(&self) -> Result<u64, Error> {
        let mut total = 0;
        for handle in self.engine.borrow_dependent().handles {
            for name in [
                "rocksdb.size-all-mem-tables",
                "rocksdb.total-sst-files-size",
            ] {
                let number = self.raw().property_int_value_cf(&handle, name)?;
                total += number.unwrap_or(0);
            }
        }
        Ok(total)
    }

    /// The engine itself, for this floor.
    pub(super) fn raw(&self) -> &DB {
        self.engine.borrow_owner()
    }

    pub(super) fn handle(&self, column: Column) -> &ColumnFamily {
        self.engine.borrow_dependent().handles[column as usize]
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn recent(&self) -> &Recent {
        &self.recent
    }

    pub(super) fn read_options(&self) -> &ReadOptions {
        &self.read_options
    }

    pub(super) fn get(
        &self,
        column: Column,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<Option<DBPinnableSlice<'_>>, Error> {
        Ok(self
            .raw()
            .get_pinned_cf_opt(&self.handle(column), key, options)?)
    }

    pub(super) fn iterate(&self, column: Column, options: ReadOptions) -> DBRawIterator<'_> {
        self.raw()
            .raw_iterator_cf_opt(&self.handle(column), options)
    }

    pub(super) fn write(&self, writes: WriteBatch) -> Result<(), Error> {
        Ok(self.raw().write_opt(writes, &self.write_options)?)
    }

    pub(super) fn set_progress(&self, progress: Progress) {
        *self.progress.lock() = progress;
    }

    pub(super) fn set_conditions(&self, conditions: Arc<Conditions>) {
        *self.conditions.lock() = conditions;
    }
}

/// A column that we do not know was written by a newer version: opening without it would drop it.
fn refuse_unknown_columns(path: &Path) -> Result<(), Error> {
    if !path.join("CURRENT").exists() {
        return Ok(());
    }
    for name in DB::list_cf(&Options::default(), path)? {
        if name != "default" && !Column::NAMES.contains(&name.as_str()) {
            return Err(Error::Engine(format!(
                "{} holds column {name:?}, which this version does not know",
                path.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::Position;

    #[test]
    fn the_directory_is_private_and_held_by_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let db = Db::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, DIRECTORY_MODE);
        let second = Db::open(&path).err().unwrap().to_string();
        assert!(second.contains("lock"), "{second}");
        drop(db);
        Db::open(&path).unwrap();
    }

    #[test]
    fn a_column_of_a_newer_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        drop(Db::open(directory.path()).unwrap());
        let mut columns = options::columns();
        columns.push(rocksdb::ColumnFamilyDescriptor::new(
            "future",
            Options::default(),
        ));
        drop(DB::open_cf_descriptors(&options::database(), directory.path(), columns).unwrap());
        let refused = Db::open(directory.path()).err().unwrap().to_string();
        assert!(refused.contains("\"future\""), "{refused}");
    }

    #[test]
    fn what_was_committed_but_not_flushed_is_lost_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&directory.path().join("state")).unwrap();
        let commit = |index| {
            let mut batch = db.batch();
            batch.finish_entry(Position { term: 1, index });
            db.commit(batch).unwrap();
        };
        commit(1);
        db.flush().unwrap();
        commit(2);
        // What a crash leaves: the files as they are.
        let copy = directory.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(db.path()).unwrap() {
            let entry = entry.unwrap();
            match std::fs::copy(entry.path(), copy.join(entry.file_name())) {
                Ok(_) => {}
                // A file that the engine has no more use for may go meanwhile.
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
            }
        }
        let copy = Db::open(&copy).unwrap();
        assert_eq!(copy.progress().applied.index, 1);
        assert_eq!(db.progress().applied.index, 2);
    }
}
