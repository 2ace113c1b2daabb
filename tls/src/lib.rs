//! TLS for the node's listeners, its calls to peers and the client: the only user of rustls.
//!
//! ```text
//! Options ── files, suites ──► Identity ──► Guard    a listener's handshakes
//!  what is asked for            reloads     dial     connections to others
//! ```
//! An [`Identity`] is one side's certificates and trust, read again when a file changes. It never
//! logs what is in a file.
//!
//! etcd: client/pkg/transport, client/pkg/tlsutil.

mod auto;
mod dial;
mod files;
mod guard;
mod identity;
mod inspect;
mod leaf;
mod options;
mod revocation;
mod san;
mod stream;
mod suites;
mod verify;
mod words;

pub use auto::{AutoOptions, self_signed};
pub use dial::Dialer;
pub use guard::{Guard, GuardOptions, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, Welcomed};
pub use identity::Identity;
pub use inspect::{certificates, inspect};
pub use leaf::Leaf;
pub use options::{Allowed, Error, Options, Version};
pub use stream::{Socket, Stream};
pub use suites::check_suites;

/// Makes ring the process's crypto library for libraries that ask rustls for one (HTTP clients of
/// object stores and of the Kubernetes API). To be called once, first thing in `main`; a second
/// call changes nothing.
pub fn use_ring() {
    // It says no when one is chosen already, which is then this one.
    drop(rustls::crypto::ring::default_provider().install_default());
}
