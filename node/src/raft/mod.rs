//! Floor 4: agreeing. The only user of openraft.
//!
//! ```text
//! replica ── RaftHandle ── openraft ── LogStore (disk)
//!                │             ├────── Applier → Machine, View, Hub, callers
//!                └─ receive    └────── Network → Transport → peers
//! ```
//! Commands go in as encoded batches (one entry each); every member answers its own callers from
//! its own apply. Nothing here knows what a command means, and nothing proposes by itself.

pub mod applier;
pub mod bootstrap;
pub mod callers;
pub mod codec;
mod counting;
mod force;
pub mod handle;
pub mod identity;
pub mod import;
pub mod log_store;
pub mod membership;
pub mod network;
mod pipeline;
pub mod probe;
pub mod receive;
pub mod retention;
mod send_snapshot;
pub mod snapshot;
pub mod state;
pub mod stored;
pub mod transport;
pub mod types;
