//! Floor 1: the words. Plain data that every other floor speaks; it imports nothing of ours but
//! the generated messages that are listed in `kv.rs`.

pub mod conditions;
pub mod cost;
pub mod event;
pub mod key;
pub mod kv;
pub mod limits;
pub mod member;
pub mod position;
pub mod refusal;
pub mod spread;
pub mod tally;
pub mod url;

pub use conditions::Conditions;
pub use event::{Event, EventBatch, EventKind, LeaseChange};
pub use key::KeyRange;
pub use position::Position;
pub use refusal::Refusal;
