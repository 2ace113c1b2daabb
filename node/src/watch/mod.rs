//! Floor 4: telling. The hub matches each committed revision once against the watched ranges and
//! hands the shared, encoded events to the streams. It never waits for a stream: a slow stream
//! loses its place in the queue and catches up from history.
//!
//! ```text
//! applier ──publish──▶ Hub ──matched revisions──▶ Queue ──▶ WatchStream ──▶ Delivery
//!                       ranges of streams          bounded    ranges of watchers
//! ```

mod catchup;
mod hub;
mod past;
mod queue;
mod ranges;
mod shared;
mod stream;
mod table;
#[cfg(test)]
mod tests;

pub use hub::{Hub, WatchCounts};
pub use shared::SharedEvent;
pub use stream::{Created, Failed, WatchStream};
pub use table::{Body, CreateError, Delivery, WatchSpec};
