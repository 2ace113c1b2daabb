//! `QuorateCluster` and friends on Kubernetes.
//!
//! ```text
//! controller ─► observe ─► plan ─► act      one action a pass
//!                 │          │       └ objects, pki: what is written, as pure functions
//!                 └─ model ──┘
//! api: the kinds        status: what users read
//! manifests, monitoring: what is generated for kubectl, helm, Prometheus and Grafana
//! ```

pub mod act;
pub mod api;
pub mod config;
pub mod controller;
pub mod manifests;
pub mod members;
pub mod model;
pub mod monitoring;
pub mod objects;
pub mod observe;
pub mod pki;
pub mod plan;
pub mod schedule;
pub mod status;
