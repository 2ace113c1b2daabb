//! A histogram whose buckets double, counted without a lock: two additions to atomics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts durations in buckets whose upper bounds double, as most of etcd's histograms have them.
#[derive(Debug)]
pub struct Spread {
    first: Duration,
    /// One for each bound, and the last for what lies above all of them.
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Spread {
    /// Buckets up to `first`, twice that, and so on: `buckets` of them, and one above.
    pub fn new(first: Duration, buckets: usize) -> Self {
        Self {
            first,
            counts: (0..=buckets).map(|_| AtomicU64::new(0)).collect(),
            sum_nanos: AtomicU64::new(0),
        }
    }

    pub fn observe(&self, took: Duration) {
        let firsts = took.as_nanos().div_ceil(self.first.as_nanos().max(1));
        // The least n with 2^n at or above.
        let bucket = (u128::BITS - firsts.saturating_sub(1).leading_zeros()) as usize;
        let bucket = bucket.min(self.counts.len() - 1);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The sum in seconds, and each bound in seconds with the count of its own bucket alone.
    pub fn read(&self) -> (f64, Vec<(f64, u64)>) {
        let last = self.counts.len() - 1;
        let buckets = self.counts.iter().enumerate().map(|(index, count)| {
            let bound = if index == last {
                f64::INFINITY
            } else {
                self.first.as_secs_f64() * (1_u64 << index) as f64
            };
            (bound, count.load(Ordering::Relaxed))
        });
        let sum = self.sum_nanos.load(Ordering::Relaxed) as f64 / 1e9;
        (sum, buckets.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_falls_under_the_least_bound_that_holds_it() {
        let spread = Spread::new(Duration::from_millis(1), 3);
        for micros in [0, 1, 1_000, 1_001, 2_000, 3_999, 4_000, 4_001, 10_000_000] {
            spread.observe(Duration::from_micros(micros));
        }
        let (sum, buckets) = spread.read();
        assert_eq!(
            buckets,
            [(0.001, 3), (0.002, 2), (0.004, 2), (f64::INFINITY, 2)]
        );
        assert!((sum - 10.016_002).abs() < 1e-9, "{sum}");
    }
}
