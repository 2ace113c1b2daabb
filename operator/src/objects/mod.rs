//! What is written to Kubernetes for a cluster: pure functions of its spec, without input or
//! output, so that each can be read and tested by itself.
//!
//! ```text
//! QuorateCluster ─► services, disruption_budget, network_policy     owned by the cluster
//! QuorateMember  ─► pod (flags, volumes, containers), claim         owned by the member
//!                   template_revision: what of a Pod a roll is for
//! ```
//! Callers apply what comes out server-side; nothing here asks the API server or the clock.

mod budget;
mod claim;
mod containers;
mod flags;
mod image;
mod labels;
mod names;
mod network;
mod pod;
mod quantity;
mod restore;
mod revision;
mod services;
#[cfg(test)]
pub mod testing;
mod volumes;

pub use budget::{disruption_budget, quorum};
pub use claim::claim;
pub use image::{image, version};
pub use labels::{cluster_meta, selector_text};
pub use names::{CLIENT_PORT, METRICS_PORT, Names, PEER_PORT, SIDECAR_METRICS_PORT, SIDECAR_PORT};
pub use network::network_policy;
pub use pod::pod;
pub use quantity::bytes;
pub use restore::restore_request;
pub use revision::template_revision;
pub use services::services;

/// The annotation with the version that a Pod was made for.
pub const VERSION_ANNOTATION: &str = "quorate.dev/version";
/// The common name of the operator's certificate, the only one that sidecars obey.
pub const OPERATOR_NAME: &str = "quorate-operator";

/// What the operator itself is like; the same for all clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The operator's version, which is that of members without `spec.version`.
    pub operator_version: String,
    /// The members' image without `spec.image.repository`: registry and name, no tag.
    pub member_image_repository: String,
    /// The domain of the Kubernetes cluster, `cluster.local` as a rule.
    pub cluster_domain: String,
    /// Where the operator runs: members let its Pods through.
    pub operator_namespace: String,
}

/// Another member, as a member that starts needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Where it answers clients.
    pub client_url: String,
}
