//! The keys of a lease go once, all of them in one revision.

use std::collections::BTreeMap;

use quorate::model::EventKind;

use crate::sim::cluster::History;

#[derive(Default)]
struct Lease {
    puts: BTreeMap<Vec<u8>, u32>,
    /// Each removed key with its revision.
    removals: Vec<(Vec<u8>, i64)>,
}

pub fn check(history: &History) {
    let mut leases: BTreeMap<String, Lease> = BTreeMap::new();
    for (revision, event) in history {
        let text = String::from_utf8_lossy(&event.key);
        let Some(id) = text
            .strip_prefix("lease-")
            .and_then(|t| t.split('-').next())
        else {
            continue;
        };
        let lease = leases.entry(id.to_owned()).or_default();
        match event.kind {
            EventKind::Put => *lease.puts.entry(event.key.to_vec()).or_default() += 1,
            EventKind::Delete => lease.removals.push((event.key.to_vec(), *revision)),
        }
    }
    assert!(!leases.is_empty(), "no lease was ever used");
    for (id, lease) in leases {
        let puts: Vec<_> = lease.puts.keys().cloned().collect();
        let mut removed: Vec<_> = lease.removals.iter().map(|(key, _)| key.clone()).collect();
        removed.sort();
        assert_eq!(removed, puts, "lease {id}: each key goes once");
        let at = |removal: &(Vec<u8>, i64)| removal.1;
        let first = lease.removals.first().map(at);
        assert!(
            lease
                .removals
                .iter()
                .all(|removal| Some(at(removal)) == first),
            "lease {id}: its keys go together"
        );
    }
}
