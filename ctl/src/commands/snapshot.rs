//! `snapshot save|status|restore`, and what else etcdutl has.

use super::snapshot_restore::RESTORE;
use super::snapshot_save::SAVE;
use super::{UTILITY_ROOT, group, not_there_yet};
use crate::cli::{Call, Command, Flag, Kind, find, help_text};
use crate::outcome::{Exit, code};
use crate::print::{Format, emit, snapshot_status};
use quorate_snapshot::{Error, File, Status};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Example command lines of `snapshot`.
pub const EXAMPLE: &str = "  # Save a snapshot to a file
  {program} snapshot save /backup/etcd-snapshot.db

  # Of another member, with certificates
  {program} --endpoints=https://127.0.0.1:2379 --cacert=/etc/etcd/ca.crt \
   --cert=/etc/etcd/etcd.crt --key=/etc/etcd/etcd.key snapshot save /backup/etcd-snapshot.db";

/// `snapshot` of etcdctl, and of etcdutl too.
pub static SNAPSHOT: Command = Command {
    usage: "snapshot <subcommand>",
    short: "Manages etcd node snapshots",
    example: EXAMPLE,
    group: group::CLUSTER,
    children: &[&SAVE, &STATUS, &RESTORE],
    ..Command::EMPTY
};

/// `snapshot` of etcdutl, which talks to no server.
pub static SNAPSHOT_FILES: Command = Command {
    usage: "snapshot <subcommand>",
    short: "Manages etcd node snapshots",
    children: &[&RESTORE, &STATUS],
    ..Command::EMPTY
};

static STATUS: Command = Command {
    usage: "status <filename>",
    short: "Gets backend snapshot status of a given file",
    long: "In the simple format, the line holds: hash, revision, total keys, total size, storage \
           version. Every page of the file is checked.",
    run: Some(|call| Box::pin(async move { status(&call) })),
    ..Command::EMPTY
};

/// Flags that all of etcdutl's commands take.
pub static UTILITY_FLAGS: [Flag; 2] = [
    Flag::of(
        Kind::Duration,
        "timeout",
        "10s",
        "time to wait to obtain a file lock on db file, 0 to block indefinitely",
    ),
    Flag::text(
        "write-out",
        "simple",
        "set the output format (fields, json, protobuf, simple, table)",
    )
    .letter('w'),
];

/// `defrag` of etcdutl.
pub static DEFRAG: Command = Command {
    usage: "defrag",
    short: "Defragments the storage of the etcd",
    flags: &[DATA_DIR],
    run: Some(|_| Box::pin(async { Err(not_there_yet("defrag of a data directory")) })),
    ..Command::EMPTY
};

/// `hashkv` of etcdutl.
pub static HASH_KV: Command = Command {
    usage: "hashkv <filename>",
    short: "Prints the KV history hash of a given file",
    flags: &[Flag::int(
        "rev",
        "maximum revision to hash (default: latest revision)",
    )],
    run: Some(|_| Box::pin(async { Err(not_there_yet("hashkv of a file")) })),
    ..Command::EMPTY
};

/// `migrate` of etcdutl.
pub static MIGRATE: Command = Command {
    usage: "migrate",
    short: "Migrates schema of etcd data dir files to make them compatible with different etcd \
            version",
    flags: &[
        DATA_DIR,
        Flag::off(
            "force",
            "Ignore migration failure and forcefully override storage version. Not recommended.",
        ),
        Flag::text(
            "target-version",
            "",
            "Target etcd version to migrate contents of data dir, as \"X.Y\". Minimal value 3.5.",
        ),
    ],
    run: Some(|_| Box::pin(async { Err(not_there_yet("migrate")) })),
    ..Command::EMPTY
};

const DATA_DIR: Flag = Flag::text("data-dir", "", "Path to the etcd data dir");

/// `help` of etcdutl.
pub static HELP: Command = Command {
    usage: "help [command]",
    short: "Help about any command",
    run: Some(|call| {
        Box::pin(async move {
            let found = find(call.path.program, &UTILITY_ROOT, &call.arguments);
            match found.error {
                None => emit(help_text(&found.path).as_bytes()),
                Some(error) => Err(Exit::error(error)),
            }
        })
    }),
    ..Command::EMPTY
};

fn status(call: &Call) -> Result<(), Exit> {
    let [name] = call.arguments.as_slice() else {
        let text = "snapshot status requires exactly one argument";
        return Err(Exit::bad_arguments(text));
    };
    let format = Format::parse(&call.flags.text("write-out"))
        .ok_or_else(|| Exit::new(code::BAD_FEATURE, "unsupported output format"))?;
    let path = Path::new(OsStr::from_bytes(name));
    if let Err(error) = std::fs::metadata(path) {
        return Err(Exit::error(io_text("stat", path, &error)));
    }
    let status = File::open(path).and_then(|file| Status::of(&file));
    let status = status.map_err(|error| Exit::error(text_of(&error)))?;
    emit(snapshot_status(&status, format)?.as_bytes())
}

/// What is said of a file that cannot be used.
pub fn text_of(error: &Error) -> String {
    match error {
        Error::Io { path, source } => io_text("open", Path::new(path), source),
        // As Go prints an array of bytes.
        Error::OtherDigest { expected, found } => {
            let list = |bytes: &[u8]| {
                let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
                format!("[{}]", numbers.join(" "))
            };
            format!("expected sha256 {}, got {}", list(expected), list(found))
        }
        other => other.to_string(),
    }
}

/// A failure of `operation` on a file, in Go's words.
pub fn io_text(operation: &str, path: &Path, error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    let text: String = first.into_iter().chain(characters).collect();
    format!("{operation} {}: {text}", path.display())
}
