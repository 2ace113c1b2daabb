//! etcdutl's `defrag`, `hashkv` and `migrate`: work on the file of an etcd that does not run.
//!
//! etcd: etcdutl/etcdutl/defrag_command.go, hashkv_command.go, migrate_command.go.

use super::snapshot::{check_there, format_of, io_text, text_of};
use crate::cli::{Call, Command, Flag};
use crate::log::write_console;
use crate::outcome::Exit;
use crate::print::{emit, snapshot_hash};
use quorate_snapshot::{
    Error, File, HashKv, StorageVersion, Version, Wal, rewrite, storage_version,
};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FILE_MODE: u32 = 0o600;
const WRITE_BYTES: usize = 256 * 1024;
/// As often as bbolt tries to lock a file.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// What etcd removes at its next start, should we end in the midst.
const PART_NAME: &str = "db.tmp.quoratectl";
/// What a member of quorate has in its data directory.
const CURRENT_NAME: &str = "CURRENT";
/// The oldest version that etcdutl migrates to.
const TARGET_MIN: Version = (3, 5);
/// The newest version of storage there is.
const TARGET_MAX: Version = (3, 7);

/// `defrag`.
pub static DEFRAG: Command = Command {
    usage: "defrag",
    short: "Defragments the storage of the etcd",
    flags: &[Flag::text(
        "data-dir",
        "",
        "Required. Defragments a data directory not in use by etcd.",
    )],
    required: &["data-dir"],
    run: Some(|call| Box::pin(async move { defrag(&call) })),
    ..Command::EMPTY
};

/// `hashkv`.
pub static HASH_KV: Command = Command {
    usage: "hashkv <filename>",
    short: "Prints the KV history hash of a given file",
    flags: &[Flag::int(
        "rev",
        "maximum revision to hash (default: latest revision)",
    )],
    takes_one: true,
    run: Some(|call| Box::pin(async move { hash_kv(&call) })),
    ..Command::EMPTY
};

/// `migrate`.
pub static MIGRATE: Command = Command {
    usage: "migrate",
    short: "Migrates schema of etcd data dir files to make them compatible with different etcd \
            version",
    flags: &[
        Flag::text("data-dir", "", "Path to the etcd data dir"),
        Flag::off(
            "force",
            "Ignore migration failure and forcefully override storage version. Not recommended.",
        ),
        Flag::text(
            "target-version",
            "",
            "Target etcd version to migrate contents of data dir. Minimal value 3.5. Format \
             \"X.Y\" for example 3.6.",
        ),
    ],
    required: &["data-dir", "target-version"],
    run: Some(|call| Box::pin(async move { migrate(&call) })),
    ..Command::EMPTY
};

fn hash_kv(call: &Call) -> Result<(), Exit> {
    let format = format_of(call)?;
    let path = call.arguments.first().map(Vec::as_slice);
    let path = Path::new(OsStr::from_bytes(path.unwrap_or_default()));
    check_there(path).map_err(Exit::error)?;
    let found = lock(call, path, fs::File::try_lock_shared)
        .and_then(|_lock| HashKv::of(&File::open(path)?, call.flags.int("rev")))
        .map_err(|error| Exit::error(text_of(&error)))?;
    emit(snapshot_hash(&found, format)?.as_bytes())
}

fn defrag(call: &Call) -> Result<(), Exit> {
    let data_dir = call.flags.text("data-dir");
    let failed = |text: String| {
        Exit::error(format!(
            "Failed to defragment etcd data[{data_dir}] ({text})"
        ))
    };
    let path = database(call).map_err(failed)?;
    let shown = path.display().to_string();
    let (before, after) = lock(call, &path, fs::File::try_lock)
        .and_then(|_lock| {
            let source = File::open(&path)?;
            let before = source.used_bytes();
            write_console("defragmenting", &[("path", &shown)]);
            Ok((before, replace(&source, StorageVersion::Keep)?))
        })
        .map_err(|error| failed(text_of(&error)))?;
    let fields = [
        ("path", shown.as_str()),
        ("bytes-before", &before.to_string()),
        ("bytes-after", &after.to_string()),
    ];
    write_console("finished defragmenting directory", &fields);
    Ok(())
}

fn migrate(call: &Call) -> Result<(), Exit> {
    let target = parse_target(&call.flags.text("target-version")).map_err(Exit::bad_arguments)?;
    let path = database(call).map_err(Exit::error)?;
    let failed = |error: Error| Exit::error(text_of(&error));
    let _lock = lock(call, &path, fs::File::try_lock).map_err(failed)?;
    let source = File::open(&path).map_err(failed)?;
    let current = storage_version(&source).map_err(failed)?;
    let current = current.ok_or_else(|| Exit::error("missing term information"))?;
    if current == target {
        let version = format!("{}.{}", current.0, current.1);
        write_console(
            "storage version up-to-date",
            &[("storage-version", &version)],
        );
        return Ok(());
    }
    let wal = Path::new(OsStr::from_bytes(call.flags.bytes("data-dir"))).join("member/wal");
    let wal = Wal::read(&wal)
        .map_err(|error| Exit::error(format!("failed to open wal: {}", text_of(&error))))?;
    if let Err(text) = check_steps(current, target, wal.minimal_version()) {
        if !call.flags.bool("force") {
            return Err(Exit::error(text));
        }
        write_console(
            "normal migrate failed, trying with force",
            &[("error", &text)],
        );
    }
    replace(&source, StorageVersion::Set(target)).map_err(failed)?;
    let version = dotted(target);
    write_console(
        "updated storage version",
        &[("new-storage-version", &version)],
    );
    Ok(())
}

/// Reads `X.Y`.
fn parse_target(text: &str) -> Result<Version, String> {
    if text.matches('.').count() != 1 {
        let text = crate::go::quote(text.as_bytes());
        return Err(format!(
            "wrong target version format, expected \"X.Y\", got {text}"
        ));
    }
    let mut numbers = [0; 2];
    for (number, part) in numbers.iter_mut().zip(text.split('.')) {
        let parsed = crate::go::parse_int(part.as_bytes(), 10);
        let parsed = parsed.and_then(|it| u64::try_from(it).map_err(|_| "negative".to_owned()));
        *number = parsed.map_err(|reason| format!("failed to parse target version: {reason}"))?;
    }
    let target = (numbers[0], numbers[1]);
    if target < TARGET_MIN {
        let (major, minor) = target;
        return Err(format!(
            "target version \"{major}.{minor}\" not supported. Minimal \"3.5\""
        ));
    }
    Ok(target)
}

/// Whether there is a way from one version to the other.
fn check_steps(current: Version, target: Version, wal: Option<Version>) -> Result<(), String> {
    let plan = |what: String| format!("cannot create migration plan: {what}");
    if current.0 != target.0 {
        return Err(plan(
            "changing major storage version is not supported".into(),
        ));
    }
    // The first step that is not known.
    let known = TARGET_MIN.1 + 1..=TARGET_MAX.1;
    let unknown = if current < target {
        (current.1 + 1..=target.1).find(|minor| !known.contains(minor))
    } else {
        (target.1 + 1..=current.1)
            .rev()
            .find(|minor| !known.contains(minor))
    };
    if let Some(minor) = unknown {
        let version = dotted((target.0, minor));
        return Err(plan(format!("version \"{version}\" is not supported")));
    }
    match wal.filter(|wal| target < current && target < *wal) {
        None => Ok(()),
        Some(wal) => Err(format!(
            "cannot downgrade storage, WAL contains newer entries, as the target version ({}) is \
             lower than the version ({}) detected from WAL logs",
            dotted(target),
            dotted(wal)
        )),
    }
}

fn dotted((major, minor): Version) -> String {
    format!("{major}.{minor}.0")
}

/// The file in `--data-dir`, which must be there.
fn database(call: &Call) -> Result<PathBuf, String> {
    let data_dir = Path::new(OsStr::from_bytes(call.flags.bytes("data-dir")));
    let path = data_dir.join("member").join("snap").join("db");
    let there = check_there(&path);
    if there.is_err() && data_dir.join(CURRENT_NAME).exists() {
        return Err(format!(
            "{} belongs to a member of quorate, which needs neither: deleted space comes back by \
             itself, and another version gets the data by a snapshot",
            data_dir.display()
        ));
    }
    there.map(|()| path)
}

/// Locks a database as bbolt does, so that no etcd runs on it meanwhile; waits for `--timeout`, or
/// for ever if that is 0.
fn lock(
    call: &Call,
    path: &Path,
    try_lock: fn(&fs::File) -> Result<(), fs::TryLockError>,
) -> Result<fs::File, Error> {
    let timeout = call.flags.duration("timeout");
    let end = Instant::now() + timeout;
    let io = |source| Error::Io {
        path: path.display().to_string(),
        source,
    };
    let file = fs::File::open(path).map_err(io)?;
    loop {
        match try_lock(&file) {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::Error(error)) => return Err(io(error)),
            Err(fs::TryLockError::WouldBlock) => {}
        }
        if !timeout.is_zero() && Instant::now() >= end {
            return Err(Error::sink(format!(
                "{}: another program has locked it: stop the etcd that runs on it",
                path.display()
            )));
        }
        std::thread::sleep(LOCK_INTERVAL);
    }
}

/// Writes `source` anew beside itself and puts the result in its place; its size in bytes.
fn replace(source: &File, version: StorageVersion) -> Result<u64, Error> {
    let part = source.path().with_file_name(PART_NAME);
    let written = write_part(source, version, &part);
    if written.is_err()
        && let Err(error) = fs::remove_file(&part)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        let text = io_text("remove", &part, &error);
        write_console("cannot remove what was begun", &[("error", &text)]);
    }
    written
}

fn write_part(source: &File, version: StorageVersion, part: &Path) -> Result<u64, Error> {
    let io = |error| Error::Io {
        path: part.display().to_string(),
        source: error,
    };
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(FILE_MODE)
        .open(part)
        .map_err(io)?;
    let sink = BufWriter::with_capacity(WRITE_BYTES, file);
    let (total_bytes, mut sink) = rewrite(source, version, sink)?;
    sink.flush().map_err(io)?;
    sink.get_ref().sync_all().map_err(io)?;
    fs::rename(part, source.path()).map_err(io)?;
    if let Some(folder) = part.parent() {
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(io)?;
    }
    Ok(total_bytes)
}
