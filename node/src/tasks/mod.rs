//! Duties of the leader or of each member: one struct or function and one loop each. A replica
//! runs them; if one ends before the replica stops, the node stops.

pub mod autocompact;
pub mod corruption;
mod count;
mod expire;
mod promote;
pub mod publish;
mod retain;
mod scrub;

use std::sync::Arc;

use crate::replica::Replica;

/// Starts every duty of this member, right after [`Replica::start`].
pub fn spawn_all(replica: &Arc<Replica>) {
    replica.spawn("expire", expire::run(Arc::clone(replica)));
    replica.spawn("promote", promote::run(Arc::clone(replica)));
    replica.spawn("autocompact", autocompact::run(Arc::clone(replica)));
    replica.spawn("count", count::run(Arc::clone(replica)));
    replica.spawn("scrub", scrub::run(Arc::clone(replica)));
    let (newest, compacted) = (Arc::clone(replica), Arc::clone(replica));
    replica.spawn("corruption", corruption::run_periodic(newest));
    replica.spawn("compaction hashes", corruption::run_compacted(compacted));
    replica.spawn("retain", retain::run(Arc::clone(replica)));
    replica.spawn_once("publish", publish::run(Arc::clone(replica)));
}
