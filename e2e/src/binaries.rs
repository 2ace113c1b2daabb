//! Where the programs under test lie: ours in cargo's target directory, the real etcd in a cache.

use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;

/// Which server, or which command line tool, a test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The real etcd and etcdctl, release 3.7.3.
    Etcd,
    /// `quorate` and `quoratectl`.
    Quorate,
}

impl Kind {
    /// The server that tests judge: Quorate, or what `QUORATE_E2E_SERVER` names.
    ///
    /// # Errors
    /// When the variable names neither `etcd` nor `quorate`.
    pub fn under_test() -> Result<Self> {
        match std::env::var("QUORATE_E2E_SERVER") {
            Ok(name) => Self::parse(&name),
            Err(_) => Ok(Self::Quorate),
        }
    }

    /// Reads `etcd` or `quorate`.
    ///
    /// # Errors
    /// For every other word.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "etcd" => Ok(Self::Etcd),
            "quorate" => Ok(Self::Quorate),
            other => bail!("unknown server {other:?}: it is etcd or quorate"),
        }
    }

    /// The word for this kind in tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Quorate => "quorate",
        }
    }

    /// The path of the server's program.
    ///
    /// # Errors
    /// When it is not there; the message says how to build it.
    pub fn server(self) -> Result<PathBuf> {
        match self {
            Self::Etcd => etcd_program("etcd"),
            Self::Quorate => our_program("quorate"),
        }
    }

    /// The path of the command line tool.
    ///
    /// # Errors
    /// When it is not there; the message says how to build it.
    pub fn ctl(self) -> Result<PathBuf> {
        match self {
            Self::Etcd => etcd_program("etcdctl"),
            Self::Quorate => our_program("quoratectl"),
        }
    }
}

/// A program by the real bbolt that copies a file into one with pages of another size.
///
/// # Errors
/// When it is not there; the message says how to build it.
pub fn bbolt_pages() -> Result<PathBuf> {
    etcd_program("bbolt-pages")
}

/// The path of a program of Kubernetes, release 1.34.1.
///
/// # Errors
/// When it is not there; the message says how to build it.
pub fn kubernetes_program(name: &str) -> Result<PathBuf> {
    cached_program("QUORATE_KUBERNETES_BIN_DIR", "kubernetes-1.34.1", name)
}

/// The path of versitygw, an S3 server, release 1.8.0.
///
/// # Errors
/// When it is not there; the message says how to build it.
pub fn s3_program() -> Result<PathBuf> {
    cached_program("QUORATE_S3_BIN_DIR", "versitygw-1.8.0", "versitygw")
}

/// The path of helm, release 3.22.0.
///
/// # Errors
/// When it is not there; the message says how to build it.
pub fn helm_program() -> Result<PathBuf> {
    cached_program("QUORATE_HELM_BIN_DIR", "helm-3.22.0", "helm")
}

/// The path of prometheus-operator, release 0.85.0.
///
/// # Errors
/// When it is not there; the message says how to build it.
pub fn prometheus_operator() -> Result<PathBuf> {
    let (variable, release) = PROMETHEUS_OPERATOR;
    cached_program(variable, release, "operator")
}

/// The files with the custom resource definitions of prometheus-operator.
///
/// # Errors
/// When they are not there; the message says how to get them.
pub fn prometheus_definitions() -> Result<Vec<PathBuf>> {
    let (variable, release) = PROMETHEUS_OPERATOR;
    let folder = cached_folder(variable, release)?.join("crds");
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("{}: `make e2e` puts files there", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    paths.collect()
}

/// The variable that names its folder, and the folder's name in the cache.
const PROMETHEUS_OPERATOR: (&str, &str) = (
    "QUORATE_PROMETHEUS_OPERATOR_BIN_DIR",
    "prometheus-operator-0.85.0",
);

/// The archives of container images that a real node of the tests needs.
///
/// # Errors
/// When there are none; the message says how to make them.
pub fn image_archives() -> Result<Vec<PathBuf>> {
    let folder = cached_folder("QUORATE_IMAGES_DIR", "images")?;
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in std::fs::read_dir(&folder)? {
            found.push(entry?.path());
        }
    }
    found.retain(|path| path.extension().is_some_and(|end| end == "tar"));
    found.sort();
    ensure!(
        !found.is_empty(),
        "no images are in {}: `make images e2e-images` builds them, or set QUORATE_IMAGES_DIR",
        folder.display()
    );
    Ok(found)
}

fn etcd_program(name: &str) -> Result<PathBuf> {
    cached_program("QUORATE_ETCD_BIN_DIR", "etcd-3.7.3", name)
}

/// A program of others, in the folder that a variable names or in the cache.
fn cached_program(variable: &str, release: &str, name: &str) -> Result<PathBuf> {
    let program = cached_folder(variable, release)?.join(name);
    ensure!(
        program.is_file(),
        "the real {name} of {release} is not at {}: `make e2e` builds it, or set {variable}",
        program.display()
    );
    Ok(program)
}

/// The folder that a variable names, or one in the cache.
fn cached_folder(variable: &str, name: &str) -> Result<PathBuf> {
    match std::env::var_os(variable) {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set")?;
            Ok(PathBuf::from(home).join(".cache/quorate").join(name))
        }
    }
}

/// Cargo tells a test its own package's programs only, so ours are found beside the running test.
///
/// # Errors
/// When it is not there; the message says how to build it.
pub fn our_program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("QUORATE_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let this = std::env::current_exe().context("where this program lies")?;
            let parent = this.parent().context("a program lies in a folder")?;
            match parent.ends_with("deps") {
                true => parent.parent().context("deps lies in a folder")?.into(),
                false => parent.into(),
            }
        }
    };
    let program = folder.join(name);
    ensure!(
        program.is_file(),
        "{name} is not at {}: run `cargo build --release --workspace`, or set QUORATE_BIN_DIR",
        program.display()
    );
    Ok(program)
}
