//! Builds etcd's API and our internal messages from the `.proto` files, with no `protoc`.

use prost::Message;

type Error = Box<dyn std::error::Error>;

const ETCD_FILES: [&str; 5] = [
    "etcd/kv.proto",
    "etcd/auth.proto",
    "etcd/rpc.proto",
    "etcd/v3lock.proto",
    "etcd/v3election.proto",
];
const INTERNAL_FILES: [&str; 2] = ["internal/entry.proto", "internal/peer.proto"];

fn main() -> Result<(), Error> {
    println!("cargo:rerun-if-changed=etcd");
    println!("cargo:rerun-if-changed=internal");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);

    // The set that gRPC reflection shows: etcd's API alone.
    let etcd = protox::compile(ETCD_FILES, ["etcd"])?;
    std::fs::write(out.join("etcd.bin"), etcd.encode_to_vec())?;

    let all = protox::compile(
        ETCD_FILES.iter().chain(INTERNAL_FILES.iter()),
        ["etcd", "internal"],
    )?;
    tonic_prost_build::configure().bytes(".").compile_fds(all)?;

    pbjson_build::Builder::new()
        .register_descriptors(&etcd.encode_to_vec())?
        .preserve_proto_field_names()
        .ignore_unknown_fields()
        .build(&[
            ".etcdserverpb",
            ".mvccpb",
            ".authpb",
            ".v3lockpb",
            ".v3electionpb",
        ])?;
    ready_made_services();
    Ok(())
}

/// KV and Watch once more, for the node: their answers are bytes that are already encoded.
fn ready_made_services() {
    use tonic_build::manual::{Builder, Method, Service};
    let method = |name: &str, route: &str, input: &str, raw: bool, output: &str| {
        let output = if raw { "crate::codec::Ready" } else { output };
        let codec = if raw {
            "crate::codec::ReadyCodec"
        } else {
            "tonic_prost::ProstCodec"
        };
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(input)
            .output_type(output)
            .codec_path(codec)
    };
    let pb = |name: &str| format!("crate::etcdserverpb::{name}");
    let kv = Service::builder()
        .name("KV")
        .package("etcdserverpb")
        .method(method("range", "Range", &pb("RangeRequest"), true, "").build())
        .method(
            method("range_stream", "RangeStream", &pb("RangeRequest"), true, "")
                .server_streaming()
                .build(),
        )
        .method(method("put", "Put", &pb("PutRequest"), false, &pb("PutResponse")).build())
        .method(
            method(
                "delete_range",
                "DeleteRange",
                &pb("DeleteRangeRequest"),
                false,
                &pb("DeleteRangeResponse"),
            )
            .build(),
        )
        .method(method("txn", "Txn", &pb("TxnRequest"), false, &pb("TxnResponse")).build())
        .method(
            method(
                "compact",
                "Compact",
                &pb("CompactionRequest"),
                false,
                &pb("CompactionResponse"),
            )
            .build(),
        )
        .build();
    let watch = Service::builder()
        .name("Watch")
        .package("etcdserverpb")
        .method(
            method("watch", "Watch", &pb("WatchRequest"), true, "")
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .build();
    Builder::new().build_client(false).compile(&[kv, watch]);
}
