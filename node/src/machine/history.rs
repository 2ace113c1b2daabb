//! Events of the past, for watchers that catch up.

use bytes::Bytes;

use crate::model::{Event, EventKind, KeyRange};
use crate::storage::record::key_of;
use crate::storage::{Error, Reader, Record};

/// Events in `range` from revision `from` to `revision`, whole revisions, looking at about
/// `records_max` records. Returns them with the revision to go on from.
pub(super) fn history(
    reader: Reader<'_>,
    from: i64,
    range: &KeyRange,
    records_max: usize,
    (revision, compacted): (i64, i64),
) -> Result<(Vec<(i64, Event)>, i64), Error> {
    let mut events = Vec::new();
    let mut looked_at = 0;
    let from = from.max(0);
    let mut last = from - 1;
    let mut next = revision + 1;
    reader.records((from, 0), |main, sub, encoded, record| {
        if main > revision {
            return Ok(false);
        }
        if main != last && looked_at >= records_max {
            next = main;
            return Ok(false);
        }
        last = main;
        looked_at += 1;
        if !range.contains(record.key) {
            return Ok(true);
        }
        let previous = if record.create_revision == main || main <= compacted {
            None
        } else {
            match reader.replaced(record.key, main, sub)? {
                // Versions in the midst of a revision are seen by nobody.
                Some((replaced, _)) if replaced == main => first_previous(&events, main, record),
                previous => previous,
            }
        };
        let kv = Bytes::copy_from_slice(encoded);
        let kind = if record.is_tombstone() {
            EventKind::Delete
        } else {
            EventKind::Put
        };
        let key = key_of(&kv);
        events.push((
            main,
            Event {
                kind,
                key,
                kv,
                previous,
            },
        ));
        Ok(true)
    })?;
    Ok((events, next.max(from)))
}

/// What the first event of the record's key in revision `main` has replaced.
fn first_previous(events: &[(i64, Event)], main: i64, record: &Record<'_>) -> Option<(i64, i64)> {
    let same_revision = events.iter().rev().take_while(|(at, _)| *at == main);
    let same_key = same_revision.filter(|(_, event)| event.key == record.key);
    same_key.last().and_then(|(_, event)| event.previous)
}
