//! Members that have applied the same hold the same.

use std::collections::BTreeMap;

use quorate::machine::view::View;

use crate::sim::cluster::{Cluster, History};

/// Revisions at which members are compared while they run.
const MARK_EVERY: i64 = 100;

/// The hash of the store at certain revisions, and who has confirmed it. It depends on how far the
/// store is compacted.
#[derive(Default)]
pub struct Hashes {
    at_mark: BTreeMap<(i64, i64), u32>,
    looked: BTreeMap<u64, i64>,
    compared: u32,
}

impl Hashes {
    pub fn look(&mut self, member: u64, view: &View) {
        let mark = view.revision / MARK_EVERY * MARK_EVERY;
        if mark <= view.compacted.max(0) || self.looked.insert(member, mark) == Some(mark) {
            return;
        }
        let (hash, compacted, _) = view.hash_kv(mark).expect("a hash");
        match self.at_mark.insert((mark, compacted), hash) {
            None => {}
            Some(other) => {
                self.compared += 1;
                assert_eq!(other, hash, "member {member} differs at revision {mark}");
            }
        }
    }

    pub fn finish(&self) {
        assert!(self.compared > 0, "no two members were compared");
    }
}

/// All members have the same history, leases and members in the end.
pub fn check(cluster: &Cluster, history: &History) {
    let first = cluster.view(cluster.members[0]);
    for member in &cluster.members {
        let view = cluster.view(*member);
        assert_eq!(view.applied, first.applied, "member {member}");
        assert_eq!(view.revision, first.revision, "member {member}");
        assert!(
            cluster.history_of(*member) == *history,
            "member {member} has another history"
        );
        let hash = |view: &View| view.hash().expect("a hash");
        assert_eq!(hash(&view), hash(&first), "member {member} differs");
        let members = |view: &View| view.members().expect("members");
        assert_eq!(members(&view), members(&first), "member {member}");
    }
}
