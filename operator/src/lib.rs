//! `QuorateCluster` and friends on Kubernetes.
//!
//! ```text
//! controller ─► observe ─► plan ─► act      one action a pass
//!                 │          │       └ objects, pki: what is written, as pure functions
//!                 └─ model ──┘
//! api: the kinds        status: what users read
//! ```

pub mod api;
pub mod members;
pub mod model;
pub mod objects;
pub mod plan;
