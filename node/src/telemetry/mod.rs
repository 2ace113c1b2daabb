//! Logs and metrics: set up once by `main` and `server`, used by every floor through `tracing` and
//! through small structs of metrics that are handed down.

mod encode;
pub mod exposition;
pub mod log;
pub mod node;
pub mod process;
pub mod tally;
