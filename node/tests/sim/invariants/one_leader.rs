//! A term has at most one leader.

use std::collections::BTreeMap;

use quorate::replica::Replica;

#[derive(Default)]
pub struct Leaders {
    of_term: BTreeMap<u64, u64>,
}

impl Leaders {
    pub fn look(&mut self, replica: &Replica) {
        let standing = replica.raft().standing();
        if standing.is_leader {
            let member = replica.member_id();
            let known = *self.of_term.entry(standing.term).or_insert(member);
            assert_eq!(known, member, "two leaders in term {}", standing.term);
        }
    }

    pub fn finish(&self) {
        assert!(!self.of_term.is_empty(), "nobody ever led");
    }
}
