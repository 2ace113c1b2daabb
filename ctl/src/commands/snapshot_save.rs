//! `snapshot save`.
//!
//! etcd: client/v3/snapshot/v3_snapshot.go, etcdctl/ctlv3/command/snapshot_command.go.

use super::setup::Setup;
use super::snapshot::{EXAMPLE, io_text};
use crate::cli::{Call, Command};
use crate::go::{format_bytes, format_duration};
use crate::log::{Field, Level, write_log};
use crate::outcome::{Exit, code};
use crate::print::emit_line;
use crate::rpc::RpcError;
use quorate_proto::etcdserverpb as pb;
use sha2::{Digest as _, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tokio::time::{Instant, timeout_at};

const FILE_MODE: u32 = 0o600;
const DIGEST_BYTES: usize = 32;
/// A file is a multiple of this, and the hash behind it.
const SECTOR_BYTES: u64 = 512;

/// `snapshot save`.
pub static SAVE: Command = Command {
    usage: "save <filename>",
    short: "Stores an etcd node backend snapshot to a given file",
    example: EXAMPLE,
    run: Some(|call| Box::pin(run(call))),
    ..Command::EMPTY
};

async fn run(mut call: Call) -> Result<(), Exit> {
    let [name] = call.arguments.as_slice() else {
        let text = "snapshot save expects one argument <filename>";
        return Err(Exit::bad_arguments(text));
    };
    let path = PathBuf::from(OsStr::from_bytes(name));
    let setup = Setup::new(&mut call)?;
    let endpoints = &setup.config.endpoints;
    let [endpoint] = endpoints.as_slice() else {
        let list = endpoints.join(" ");
        let text =
            format!("snapshot must be requested to one selected node, not multiple [{list}]");
        return Err(failed(text));
    };
    // Without --command-timeout, a snapshot takes as long as it takes.
    let is_limited = call.flags.changed("command-timeout");
    let deadline = setup.deadline().filter(|_| is_limited);
    let version = tokio::select! {
        version = save(&setup, endpoint, &path, deadline) => version?,
        interrupt = tokio::signal::ctrl_c() => {
            interrupt?;
            return Err(failed("interrupted"));
        }
    };
    emit_line(&format!("Snapshot saved at {}", path.display()))?;
    if !version.is_empty() {
        emit_line(&format!("Server version {version}"))?;
    }
    Ok(())
}

fn failed(text: impl std::fmt::Display) -> Exit {
    Exit::new(code::INTERRUPTED, text)
}

fn info(message: &str, fields: &[(&str, Field<'_>)]) {
    write_log(Level::Info, None, message, fields);
}

/// The file while it is not complete; it goes when something fails.
struct Part {
    path: PathBuf,
    file: fs::File,
    hash: Sha256,
    /// The last bytes that came, which are the hash in the end.
    tail: Vec<u8>,
    size: u64,
    is_complete: bool,
}

impl Part {
    fn create(path: &Path) -> Result<Self, Exit> {
        let mut name: OsString = path.into();
        name.push(".part");
        let path = PathBuf::from(name);
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&path);
        let file = file.map_err(|error| {
            let text = io_text("open", &path, &error);
            failed(format!("could not open {} ({text})", path.display()))
        })?;
        Ok(Self {
            path,
            file,
            hash: Sha256::new(),
            tail: Vec::new(),
            size: 0,
            is_complete: false,
        })
    }

    fn write(&mut self, blob: &[u8]) -> Result<(), Exit> {
        self.file.write_all(blob).map_err(|error| {
            let text = io_text("write", &self.path, &error);
            failed(format!("could not write snapshot: {text}"))
        })?;
        self.size += blob.len() as u64;
        self.tail.extend_from_slice(blob);
        let hashed = self.tail.len().saturating_sub(DIGEST_BYTES);
        self.hash.update(&self.tail[..hashed]);
        self.tail.drain(..hashed);
        Ok(())
    }

    /// Checks that all came, syncs the file and gives it its name.
    fn complete(mut self, path: &Path) -> Result<(), Exit> {
        if self.size % SECTOR_BYTES != DIGEST_BYTES as u64 {
            let text = format!("sha256 checksum not found [bytes: {}]", self.size);
            return Err(failed(text));
        }
        // etcdctl leaves this to the restore, when it is too late.
        if self.hash.finalize_reset().as_slice() != self.tail {
            return Err(failed(
                "the snapshot was damaged on its way: its sha256 is another",
            ));
        }
        self.file.sync_all().map_err(|error| {
            let text = io_text("sync", &self.path, &error);
            failed(format!("could not fsync snapshot: {text}"))
        })?;
        fs::rename(&self.path, path).map_err(|error| {
            let (from, to) = (self.path.display(), path.display());
            let text = io_text("rename", path, &error);
            failed(format!("could not rename {from} to {to} ({text})"))
        })?;
        self.is_complete = true;
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // The name must be as durable as the content.
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed(io_text("sync", folder, &error)))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_complete {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            let text = io_text("remove", &self.path, &error);
            let message = "Failed to cleanup .part file";
            write_log(Level::Warn, None, message, &[("error", Field::Text(&text))]);
        }
    }
}

async fn save(
    setup: &Setup,
    endpoint: &str,
    path: &Path,
    deadline: Option<Instant>,
) -> Result<String, Exit> {
    let mut part = Part::create(path)?;
    let shown = part.path.display().to_string();
    info(
        "created temporary db file",
        &[("path", Field::Text(&shown))],
    );
    let started = Instant::now();
    let fetch = fetch(setup, endpoint, &mut part);
    let version = match deadline {
        None => fetch.await?,
        Some(deadline) => timeout_at(deadline, fetch)
            .await
            .unwrap_or_else(|_| Err(failed(RpcError::deadline_exceeded())))?,
    };
    let size = format_bytes(part.size);
    part.complete(path)?;
    let took = format_duration(started.elapsed());
    let fields = [
        ("endpoint", Field::Text(endpoint)),
        ("size", Field::Text(&size)),
        ("took", Field::Text(&took)),
        ("etcd-version", Field::Text(&version)),
    ];
    info("fetched snapshot", &fields);
    let shown = path.display().to_string();
    info("saved", &[("path", Field::Text(&shown))]);
    Ok(version)
}

/// Writes all that the member sends to `part`; the storage version of the snapshot.
async fn fetch(setup: &Setup, endpoint: &str, part: &mut Part) -> Result<String, Exit> {
    let rpc = setup.connect_to(endpoint, "client").await?;
    let refused = |status| failed(RpcError::from_status(&status));
    let request = rpc.request(pb::SnapshotRequest {});
    let answer = rpc.client().maintenance().snapshot(request).await;
    let mut stream = answer.map_err(refused)?.into_inner();
    info("fetching snapshot", &[("endpoint", Field::Text(endpoint))]);
    let mut version = String::new();
    while let Some(message) = stream.message().await.map_err(|status| {
        let error = RpcError::from_status(&status);
        failed(format!("could not write snapshot: {error}"))
    })? {
        part.write(&message.blob)?;
        version = message.version;
    }
    Ok(version)
}
