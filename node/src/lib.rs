//! `quorate`, the node: a replicated store that speaks etcd's v3 API.
//!
//! ```text
//! server config telemetry   wiring, flags, logs
//! api                       doors: gRPC and HTTP
//! replica tasks             one member as its doors and duties see it
//! watch  raft               telling, agreeing
//! machine                   the law: synchronous and deterministic
//! storage                   disk: the log and the state
//! model                     words
//! ```
//! Each floor imports only from floors below it; the tidy test holds that.

pub mod api;
pub mod config;
pub mod machine;
pub mod model;
pub mod raft;
pub mod replica;
pub mod server;
pub mod storage;
pub mod tasks;
pub mod telemetry;
pub mod watch;
