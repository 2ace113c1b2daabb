//! etcd's public API and Quorate's internal messages, generated from `etcd/` and `internal/`.
//!
//! Byte fields are [`bytes::Bytes`], so keys and values pass through without a copy. The JSON
//! mapping of etcd's messages (field names as in the `.proto` files, 64-bit numbers as strings,
//! bytes as base64) comes with serde's traits.

pub mod codec;

/// The metadata of an answer to `Maintenance.Snapshot` that names the revision of the snapshot, in
/// decimal. etcd sends none.
pub const SNAPSHOT_REVISION: &str = "quorate-revision";
/// Beside it: up to which revision history was compacted, -1 for none.
pub const SNAPSHOT_COMPACT_REVISION: &str = "quorate-compact-revision";

pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.serde.rs"));
    /// The file descriptors of etcd's API, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/etcd.bin"));
}

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
    include!(concat!(env!("OUT_DIR"), "/mvccpb.serde.rs"));
}

pub mod authpb {
    tonic::include_proto!("authpb");
    include!(concat!(env!("OUT_DIR"), "/authpb.serde.rs"));
}

pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.serde.rs"));
}

pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.serde.rs"));
}

/// Quorate's own messages: never seen by a client.
pub mod quorate {
    pub mod entry {
        tonic::include_proto!("quorate.entry");
    }
    pub mod peer {
        tonic::include_proto!("quorate.peer");
    }
}

/// Server traits of KV and Watch whose answers are [`codec::Ready`]: the node's own doors.
pub mod ready {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.KV.rs"));
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.Watch.rs"));
}
