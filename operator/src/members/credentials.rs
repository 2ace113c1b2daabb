//! Certificates out of Secrets, as files that only this process can read: the TLS library reads
//! them again when they change.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use quorate_client::TlsConfig;

/// Which identity is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// A client of etcd's API.
    Client,
    /// The operator, towards sidecars.
    Operator,
}

impl Identity {
    fn folder(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }
}

/// The certificates of one cluster.
#[derive(Debug, Clone)]
pub struct Credentials {
    directory: PathBuf,
}

impl Credentials {
    /// Those of one cluster, below `root`, which should lie in memory.
    #[must_use]
    pub fn new(root: &Path, namespace: &str, cluster: &str) -> Self {
        Self {
            directory: root.join(namespace).join(cluster),
        }
    }

    /// Writes what a Secret of type `kubernetes.io/tls` holds, if it is new.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn update(&self, identity: Identity, data: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
        let folder = self.directory.join(identity.folder());
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            let Some(bytes) = data.get(name) else {
                continue;
            };
            let path = folder.join(name);
            if std::fs::read(&path).is_ok_and(|old| old == *bytes) {
                continue;
            }
            let part = folder.join(format!("{name}.part"));
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&part)?;
            io::Write::write_all(&mut file, bytes)?;
            std::fs::rename(&part, &path)?;
        }
        Ok(())
    }

    /// Forgets all of them: the cluster is gone.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// How to speak to a server whose certificate is for `server_name`.
    #[must_use]
    pub fn tls(&self, identity: Identity, server_name: &str) -> TlsConfig {
        let file = |name| Some(self.directory.join(identity.folder()).join(name));
        TlsConfig {
            trusted_ca_file: file("ca.crt"),
            cert_file: file("tls.crt"),
            key_file: file("tls.key"),
            server_name: Some(server_name.to_owned()),
            insecure_skip_verify: false,
        }
    }
}
