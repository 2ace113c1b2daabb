//! Service discovery: services write their address under a lease, gateways follow the list.
//!
//! A service registers `/my-service/web/<lease id in hex>` → its address and keeps the lease
//! alive. If it stops, it takes its key along; if it is killed, the key goes with the lease.
//! A gateway reads the prefix once and then follows it by watch from the next revision on, so
//! it misses nothing; a picker says where the next connection goes.
//!
//! ```no_run
//! # async fn f(client: quorate_client::Client) -> Result<(), quorate_client::Error> {
//! use quorate_client::discovery::{Picker, Resolver, RoundRobin, register};
//!
//! let registration = register(&client, "/my-service/web", "10.0.0.7:8080", 10).await?;
//! println!("registered as {:?}", registration.key());
//!
//! let resolver = Resolver::start(&client, "/my-service/web").await?;
//! let picker = RoundRobin::new(resolver.instances());
//! if let Some(picked) = picker.pick() {
//!     println!("connect to {}", picked.address());
//! }
//! registration.deregister().await?;
//! # Ok(()) }
//! ```

mod pick;
mod register;
mod resolve;

pub use pick::{LeastConnections, Picked, Picker, Random, RoundRobin};
pub use register::{Registration, register};
pub use resolve::{Instance, Instances, Resolver};

/// `service/`: what the keys of a service begin with, with or without a slash given.
fn prefix_of(service: &str) -> String {
    format!("{}/", service.trim_end_matches('/'))
}
