//! Where history is read from: a published view, or a list in tests.

use std::sync::Arc;

use bytes::Bytes;

use crate::machine::view::{ReadError, View};
use crate::model::{Event, KeyRange};
use crate::storage::Error;

/// The state at the hub's last published revision.
#[derive(Clone)]
pub(super) enum Past {
    View(Arc<View>),
    #[cfg(test)]
    List(Arc<list::List>),
}

impl Past {
    /// Whether it is this very view.
    pub(super) fn is_view(&self, other: &Arc<View>) -> bool {
        match self {
            Self::View(view) => Arc::ptr_eq(view, other),
            #[cfg(test)]
            Self::List(_) => false,
        }
    }

    pub(super) fn revision(&self) -> i64 {
        match self {
            Self::View(view) => view.revision,
            #[cfg(test)]
            Self::List(list) => list.revision,
        }
    }

    /// The revision below which history is gone.
    pub(super) fn compacted(&self) -> i64 {
        match self {
            Self::View(view) => view.compacted,
            #[cfg(test)]
            Self::List(list) => list.compacted,
        }
    }

    /// See [`View::history`].
    pub(super) fn history(
        &self,
        from: i64,
        range: &KeyRange,
        records_max: usize,
    ) -> Result<(Vec<(i64, Event)>, i64), ReadError> {
        match self {
            Self::View(view) => view.history(from, range, records_max),
            #[cfg(test)]
            Self::List(list) => list.history(from, range, records_max),
        }
    }

    /// See [`View::record`].
    pub(super) fn record(&self, main: i64, sub: i64) -> Result<Option<Bytes>, Error> {
        match self {
            Self::View(view) => view.record(main, sub),
            #[cfg(test)]
            Self::List(list) => list.record(main, sub),
        }
    }
}

/// A history in memory, with the rules of the real one.
#[cfg(test)]
pub(super) mod list {
    use super::*;
    use crate::model::{EventBatch, Refusal};

    #[derive(Clone, Default)]
    pub(in crate::watch) struct List {
        pub revision: i64,
        pub compacted: i64,
        pub batches: Vec<Arc<EventBatch>>,
        /// Reads fail as on a broken disk.
        pub broken: bool,
    }

    impl List {
        fn check(&self) -> Result<(), Error> {
            if self.broken {
                return Err(Error::Engine("broken on purpose".into()));
            }
            Ok(())
        }

        pub fn history(
            &self,
            from: i64,
            range: &KeyRange,
            records_max: usize,
        ) -> Result<(Vec<(i64, Event)>, i64), ReadError> {
            self.check()?;
            if from < self.compacted {
                return Err(Refusal::Compacted.into());
            }
            let mut events = Vec::new();
            let mut looked_at = 0;
            for batch in self.batches.iter().filter(|batch| batch.revision >= from) {
                if looked_at >= records_max {
                    return Ok((events, batch.revision));
                }
                looked_at += batch.events.len();
                let matching = batch
                    .events
                    .iter()
                    .filter(|event| range.contains(&event.key));
                events.extend(matching.map(|event| (batch.revision, event.clone())));
            }
            Ok((events, self.revision + 1))
        }

        pub fn record(&self, main: i64, sub: i64) -> Result<Option<Bytes>, Error> {
            self.check()?;
            let batch = self.batches.iter().find(|batch| batch.revision == main);
            let event = batch.and_then(|batch| batch.events.get(usize::try_from(sub).ok()?));
            Ok(event.map(|event| event.kv.clone()))
        }
    }
}
