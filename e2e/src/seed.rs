//! The seed of a random test: printed, and given back through `QUORATE_SEED` to play it again.

use anyhow::{Context, Result};
use std::io::Write;

/// The seed to use, which is also printed.
///
/// # Errors
/// When `QUORATE_SEED` is no number.
pub fn from_environment(test: &str) -> Result<u64> {
    let seed = match std::env::var("QUORATE_SEED") {
        Ok(seed) => seed.parse().context("QUORATE_SEED is a number")?,
        Err(_) => rand::random(),
    };
    writeln!(std::io::stderr(), "{test}: QUORATE_SEED={seed}")?;
    Ok(seed)
}
