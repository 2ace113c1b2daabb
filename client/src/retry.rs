//! Which calls may be made twice, and how long to wait before that.
//!
//! | RPC | repeated after |
//! |---|---|
//! | Range, LeaseTimeToLive, LeaseLeases, MemberList, Status, Hash, HashKV, AuthStatus, UserGet, UserList, RoleGet, RoleList, election Leader | any failure of the connection, `Unavailable` |
//! | Put, DeleteRange, Txn, Compact, LeaseGrant, LeaseRevoke, MemberAdd, MemberRemove, MemberUpdate, MemberPromote, Alarm, Defragment, MoveLeader, Downgrade, all Auth that writes, Lock, Unlock, Campaign, Proclaim, Resign | only if certainly not sent |
//! | Watch, LeaseKeepAlive | not calls: [`crate::Watch`] and [`crate::KeepAlive`] open the stream again |
//! | RangeStream, Snapshot, Observe | never here: the caller knows how far it came |
//!
//! etcd's own client (client/v3/retry.go) also repeats LeaseGrant, LeaseRevoke, Alarm and
//! MoveLeader; we do not, because a repeated one can answer differently from the first.
//!
//! "Certainly not sent" is decided below, in [`crate::Channel`], for every call, also for those
//! of the generated clients: the connection was gone before the call left, or the server said
//! that it did not look at it. Between two rounds over the endpoints 25 ms ± 10 % pass.

use std::time::Duration;

use rand::Rng;
use tonic::{Code, Status};

use crate::error::Refusal;
use crate::limits;

/// Pauses that double from 25 ms up to a maximum, each ± 10 %.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(max: Duration) -> Self {
        Self {
            pause: limits::BACKOFF_MIN,
            max,
        }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = jitter(self.pause);
        self.pause = (self.pause * 2).min(self.max);
        pause
    }
}

/// `pause` ± 10 %.
pub(crate) fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.9..=1.1))
}

/// Whether a **read** that failed so may succeed elsewhere or later.
pub(crate) fn read_may_pass(status: &Status) -> bool {
    status.code() == Code::Unavailable || is_transport(status)
}

/// Whether a member refused only because it is a learner: every other member would not.
pub(crate) fn is_from_learner(status: &Status) -> bool {
    status.message() == Refusal::NotSupportedForLearner.text()
}

/// Whether the status was made here, out of a broken connection.
pub(crate) fn is_transport(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<hyper::Error>() || error.is::<h2::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_millis(100));
        for base_ms in [25.0, 50.0, 100.0, 100.0] {
            let pause_ms = backoff.next().as_secs_f64() * 1000.0;
            let near = base_ms * 0.89..=base_ms * 1.11;
            assert!(near.contains(&pause_ms), "{pause_ms} is not near {base_ms}");
        }
    }
}
