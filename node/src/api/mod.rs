//! Floor 6: the doors. gRPC services and HTTP on one port; nothing here keeps state of its own.

pub mod auth;
pub mod body;
pub mod calls;
pub mod cluster;
mod contend;
pub mod cork;
pub mod door;
pub mod election;
pub mod gateway;
pub mod grpc_health;
pub mod header;
pub mod health;
pub mod http;
pub mod kv;
pub mod lease;
pub mod listen;
pub mod lock;
pub mod maintenance;
pub mod metadata;
pub mod methods;
pub mod parse;
pub mod peer;
pub mod range_stream;
pub mod scrub;
pub mod status;
pub mod turns;
pub mod watch;
