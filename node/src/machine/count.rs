//! How many keys a range has: one function, so that it can be made fast by itself.

use crate::model::KeyRange;
use crate::storage::{Error, Reader};

/// The keys of `range`, now or at the older revision `at`. Walks the range.
pub(super) fn count(reader: Reader<'_>, range: &KeyRange, at: Option<i64>) -> Result<i64, Error> {
    if at.is_none()
        && let Some(count) = reader.count_committed(range)?
    {
        return Ok(count);
    }
    let mut count = 0;
    reader.scan(range, at, &mut |_, _| {
        count += 1;
        Ok(true)
    })?;
    Ok(count)
}
