//! Live pairs that were read or written of late, so that a hot key costs no search in the engine.
//!
//! The one writer (the applier) puts what it commits here before any view of it is published. So
//! what stands here for a key is its newest version, and answers every reader whose state is not
//! older than it; readers of older states ask the engine.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use quick_cache::sync::{Cache, GuardResult};
use quick_cache::{OptionsBuilder, Weighter};

use super::Error;
use super::read::Pair;

/// Keys, records and what it takes to hold them.
const BYTES_MAX: u64 = 48 * 1024 * 1024;
/// Larger records would drive out many small ones.
const RECORD_BYTES_MAX: usize = 64 * 1024;
/// What a pair takes beside its key and record: the cache's own links and the allocator's heads.
const PAIR_BYTES: usize = 160;
const PAIRS_ESTIMATE: usize = 64 * 1024;
/// Parts with a lock of their own.
const PARTS: usize = 16;

#[derive(Debug, Clone)]
struct PairBytes;

impl Weighter<Vec<u8>, Pair> for PairBytes {
    fn weight(&self, key: &Vec<u8>, pair: &Pair) -> u64 {
        (key.len() + pair.record.len() + PAIR_BYTES) as u64
    }
}

/// See the module.
pub(super) struct Recent {
    pairs: Cache<Vec<u8>, Pair, PairBytes>,
    /// No commit that changes a later revision has begun.
    newest: AtomicI64,
}

impl Recent {
    pub(super) fn new() -> Result<Self, Error> {
        let options = OptionsBuilder::new()
            .shards(PARTS)
            .estimated_items_capacity(PAIRS_ESTIMATE)
            .weight_capacity(BYTES_MAX)
            .build()
            .map_err(|error| Error::Engine(format!("cache of pairs: {error}")))?;
        Ok(Self {
            pairs: Cache::with_options(
                options,
                PairBytes,
                quick_cache::DefaultHashBuilder::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            newest: AtomicI64::new(0),
        })
    }

    /// The version of `key` that a reader of the state at revision `at` sees, if it is here.
    pub(super) fn get(&self, key: &[u8], at: i64) -> Option<Pair> {
        let pair = self.pairs.get(key)?;
        (pair.head.mod_revision <= at).then_some(pair)
    }

    /// As [`Recent::get`]; what is not here is loaded from the reader's own state, and kept if
    /// that is the newest.
    pub(super) fn get_or_load(
        &self,
        key: &[u8],
        at: i64,
        load: impl FnOnce() -> Result<Option<Pair>, Error>,
    ) -> Result<Option<Pair>, Error> {
        match self.pairs.get_value_or_guard(key, Some(Duration::ZERO)) {
            GuardResult::Value(pair) if pair.head.mod_revision <= at => Ok(Some(pair)),
            // A commit that begins after this look takes the guard's place away, so that an
            // outdated pair cannot land behind it.
            GuardResult::Guard(guard) if self.newest.load(Ordering::SeqCst) <= at => {
                let pair = load()?;
                if let Some(pair) = &pair
                    && pair.record.len() <= RECORD_BYTES_MAX
                {
                    // Refused when a commit came between: then it is outdated, here alone.
                    drop(guard.insert(pair.clone()));
                }
                Ok(pair)
            }
            GuardResult::Value(_) | GuardResult::Guard(_) | GuardResult::Timeout => load(),
        }
    }

    /// A commit of changes up to revision `main` begins. Before the engine has them.
    pub(super) fn begin(&self, main: i64) {
        self.newest.fetch_max(main, Ordering::SeqCst);
    }

    /// The engine has a new version of `key`, or none any more.
    pub(super) fn changed(&self, key: &[u8], pair: Option<Pair>) {
        match pair {
            Some(pair) if pair.record.len() <= RECORD_BYTES_MAX => {
                self.pairs.insert(key.to_vec(), pair);
            }
            Some(_) | None => {
                self.pairs.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::storage::layout::Head;

    fn pair(main: i64) -> Pair {
        let head = Head {
            create_revision: 1,
            mod_revision: main,
            sub: 0,
            version: 1,
            lease: 0,
        };
        Pair {
            head,
            record: Bytes::from(vec![b'r'; 100]),
        }
    }

    fn commit(recent: &Recent, main: i64, change: Option<Pair>) {
        recent.begin(main);
        recent.changed(b"key", change);
    }

    #[test]
    fn a_reader_of_an_older_state_is_not_served() {
        let recent = Recent::new().unwrap();
        commit(&recent, 5, Some(pair(5)));
        assert_eq!(recent.get(b"key", 5), Some(pair(5)));
        assert_eq!(recent.get(b"key", 4), None);
        let older = recent.get_or_load(b"key", 4, || Ok(Some(pair(3)))).unwrap();
        assert_eq!(older, Some(pair(3)));
        assert_eq!(
            recent.get(b"key", 5),
            Some(pair(5)),
            "and it changes nothing"
        );
    }

    #[test]
    fn what_was_loaded_from_an_older_state_is_not_kept() {
        let recent = Recent::new().unwrap();
        commit(&recent, 5, None);
        let older = recent.get_or_load(b"key", 4, || Ok(Some(pair(3)))).unwrap();
        assert_eq!(older, Some(pair(3)));
        assert_eq!(recent.get(b"key", 5), None);
    }

    #[test]
    fn a_commit_during_a_load_wins() {
        for change in [Some(pair(5)), None] {
            let recent = Recent::new().unwrap();
            let load = || {
                commit(&recent, 5, change.clone());
                Ok(Some(pair(3)))
            };
            let loaded = recent.get_or_load(b"key", 4, load).unwrap();
            assert_eq!(loaded, Some(pair(3)));
            assert_eq!(recent.get(b"key", 5), change);
        }
    }

    #[test]
    fn large_records_are_not_kept_and_make_way() {
        let recent = Recent::new().unwrap();
        commit(&recent, 5, Some(pair(5)));
        let large = Pair {
            record: Bytes::from(vec![0; RECORD_BYTES_MAX + 1]),
            ..pair(6)
        };
        commit(&recent, 6, Some(large.clone()));
        assert_eq!(recent.get(b"key", 6), None);
        let loaded = recent.get_or_load(b"key", 6, || Ok(Some(large.clone())));
        assert_eq!(loaded.unwrap(), Some(large));
        assert_eq!(recent.get(b"key", 6), None);
    }

    #[test]
    fn memory_is_bounded() {
        let recent = Recent::new().unwrap();
        for number in 0..400_000_u32 {
            recent.changed(&number.to_be_bytes(), Some(pair(1)));
        }
        assert!(recent.pairs.weight() <= BYTES_MAX);
        assert!(recent.pairs.weight() > BYTES_MAX / 2);
    }
}
