//! `snapshot restore`: a snapshot made into the data directory of a member of a new cluster.
//!
//! etcd: etcdutl/etcdutl/snapshot_command.go, etcdutl/snapshot/v3_snapshot.go.

use super::snapshot::text_of;
use crate::cli::{Call, Command, Flag, Kind};
use crate::log::write_console;
use crate::outcome::Exit;
use quorate_snapshot::{DirectoryOptions, Error, InitialCluster, restore_directory};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// `snapshot restore`.
pub static RESTORE: Command = Command {
    usage: "restore <filename> --data-dir {output dir} [options]",
    short: "Restores an etcd member snapshot to an etcd directory",
    flags: &[
        Flag::text("data-dir", "", "Path to the output data directory"),
        Flag::text(
            "wal-dir",
            "",
            "Refused when given: a member of quorate keeps its log in its data directory",
        ),
        Flag::text(
            "initial-cluster",
            "default=http://localhost:2380",
            "Initial cluster configuration for restore bootstrap",
        ),
        Flag::text(
            "initial-cluster-token",
            "etcd-cluster",
            "Initial cluster token for the etcd cluster during restore bootstrap",
        ),
        Flag::text(
            "initial-advertise-peer-urls",
            "http://localhost:2380",
            "List of this member's peer URLs to advertise to the rest of the cluster",
        ),
        Flag::text("name", "default", "Human-readable name for this member"),
        Flag::off(
            "skip-hash-check",
            "Ignore snapshot integrity hash value (required if copied from data directory)",
        ),
        Flag::of(
            Kind::Uint,
            "initial-memory-map-size",
            "10737418240",
            "Nothing to do here: no file is mapped into memory",
        ),
        Flag::of(
            Kind::Uint,
            "bump-revision",
            "0",
            "How much to increase the latest revision after restore",
        ),
        Flag::off(
            "mark-compacted",
            "Mark the latest revision after restore as the point of scheduled compaction \
             (required if --bump-revision > 0, disallowed otherwise)",
        ),
    ],
    run: Some(|call| Box::pin(async move { run(&call) })),
    ..Command::EMPTY
};

fn run(call: &Call) -> Result<(), Exit> {
    let flags = &call.flags;
    let [name] = call.arguments.as_slice() else {
        let text = "snapshot restore requires exactly one argument";
        return Err(Exit::bad_arguments(text));
    };
    let source = Path::new(OsStr::from_bytes(name));
    let bump_revision = flags.uint("bump-revision");
    if (bump_revision > 0) != flags.bool("mark-compacted") {
        let text = "--mark-compacted required if --revision-bump > 0";
        return Err(Exit::bad_arguments(text));
    }
    if !flags.bytes("wal-dir").is_empty() {
        let text = "--wal-dir is not supported: a member of quorate keeps its log in --data-dir";
        return Err(Exit::error(text));
    }
    let name = flags.text("name");
    let token = flags.text("initial-cluster-token");
    let peer_urls = flags.text("initial-advertise-peer-urls");
    let failed = |error: Error| Exit::error(text_of(&error));
    let cluster = InitialCluster::parse(&flags.text("initial-cluster"), &token).map_err(failed)?;
    cluster.check(&name, &peer_urls).map_err(failed)?;
    let data_dir = match flags.bytes("data-dir") {
        [] => PathBuf::from(format!("{name}.etcd")),
        path => PathBuf::from(OsStr::from_bytes(path)),
    };
    let (path, folder) = (source.display().to_string(), data_dir.display().to_string());
    let fields = [("path", path.as_str()), ("data-dir", folder.as_str())];
    write_console("restoring snapshot", &fields);
    let options = DirectoryOptions {
        cluster: &cluster,
        name: &name,
        bump_revision,
        skip_hash_check: flags.bool("skip-hash-check"),
    };
    restore_directory(source, &data_dir, &options).map_err(failed)?;
    write_console("restored snapshot", &fields);
    Ok(())
}
