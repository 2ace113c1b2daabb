//! The commands, a family a file, and the tree they hang on.

mod access;
mod administration;
mod child;
mod endpoint;
mod get;
mod globals;
mod holding;
mod kv;
mod lease;
mod lock;
mod member;
mod password;
mod setup;
mod snapshot;
mod snapshot_files;
mod snapshot_restore;
mod snapshot_save;
mod txn;
mod user;
mod utility;
mod watch;
mod watch_arguments;
mod watch_stream;

use crate::cli::Command;
use crate::go;
use crate::outcome::Exit;

/// Headings of the list of commands.
mod group {
    pub const KV: &str = "Key-value commands";
    pub const CLUSTER: &str = "Cluster maintenance commands";
    pub const CONCURRENCY: &str = "Concurrency commands";
    pub const ACCESS: &str = "Authentication commands";
    pub const UTILITY: &str = "Utility commands";
}

/// The program itself.
pub static ROOT: Command = Command {
    usage: "{program}",
    short: "A simple command line client for etcd3.",
    persistent: &globals::GLOBAL_FLAGS,
    // In this order etcdctl suggests commands; help sorts them.
    children: &[
        &get::GET,
        &kv::PUT,
        &kv::DEL,
        &txn::TXN,
        &kv::COMPACTION,
        &administration::ALARM,
        &administration::DEFRAG,
        &endpoint::ENDPOINT,
        &administration::MOVE_LEADER,
        &watch::WATCH,
        &utility::VERSION_COMMAND,
        &lease::LEASE,
        &member::MEMBER,
        &snapshot::SNAPSHOT,
        &utility::MAKE_MIRROR,
        &lock::LOCK,
        &lock::ELECT,
        &access::AUTH,
        &user::USER,
        &access::ROLE,
        &utility::CHECK,
        &utility::COMPLETION,
        &administration::DOWNGRADE,
        &utility::OPTIONS,
        &utility::HELP,
    ],
    ..Command::EMPTY
};

/// The program under the name `etcdutl`.
pub static UTILITY_ROOT: Command = Command {
    usage: "{program}",
    short: "An administrative command line tool for etcd3.",
    persistent: &snapshot::UTILITY_FLAGS,
    children: &[
        &snapshot_files::DEFRAG,
        &snapshot::SNAPSHOT_FILES,
        &utility::VERSION_COMMAND,
        &snapshot_files::HASH_KV,
        &snapshot_files::MIGRATE,
        &utility::COMPLETION,
        &snapshot::HELP,
    ],
    ..Command::EMPTY
};

/// Reads the ID of a lease.
fn lease_id(text: &[u8]) -> Result<i64, Exit> {
    go::parse_int(text, 16).map_err(|reason| {
        Exit::bad_arguments(format!("bad lease ID arg ({reason}), expecting ID in Hex"))
    })
}

/// The end of a command whose work comes with a later release.
fn not_there_yet(what: &str) -> Exit {
    Exit::error(format!("{what} is not supported yet"))
}
