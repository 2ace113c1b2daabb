//! Compaction: the mark is set at once; what it deletes goes later, in bounded slices.
//!
//! etcd: server/storage/mvcc/kvstore.go (compact), kvstore_compaction.go.

use std::sync::Arc;

use super::{Applied, Machine, header};
use crate::model::Refusal;
use crate::model::kv::{CompactionRequest, CompactionResponse, Reply};
use crate::storage::layout::Scrubbed;
use crate::storage::{Db, Eraser, Error};

impl Machine {
    pub(super) fn compact(&mut self, request: &CompactionRequest) -> Applied {
        if request.revision <= self.compacted {
            return Applied::refused(Refusal::Compacted);
        }
        if request.revision > self.revision {
            return Applied::refused(Refusal::FutureRevision);
        }
        self.compacted = request.revision;
        Applied::done(Reply::Compaction(CompactionResponse {
            header: header(self.revision),
        }))
    }
}

/// What one slice of deleting did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScrubProgress {
    /// There is more to delete: go on after a pause.
    More { deleted: usize },
    /// Everything up to the compacted revision that is superseded is gone.
    Finished { deleted: usize, compacted: i64 },
}

/// Deletes what the last committed compaction superseded, looking at `records_max` records.
///
/// Every record up to the compacted revision makes way for the one that it replaced: that one is
/// visible at no revision that may still be read. A tombstone goes too, unless it lies at the
/// compacted revision itself. How far this came is stored with the deletions, so that a member
/// that stops in between goes on where it was. For one task at a time, beside the applier.
pub fn scrub_slice(db: &Arc<Db>, records_max: usize) -> Result<ScrubProgress, Error> {
    let compacted = db.progress().compacted;
    let from = db.scrubbed()?;
    let mut eraser = Eraser::new(db);
    let mut deleted = 0;
    let mut looked_at = 0;
    let mut resume = None;
    let reader = db.reader();
    reader.records((from.main, from.sub), |main, sub, _, record| {
        if main > compacted {
            return Ok(false);
        }
        if looked_at == records_max {
            resume = Some(Scrubbed { main, sub });
            return Ok(false);
        }
        looked_at += 1;
        if let Some((old_main, old_sub)) = reader.replaced(record.key, main, sub)? {
            eraser.delete_record(old_main, old_sub);
            eraser.delete_replaced(record.key, main, sub);
            deleted += 1;
        }
        if record.is_tombstone() && main < compacted {
            eraser.delete_record(main, sub);
            deleted += 1;
        }
        Ok(true)
    })?;
    if let Some(resume) = resume {
        eraser.commit(resume)?;
        return Ok(ScrubProgress::More { deleted });
    }
    // The next compaction looks at the records of this one's revision again: a tombstone that
    // stays now goes then.
    let end = Scrubbed {
        main: compacted.max(0),
        sub: 0,
    };
    if end > from || deleted > 0 {
        eraser.commit(end.max(from))?;
    }
    Ok(ScrubProgress::Finished { deleted, compacted })
}
