//! `snapshot save|status|restore`, and what etcdutl has of its own but work on files.

use super::snapshot_restore::RESTORE;
use super::snapshot_save::SAVE;
use super::{UTILITY_ROOT, group};
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
    let path = Path::new(OsStr::from_bytes(name));
    check_there(path).map_err(Exit::error)?;
    let format = format_of(call)?;
    let status = File::open(path).and_then(|file| Status::of(&file));
    let status = status.map_err(|error| Exit::error(text_of(&error)))?;
    emit(snapshot_status(&status, format)?.as_bytes())
}

/// The output format that was asked for.
pub fn format_of(call: &Call) -> Result<Format, Exit> {
    Format::parse(&call.flags.text("write-out"))
        .ok_or_else(|| Exit::new(code::BAD_FEATURE, "unsupported output format"))
}

/// Looks whether there is such a file, in etcdutl's words when there is none.
pub fn check_there(path: &Path) -> Result<(), String> {
    let there = std::fs::metadata(path);
    there
        .map(drop)
        .map_err(|error| io_text("stat", path, &error))
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
