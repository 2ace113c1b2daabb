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
