//! The harness of the end-to-end tests: real binaries, faults on processes and wires, and checkers.
//!
//! A test starts a [`cluster::Cluster`] of a [`binaries::Kind`], talks to it through the generated
//! clients of [`rpc`], breaks it, and judges what it saw. Every test first has to hold on the real
//! etcd (`QUORATE_E2E_SERVER=etcd`), so that it is the store that is judged and not the test.

pub mod authority;
pub mod binaries;
pub mod check;
pub mod check_watch;
pub mod cli;
pub mod cluster;
pub mod history;
pub mod kubelet;
pub mod kubernetes;
pub mod large;
pub mod members;
pub mod monitoring;
pub mod player;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod replay;
pub mod rpc;
pub mod s3;
pub mod script;
pub mod secure;
pub mod seed;
pub mod sidecar;
pub mod tools;
pub mod traffic;
pub mod verify;
pub mod wait;
pub mod watcher;
