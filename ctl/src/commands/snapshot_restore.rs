//! `snapshot restore`: a snapshot made into the data directory of a member of a new cluster.
//!
//! etcd: etcdutl/etcdutl/snapshot_command.go, etcdutl/snapshot/v3_snapshot.go.

use super::snapshot::{io_text, text_of};
use crate::cli::{Call, Command, Flag, Kind};
use crate::log::write_console;
use crate::outcome::Exit;
use quorate_snapshot::identity::{cluster_id, member_id};
use quorate_snapshot::{Error, File, Manifest, Restore, etcd, restore};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const WRITE_BYTES: usize = 256 * 1024;
const SCHEMES: [&str; 4] = ["http://", "https://", "unix://", "unixs://"];

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
    let cluster = parse_cluster(&flags.text("initial-cluster")).map_err(Exit::error)?;
    check_cluster(&cluster, &name, &peer_urls).map_err(Exit::error)?;
    let members: Vec<etcd::Member> = cluster
        .iter()
        .map(|(name, urls)| etcd::Member {
            id: member_id(urls, &token),
            peer_urls: urls.clone(),
            name: name.clone(),
            ..etcd::Member::default()
        })
        .collect();
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    let manifest = Manifest {
        member_id: member_id(&cluster[&name], &token),
        cluster_id: cluster_id(&ids),
    };
    let data_dir = match flags.bytes("data-dir") {
        [] => PathBuf::from(format!("{name}.etcd")),
        path => PathBuf::from(OsStr::from_bytes(path)),
    };
    let restore = Restore {
        members,
        bump_revision,
    };
    let (path, folder) = (source.display().to_string(), data_dir.display().to_string());
    let fields = [("path", path.as_str()), ("data-dir", folder.as_str())];
    write_console("restoring snapshot", &fields);
    let target = Target::create(&data_dir)?;
    let skip_hash_check = flags.bool("skip-hash-check");
    write(source, skip_hash_check, &restore, &manifest, &target)
        .map_err(|error| Exit::error(text_of(&error)))?;
    target.complete()?;
    write_console("restored snapshot", &fields);
    Ok(())
}

/// Reads `name=url,name=url`; a name may have several URLs.
fn parse_cluster(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut cluster: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        check_url(url)?;
        let urls = cluster.entry(name.trim().to_owned()).or_default();
        urls.push(url.trim().to_owned());
    }
    for urls in cluster.values_mut() {
        urls.sort();
    }
    Ok(cluster)
}

fn check_url(url: &str) -> Result<(), String> {
    let url = url.trim();
    let rest = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
    let Some(rest) = rest else {
        return Err(format!(
            "URL scheme must be http, https, unix, or unixs: {url}"
        ));
    };
    let port = rest.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if url.starts_with("http") && !matches!(port, Some(Ok(_))) {
        return Err(format!(
            "URL address does not have the form \"host:port\": {url}"
        ));
    }
    Ok(())
}

/// etcd: server/config/config.go (VerifyBootstrap).
fn check_cluster(
    cluster: &BTreeMap<String, Vec<String>>,
    name: &str,
    peer_urls: &str,
) -> Result<(), String> {
    let mut advertised: Vec<String> = peer_urls.split(',').map(str::to_owned).collect();
    advertised.sort();
    for url in &advertised {
        check_url(url)?;
    }
    let Some(initial) = cluster.get(name) else {
        return Err(format!(
            "couldn't find local name \"{name}\" in the initial cluster configuration"
        ));
    };
    if let Some(url) = initial.iter().find(|url| !advertised.contains(url)) {
        return Err(format!(
            "--initial-cluster has {name}={url} but missing from \
             --initial-advertise-peer-urls={peer_urls}"
        ));
    }
    if let Some(url) = advertised.iter().find(|url| !initial.contains(url)) {
        return Err(format!(
            "--initial-advertise-peer-urls has {url} but missing from --initial-cluster"
        ));
    }
    let mut urls: Vec<&String> = cluster.values().flatten().collect();
    urls.sort();
    if let Some(pair) = urls.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("initial cluster has duplicate url {}", pair[0]));
    }
    Ok(())
}

/// The data directory while it is not complete: what was made goes when something fails.
struct Target {
    data_dir: PathBuf,
    /// Where `member` is built.
    part: PathBuf,
    made_data_dir: bool,
    is_complete: bool,
}

impl Target {
    fn create(data_dir: &Path) -> Result<Self, Exit> {
        let listed = fs::read_dir(data_dir).map(|mut names| names.next().is_none());
        let made_data_dir = match listed {
            Ok(true) => false,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Ok(false) | Err(_) => {
                let shown = data_dir.display();
                let text = format!("data-dir \"{shown}\" not empty or could not be read");
                return Err(Exit::error(text));
            }
        };
        let target = Self {
            data_dir: data_dir.to_owned(),
            part: data_dir.join("member.part"),
            made_data_dir,
            is_complete: false,
        };
        let snap = target.part.join("snap");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(&snap)
            .map_err(|error| Exit::error(io_text("mkdir", &snap, &error)))?;
        Ok(target)
    }

    fn complete(mut self) -> Result<(), Exit> {
        let member = self.data_dir.join("member");
        let sync = |path: &Path| fs::File::open(path).and_then(|folder| folder.sync_all());
        let done = sync(&self.part.join("snap"))
            .and_then(|()| sync(&self.part))
            .and_then(|()| fs::rename(&self.part, &member))
            .and_then(|()| sync(&self.data_dir));
        done.map_err(|error| Exit::error(io_text("rename", &member, &error)))?;
        self.is_complete = true;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_complete {
            return;
        }
        let made = if self.made_data_dir {
            &self.data_dir
        } else {
            &self.part
        };
        if let Err(error) = fs::remove_dir_all(made) {
            let text = io_text("remove", made, &error);
            write_console("cannot remove what was begun", &[("error", &text)]);
        }
    }
}

/// Writes the file and whose it is into the unfinished `target`.
fn write(
    source: &Path,
    skip_hash_check: bool,
    restored: &Restore,
    manifest: &Manifest,
    target: &Target,
) -> Result<(), Error> {
    let file = File::open(source)?;
    if !skip_hash_check {
        file.verify_digest()?;
    }
    let path = target.part.join("snap").join("db");
    let failed = |source| Error::Io {
        path: path.display().to_string(),
        source,
    };
    let db = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(failed)?;
    let (_, mut db) = restore(&file, restored, BufWriter::with_capacity(WRITE_BYTES, db))?;
    db.flush().map_err(failed)?;
    db.get_ref().sync_all().map_err(failed)?;
    manifest.write(&target.part)
}
