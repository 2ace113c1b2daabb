//! A client of etcd's v3 API, for Quorate and for etcd itself.
//!
//! Start at [`Client::connect`]. On it stand [`get`](Client::get), [`put`](Client::put),
//! [`delete`](Client::delete) and [`txn`](Client::txn), [`watch`](Client::watch),
//! [`grant_lease`](Client::grant_lease), [`Session`] with its [`Mutex`] and [`Election`], and
//! [`discovery`]. For everything else, [`Client::kv`] and its like are the generated clients of
//! etcd's services over the same connections.
//!
//! # What is promised
//! - A write that may have been done is never repeated; it is reported as [`Error::Ambiguous`].
//!   Reads are repeated at other members within the deadline (the table stands in `retry.rs`).
//! - Calls go round robin to the endpoints that answer. An endpoint that is dead, or that
//!   accepts connections and says nothing, gets none.
//! - A [`Watch`] loses nothing and says nothing twice, over lost connections and restarts.
//! - Every queue has a limit (`limits`), and every task ends with the handle it serves.
//!
//! ```no_run
//! # async fn f() -> Result<(), quorate_client::Error> {
//! use quorate_client::{Client, ClientConfig};
//! let endpoints = ["127.0.0.1:2379", "127.0.0.1:22379", "127.0.0.1:32379"];
//! let client = Client::connect(ClientConfig::new(endpoints)).await?;
//! client.put("foo", "bar").await?;
//! for kv in client.get("f").prefix().await?.kvs {
//!     println!("{:?} = {:?}", kv.key, kv.value);
//! }
//! # Ok(()) }
//! ```

mod body;
mod channel;
mod client;
mod config;
pub mod discovery;
mod election;
mod error;
mod keeper;
mod kv;
mod lease;
pub mod limits;
mod link;
mod mutex;
mod queue;
mod retry;
mod session;
mod txn;
mod watch;

pub use channel::Channel;
pub use client::Client;
pub use config::{ClientConfig, TlsConfig};
pub use election::{Election, Leadership, Observer};
pub use error::{Error, Refusal};
pub use kv::{Answer, Delete, Get, Put, delete, get, prefix_end, put};
pub use lease::{KeepAlive, Lease, Renewal};
pub use mutex::{Mutex, MutexGuard};
pub use session::Session;
pub use txn::{Compare, CompareNumber, CompareValue, Op, Txn, txn};
pub use watch::{Watch, WatchBuilder, WatchUpdate};

/// etcd's messages, as they go over the wire.
pub use quorate_proto as proto;
