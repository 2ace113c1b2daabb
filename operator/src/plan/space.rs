//! A store that is full: history is given up and the space given back, now and then.

use crate::api::OperationKind;
use crate::model::{Action, AlarmKind};

use super::look::Look;
use super::step::{Notes, Step, refusal};

const KIND: OperationKind = OperationKind::FreeingSpace;
/// How often it is tried, in seconds: what is full of live keys stays full.
const PAUSE_SECONDS: i64 = 600;

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    let mut alarms = look.seen().alarms.iter();
    if !alarms.any(|(_, kind)| *kind == AlarmKind::NoSpace) {
        return None;
    }
    let words = "compacting, defragmenting, disarming NOSPACE";
    let tried = look.cluster().space_freed;
    if tried.is_some_and(|tried| !look.older(tried, PAUSE_SECONDS)) {
        let message = "the store is at its quota although history was compacted and space given \
                       back: delete keys, or raise spec.engine.quotaBackend";
        let refusal = refusal("QuotaExceeded", message.to_owned());
        notes.refuse(KIND, words, "", &refusal);
        return None;
    }
    if !look.quorate() {
        let what = "fewer than a majority of the voters are healthy".to_owned();
        notes.wait(Step::wait(KIND, words, "", what));
        return None;
    }
    Some(Step::act(KIND, words, "", Action::FreeSpace))
}
