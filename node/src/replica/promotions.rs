//! How promotions of learners ended, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::model::Refusal;

/// See the module.
#[derive(Debug, Default)]
pub struct Promotions {
    succeeded: AtomicU64,
    /// By the reason's text, of which there are as many as refusals. A lock for an increment.
    failed: Mutex<BTreeMap<String, u64>>,
}

impl Promotions {
    pub(super) fn count<T>(&self, outcome: &Result<T, Refusal>) {
        match outcome {
            Ok(_) => {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
            }
            Err(refusal) => *self.failed.lock().entry(reason(refusal)).or_default() += 1,
        }
    }

    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// How many failed, by reason.
    pub fn failed(&self) -> BTreeMap<String, u64> {
        self.failed.lock().clone()
    }
}

/// etcd counts under the text of its inner error, which is not always the one that clients see.
///
/// etcd: server/etcdserver/api/membership/errors.go.
fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::MemberNotFound => "membership: ID not found".to_owned(),
        Refusal::MemberNotLearner => "membership: can only promote a learner member".to_owned(),
        other => other.to_string(),
    }
}
