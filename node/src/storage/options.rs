//! How RocksDB is tuned: little memory first, then few CPU cycles a write.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompactionStyle, DBCompressionType,
    LogLevel, Options,
};

use super::layout::Column;

const MIB: usize = 1024 * 1024;
/// Blocks, indexes and filters of all columns together.
const BLOCK_CACHE_BYTES: usize = 16 * MIB;
/// Memtables of all columns together; what is above is flushed at once.
const MEMTABLES_BYTES_MAX: usize = 16 * MIB;
/// One memtable of a column that every put writes to: small enough to stay in the CPU's cache.
const BUSY_MEMTABLE_BYTES: usize = 8 * MIB;
const QUIET_MEMTABLE_BYTES: usize = MIB;
const MEMTABLES_A_COLUMN: i32 = 2;
pub(super) const TABLE_BYTES: u64 = 32 * MIB as u64;
const LEVEL_BASE_BYTES: u64 = 64 * MIB as u64;
const BLOCK_BYTES: usize = 8 * 1024;
const BLOOM_BITS_A_KEY: f64 = 10.0;
const MEMTABLE_BLOOM_RATIO: f64 = 0.02;
const OPEN_FILES_MAX: i32 = 512;
const INFO_LOG_BYTES_MAX: usize = MIB;
const MANIFEST_BYTES_MAX: usize = 4 * MIB;

/// Options of the whole store.
pub(super) fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // The write-ahead log is off: all columns reach the disk at one point or not at all.
    options.set_atomic_flush(true);
    options.set_db_write_buffer_size(MEMTABLES_BYTES_MAX);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    options.set_log_level(LogLevel::Warn);
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_bytes_per_sync(MIB as u64);
    // The applier is the one busy writer.
    options.set_allow_concurrent_memtable_write(false);
    options
}

/// All columns, with the cache that they share.
pub(super) fn columns() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    let default = ("default", column(QUIET_MEMTABLE_BYTES, false, &cache));
    std::iter::once(default)
        .chain(
            Column::NAMES
                .into_iter()
                .map(|name| (name, named(name, &cache))),
        )
        .map(|(name, options)| ColumnFamilyDescriptor::new(name, options))
        .collect()
}

/// Options of a table of `column` that is written outside of the store and then taken in.
pub(super) fn table(column: Column) -> Options {
    // Nothing is read while it is written.
    named(column.name(), &Cache::new_lru_cache(0))
}

fn named(name: &str, cache: &Cache) -> Options {
    let busy = [Column::Live, Column::Rev, Column::Past]
        .iter()
        .any(|column| column.name() == name);
    let bytes = if busy {
        BUSY_MEMTABLE_BYTES
    } else {
        QUIET_MEMTABLE_BYTES
    };
    // A put looks up its key in `live`, often in vain.
    let bloom = name == Column::Live.name();
    let mut options = column(bytes, bloom, cache);
    if name == Column::Past.name() {
        // It only grows, at random places, and is seldom read: few rewrites count most.
        options.set_compaction_style(DBCompactionStyle::Universal);
    }
    options
}

fn column(memtable_bytes: usize, bloom: bool, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);
    let mut options = Options::default();
    if bloom {
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        options.set_memtable_whole_key_filtering(true);
        table.set_bloom_filter(BLOOM_BITS_A_KEY, false);
        table.set_optimize_filters_for_memory(true);
    }
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(memtable_bytes);
    options.set_max_write_buffer_number(MEMTABLES_A_COLUMN);
    options.set_target_file_size_base(TABLE_BYTES);
    options.set_max_bytes_for_level_base(LEVEL_BASE_BYTES);
    // One compression at all levels, so that files of `rev`, which never overlap, are moved down
    // without being rewritten.
    options.set_compression_type(DBCompressionType::Lz4);
    options
}
