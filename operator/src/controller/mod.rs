//! The loop: which object is looked at when, by whom, and what is told of it.

mod context;
mod http;
mod lease;
mod metrics;
mod reach;
mod roles;

pub use context::Context;
pub use metrics::{ClusterFigures, Metrics};
