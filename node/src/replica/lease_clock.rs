//! When leases end. Every member knows which leases there are; only the leader gives them
//! deadlines, in monotonic time, and a new leader gives each its full time again, so that no lease
//! ends early because leadership moved.
//!
//! etcd: server/lease/lessor.go.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::machine::view::LeaseRecord;
use crate::model::LeaseChange;

#[derive(Debug, Clone, Copy)]
struct Lease {
    ttl_seconds: i64,
    /// From the last checkpoint; 0 when there is none.
    remaining_seconds: i64,
    /// Set while this member leads.
    deadline: Option<Instant>,
}

#[derive(Default)]
struct Leases {
    leads: bool,
    by_id: HashMap<i64, Lease>,
    /// Deadlines with their leases, soonest first; empty on a follower.
    by_deadline: BTreeSet<(Instant, i64)>,
}

/// The deadlines of all leases. One lock: the applier tells of changes, renewals move deadlines,
/// the expiry task looks for those that have passed.
#[derive(Default)]
pub struct LeaseClock {
    leases: Mutex<Leases>,
}

/// No lease lives longer than this from now: monotonic time must not overflow.
const FAR_SECONDS: u64 = 100 * 365 * 24 * 3600;

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0).min(FAR_SECONDS))
}

impl Lease {
    /// What it has left when a leader begins to count anew.
    fn fresh(&self) -> Duration {
        match self.remaining_seconds {
            0 => seconds(self.ttl_seconds),
            remaining => seconds(remaining),
        }
    }
}

impl Leases {
    fn set_deadline(&mut self, id: i64, deadline: Option<Instant>) {
        let Some(lease) = self.by_id.get_mut(&id) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut lease.deadline, deadline) {
            self.by_deadline.remove(&(old, id));
        }
        if let Some(new) = deadline {
            self.by_deadline.insert((new, id));
        }
    }

    fn apply(&mut self, change: &LeaseChange, now: Instant) {
        match *change {
            LeaseChange::Granted { id, ttl_seconds } => {
                self.remove(id);
                let lease = Lease {
                    ttl_seconds,
                    remaining_seconds: 0,
                    deadline: None,
                };
                self.by_id.insert(id, lease);
                if self.leads {
                    self.set_deadline(id, Some(now + lease.fresh()));
                }
            }
            LeaseChange::Revoked { id } => self.remove(id),
            LeaseChange::Checkpointed {
                id,
                remaining_seconds,
            } => {
                if let Some(lease) = self.by_id.get_mut(&id) {
                    lease.remaining_seconds = remaining_seconds;
                }
                if self.leads
                    && let Some(lease) = self.by_id.get(&id).copied()
                {
                    self.set_deadline(id, Some(now + lease.fresh()));
                }
            }
        }
    }

    fn remove(&mut self, id: i64) {
        self.set_deadline(id, None);
        self.by_id.remove(&id);
    }
}

impl LeaseClock {
    /// Applied commands changed leases.
    pub fn apply(&self, changes: &[LeaseChange], now: Instant) {
        let mut leases = self.leases.lock();
        for change in changes {
            leases.apply(change, now);
        }
    }

    /// The whole state was replaced, or read at start.
    pub fn replace(&self, records: &[LeaseRecord], now: Instant) {
        let mut leases = self.leases.lock();
        leases.by_deadline.clear();
        leases.by_id = records
            .iter()
            .map(|record| {
                let lease = Lease {
                    ttl_seconds: record.ttl_seconds,
                    remaining_seconds: record.remaining_seconds,
                    deadline: None,
                };
                (record.id, lease)
            })
            .collect();
        if leases.leads {
            set_all(&mut leases, now, Duration::ZERO);
        }
    }

    /// This member leads from now on: every lease gets its full time, and `extension` on top for
    /// the time in which nobody could renew it.
    pub fn lead(&self, now: Instant, extension: Duration) {
        let mut leases = self.leases.lock();
        leases.leads = true;
        set_all(&mut leases, now, extension);
    }

    /// This member leads no longer: it knows no deadlines.
    pub fn follow(&self) {
        let mut leases = self.leases.lock();
        leases.leads = false;
        leases.by_deadline.clear();
        for lease in leases.by_id.values_mut() {
            lease.deadline = None;
        }
    }

    /// Gives a lease its full TTL again; the TTL in seconds, 0 when it is unknown or has expired.
    /// None when this member does not lead.
    pub fn renew(&self, id: i64, now: Instant) -> Option<i64> {
        let mut leases = self.leases.lock();
        if !leases.leads {
            return None;
        }
        let Some(lease) = leases.by_id.get_mut(&id) else {
            return Some(0);
        };
        if lease.deadline.is_none_or(|deadline| deadline <= now) {
            return Some(0);
        }
        lease.remaining_seconds = 0;
        let ttl = lease.ttl_seconds;
        leases.set_deadline(id, Some(now + seconds(ttl)));
        Some(ttl)
    }

    /// How long a lease still lives; `Some(None)` when it is unknown or has expired, none when
    /// this member does not lead.
    pub fn remaining(&self, id: i64, now: Instant) -> Option<Option<Duration>> {
        let leases = self.leases.lock();
        leases.leads.then(|| {
            let deadline = leases.by_id.get(&id)?.deadline?;
            Some(deadline.checked_duration_since(now)).filter(|left| left.is_some())?
        })
    }

    pub fn knows(&self, id: i64) -> bool {
        self.leases.lock().by_id.contains_key(&id)
    }

    /// Up to `count_max` leases whose deadline has passed, the oldest first.
    pub fn expired(&self, now: Instant, count_max: usize) -> Vec<i64> {
        let leases = self.leases.lock();
        let passed = leases.by_deadline.iter();
        let passed = passed.take_while(|(deadline, _)| *deadline <= now);
        passed.map(|(_, id)| *id).take(count_max).collect()
    }

    pub fn len(&self) -> usize {
        self.leases.lock().by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn set_all(leases: &mut Leases, now: Instant, extension: Duration) {
    let ids: Vec<i64> = leases.by_id.keys().copied().collect();
    for id in ids {
        let lease = leases.by_id[&id];
        leases.set_deadline(id, Some(now + extension + lease.fresh()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(id: i64, ttl_seconds: i64) -> LeaseChange {
        LeaseChange::Granted { id, ttl_seconds }
    }

    #[test]
    fn a_lease_expires_only_on_the_leader_and_is_dead_once_expired() {
        let (clock, start) = (LeaseClock::default(), Instant::now());
        clock.apply(&[granted(1, 10)], start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(clock.renew(1, after(1)), None);
        assert!(clock.expired(after(1_000), 9).is_empty());
        clock.lead(after(5), Duration::from_secs(1));
        assert!(clock.expired(after(15), 9).is_empty());
        assert_eq!(
            clock.remaining(1, after(6)),
            Some(Some(Duration::from_secs(10)))
        );
        assert_eq!(clock.expired(after(16), 9), vec![1]);
        assert_eq!(clock.renew(1, after(16)), Some(0));
        assert_eq!(clock.remaining(1, after(17)), Some(None));
    }

    #[test]
    fn a_renewal_moves_the_deadline_and_a_revoke_removes_it() {
        let (clock, start) = (LeaseClock::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        clock.lead(start, Duration::ZERO);
        clock.apply(&[granted(1, 10), granted(2, 10)], start);
        assert_eq!(clock.renew(1, after(9)), Some(10));
        assert_eq!(clock.expired(after(18), 9), vec![2]);
        clock.apply(&[LeaseChange::Revoked { id: 2 }], after(18));
        assert!(clock.expired(after(18), 9).is_empty());
        assert_eq!(clock.renew(2, after(18)), Some(0));
        assert_eq!(clock.expired(after(19), 9), vec![1]);
    }

    #[test]
    fn a_checkpoint_shortens_what_the_next_leader_gives() {
        let (clock, start) = (LeaseClock::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let change = LeaseChange::Checkpointed {
            id: 1,
            remaining_seconds: 3,
        };
        clock.apply(&[granted(1, 100), change], start);
        clock.lead(start, Duration::ZERO);
        assert_eq!(clock.expired(after(3), 9), vec![1]);
        clock.follow();
        assert!(clock.expired(after(3), 9).is_empty());
    }

    #[test]
    fn a_lease_of_centuries_does_not_overflow() {
        let (clock, start) = (LeaseClock::default(), Instant::now());
        clock.lead(start, Duration::ZERO);
        clock.apply(&[granted(1, i64::MAX)], start);
        assert_eq!(clock.renew(1, start), Some(i64::MAX));
    }
}
