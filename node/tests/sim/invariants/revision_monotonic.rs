//! What a member shows never goes back while it lives.

use std::collections::BTreeMap;

use quorate::machine::Position;
use quorate::machine::view::View;

#[derive(Default)]
pub struct Revisions {
    newest: BTreeMap<u64, (u64, i64, Position)>,
}

impl Revisions {
    pub fn look(&mut self, member: u64, life: u64, view: &View) {
        let now = (life, view.revision, view.applied);
        if let Some(before) = self.newest.insert(member, now)
            && before.0 == life
        {
            assert!(
                before <= now,
                "member {member} went from {before:?} to {now:?}"
            );
        }
    }
}
