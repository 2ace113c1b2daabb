//! Tables that are written in order, outside of the store, and taken in whole: nothing is sorted
//! in memory, written twice or compacted.

use std::path::{Path, PathBuf};

use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};
use self_cell::self_cell;

use super::layout::Column;
use super::{Db, Error, options};

self_cell!(
    struct Table {
        owner: Options,
        #[covariant]
        dependent: SstFileWriter,
    }
);

/// Writes the rows of one column, whose keys ascend, to files of bounded size.
pub(super) struct Tables {
    column: Column,
    folder: PathBuf,
    current: Option<Table>,
    done: Vec<PathBuf>,
}

impl Tables {
    /// Files go to `folder`, which is there and lies on the store's filesystem.
    pub(super) fn new(column: Column, folder: &Path) -> Self {
        Self {
            column,
            folder: folder.to_owned(),
            current: None,
            done: Vec::new(),
        }
    }

    /// Adds a row behind all others.
    ///
    /// # Errors
    /// When the disk fails, or the key is not behind the last one.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut table = match self.current.take() {
            Some(table) => table,
            None => self.begin()?,
        };
        let size = table.with_dependent_mut(|_, writer| {
            writer.put(key, value)?;
            Ok::<_, Error>(writer.file_size())
        })?;
        self.current = Some(table);
        if size >= options::TABLE_BYTES {
            self.end()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<Table, Error> {
        let name = format!("{}-{}.sst", self.column.name(), self.done.len());
        let path = self.folder.join(name);
        let table = Table::try_new(options::table(self.column), |options| {
            let writer = SstFileWriter::create(options);
            writer.open(&path)?;
            Ok::<_, Error>(writer)
        })?;
        self.done.push(path);
        Ok(table)
    }

    fn end(&mut self) -> Result<(), Error> {
        if let Some(mut table) = self.current.take() {
            table.with_dependent_mut(|_, writer| writer.finish())?;
        }
        Ok(())
    }

    /// Moves what was written into the store, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn take_in(mut self, db: &Db) -> Result<(), Error> {
        self.end()?;
        if self.done.is_empty() {
            return Ok(());
        }
        let mut how = IngestExternalFileOptions::default();
        how.set_move_files(true);
        let handle = &db.handle(self.column);
        db.raw()
            .ingest_external_file_cf_opts(handle, &how, self.done)?;
        Ok(())
    }
}
