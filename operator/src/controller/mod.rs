//! The loop: which object is looked at when, by whom, and what is told of it.

mod backup;
mod backup_steps;
mod children;
mod cluster;
mod context;
mod http;
mod lease;
mod metrics;
mod reach;
mod roles;
mod run;
mod schedule;
mod secrets;
mod tell;

pub use context::Context;
pub use metrics::{ClusterFigures, Metrics};
pub use run::run;
