//! Which checks for corruption run, and when.

use std::time::Duration;

use super::gates::Gates;
use super::source::{Error, Values};

/// Comparisons of the members' keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Before this member serves anybody; the gate `InitialCorruptCheck`.
    pub initial: bool,
    /// How often the newest state is compared; `--corrupt-check-time`, none when zero.
    pub newest: Option<Duration>,
    /// How often compacted states are compared; the gate `CompactHashCheck` with
    /// `--compact-hash-check-time`.
    pub compacted: Option<Duration>,
}

impl Checks {
    pub(super) fn from_values(values: &Values, gates: &Gates) -> Result<Self, Error> {
        let newest = values.duration("corrupt-check-time");
        let compacted = values.duration("compact-hash-check-time");
        // etcd: server/embed/config.go, Validate.
        if compacted.is_zero() {
            return Err(Error::Invalid(
                "--compact-hash-check-time must be >0 (set to 0s)".to_owned(),
            ));
        }
        Ok(Self {
            initial: gates.is_on("InitialCorruptCheck"),
            newest: (!newest.is_zero()).then_some(newest),
            compacted: gates.is_on("CompactHashCheck").then_some(compacted),
        })
    }
}
