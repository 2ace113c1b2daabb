//! What the operator asks of members (etcd's API) and of their sidecars (HTTPS), and the
//! certificates it shows them.

mod credentials;
mod door;
mod sidecar;

pub use credentials::{Credentials, Identity};
pub use door::{CALL_TIMEOUT, Door, Reach, host_label};
pub use sidecar::{Sidecar, SidecarError};

/// The port of etcd's API.
pub const CLIENT_PORT: u16 = 2379;
/// The port between members.
pub const PEER_PORT: u16 = 2380;
