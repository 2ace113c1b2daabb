//! Waiting for a condition with a deadline; nothing in these tests sleeps and hopes.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Polls `condition` until it says `Some`, and fails with `what` when `deadline` has passed.
///
/// # Errors
/// When the deadline passes, or when the condition itself fails.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await? {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("waited {deadline:?} in vain for: {what}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same for loops in tasks that move between threads, where [`until`] cannot be used.
#[derive(Debug)]
pub struct Patience {
    what: String,
    deadline: Duration,
    start: Instant,
}

impl Patience {
    /// Begins to wait for `what`.
    pub fn new(what: &str, deadline: Duration) -> Self {
        Self {
            what: what.to_owned(),
            deadline,
            start: Instant::now(),
        }
    }

    /// Waits a little before the next look.
    ///
    /// # Errors
    /// When the deadline has passed.
    pub async fn pause(&self) -> Result<()> {
        if self.start.elapsed() > self.deadline {
            bail!("waited {:?} in vain for: {}", self.deadline, self.what);
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}
