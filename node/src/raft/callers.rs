//! The callers of this member whose commands are on their way through the log. Whoever applies a
//! section of this member finds its callers here and answers them.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::Refusal;
use crate::model::kv::Reply;

/// What a caller gets.
pub type Outcome = Result<Reply, Refusal>;

/// One command and who waits for its outcome.
#[derive(Debug)]
pub struct Waiting {
    /// The encoded command.
    pub command: Bytes,
    pub answer: oneshot::Sender<Outcome>,
    /// Refused rather than forwarded when another member leads.
    pub leader_only: bool,
}

/// The commands of one section.
#[derive(Debug)]
pub struct Group {
    pub waiting: Vec<Waiting>,
    /// Nobody waits any longer than this.
    pub until: Instant,
    /// Which forwarding session carries it; 0 for none.
    pub session: u64,
}

type OnFinished = Box<dyn Fn(u64) + Send + Sync>;

/// Groups by their first sequence number. One lock, held for a lookup: the proposer and the
/// applier meet here.
pub struct Callers {
    origin: u64,
    groups: Mutex<HashMap<u64, Group>>,
    finished: OnceLock<OnFinished>,
}

impl Callers {
    /// `origin` is this member's ID, by which its sections are known.
    pub fn new(origin: u64) -> Self {
        Self {
            origin,
            groups: Mutex::new(HashMap::new()),
            finished: OnceLock::new(),
        }
    }

    pub fn origin(&self) -> u64 {
        self.origin
    }

    /// Sets who is told of the session of each answered group. Called once, before any proposal.
    pub fn on_finished(&self, told: OnFinished) {
        assert!(self.finished.set(told).is_ok(), "set once, at start");
    }

    pub fn insert(&self, first_sequence: u64, group: Group) {
        let replaced = self.groups.lock().insert(first_sequence, group);
        debug_assert!(replaced.is_none(), "sequence numbers are used once");
    }

    /// Takes a group back that was certainly not proposed.
    pub fn take(&self, first_sequence: u64) -> Option<Group> {
        self.groups.lock().remove(&first_sequence)
    }

    /// Whether anybody waits for the section that begins with this sequence number.
    pub fn is_awaited(&self, first_sequence: u64) -> bool {
        self.groups.lock().contains_key(&first_sequence)
    }

    /// Answers the callers of an applied section. A section of an earlier boot has none.
    pub fn complete(&self, first_sequence: u64, outcomes: Vec<Outcome>) {
        let Some(group) = self.take(first_sequence) else {
            return;
        };
        for (waiting, outcome) in group.waiting.into_iter().zip(outcomes) {
            // A caller that is gone needs no answer.
            drop(waiting.answer.send(outcome));
        }
        self.tell(group.session);
    }

    /// Forgets groups whose callers have all given up: their outcome stays unknown.
    pub fn sweep(&self, now: Instant) {
        let mut sessions = Vec::new();
        self.groups.lock().retain(|_, group| {
            let keep = group.until > now;
            if !keep {
                sessions.push(group.session);
            }
            keep
        });
        sessions.into_iter().for_each(|session| self.tell(session));
    }

    /// Lets go of all who wait: this member stops.
    pub fn clear(&self) {
        self.groups.lock().clear();
    }

    fn tell(&self, session: u64) {
        if let Some(finished) = self.finished.get() {
            finished(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    fn group(count: usize) -> (Group, Vec<oneshot::Receiver<Outcome>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| oneshot::channel()).unzip();
        let waiting = senders.into_iter().map(|answer| Waiting {
            command: Bytes::new(),
            answer,
            leader_only: false,
        });
        let group = Group {
            waiting: waiting.collect(),
            until: Instant::now() + Duration::from_secs(1),
            session: 7,
        };
        (group, receivers)
    }

    #[test]
    fn a_section_is_answered_once_in_order() {
        let callers = Callers::new(1);
        let told = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&told);
        callers.on_finished(Box::new(move |session| {
            count.fetch_add(session, Ordering::Relaxed);
        }));
        let (group, mut receivers) = group(2);
        callers.insert(10, group);
        callers.complete(11, vec![Ok(Reply::Done)]);
        assert!(receivers[0].try_recv().is_err());
        callers.complete(10, vec![Ok(Reply::Done), Err(Refusal::LeaseNotFound)]);
        callers.complete(10, vec![Ok(Reply::Done), Ok(Reply::Done)]);
        assert_eq!(receivers[0].try_recv(), Ok(Ok(Reply::Done)));
        assert_eq!(receivers[1].try_recv(), Ok(Err(Refusal::LeaseNotFound)));
        assert_eq!(told.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_group_is_swept_after_its_time() {
        let callers = Callers::new(1);
        let (group, mut receivers) = group(1);
        let until = group.until;
        callers.insert(1, group);
        callers.sweep(until - Duration::from_millis(1));
        assert!(callers.is_awaited(1));
        callers.sweep(until);
        assert!(!callers.is_awaited(1));
        assert!(receivers[0].try_recv().is_err());
    }
}
