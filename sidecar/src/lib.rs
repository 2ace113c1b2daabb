//! Beside each member: the gate before its start, leader hand-off before its stop, backup,
//! restore, probes.
//!
//! [`wire`] is what the operator and the sidecar tell each other; the operator uses nothing else
//! of this crate.

pub mod wire;
