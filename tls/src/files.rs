//! The files of one side: read, compared with what was read before, and parsed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys};

use crate::leaf::Leaf;
use crate::options::{Error, Options};
use crate::revocation::{self, Revoked};

/// A file that changed so short a while ago may change again unnoticed: clocks of file systems
/// tick slowly. Its bytes are compared.
const YOUNG: Duration = Duration::from_secs(2);

/// What a file's metadata tells of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn is_young(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = u64::try_from(self.changed.0).unwrap_or_default();
        now < Duration::from_secs(changed) + YOUNG
    }
}

/// The bytes of every file that is named, by path. They hold keys, so they have no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents(Vec<(PathBuf, Vec<u8>)>);

fn paths(options: &Options) -> impl Iterator<Item = &Path> {
    [
        &options.cert_file,
        &options.key_file,
        &options.client_cert_file,
        &options.client_key_file,
        &options.trusted_ca_file,
        &options.crl_file,
    ]
    .into_iter()
    .map(PathBuf::as_path)
    .filter(|path| !path.as_os_str().is_empty())
}

/// The stamps of all files, or none when one is missing.
pub fn stamps(options: &Options) -> Option<Vec<Stamp>> {
    paths(options)
        .map(Stamp::of)
        .collect::<io::Result<_>>()
        .ok()
}

/// Whether nothing has changed since these stamps were taken.
pub fn are_same(options: &Options, before: &[Stamp]) -> bool {
    let now = SystemTime::now();
    stamps(options)
        .is_some_and(|stamps| stamps == before && !stamps.iter().any(|stamp| stamp.is_young(now)))
}

impl Contents {
    /// Reads all files.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn read(options: &Options) -> Result<Self, Error> {
        let read = |path: &Path| match std::fs::read(path) {
            Ok(bytes) => Ok((path.to_owned(), bytes)),
            Err(error) => Err(Error::Open {
                path: path.to_owned(),
                reason: plain(&error),
            }),
        };
        paths(options).map(read).collect::<Result<_, _>>().map(Self)
    }

    fn of(&self, path: &Path) -> &[u8] {
        let found = self.0.iter().find(|(known, _)| known == path);
        found.map_or(&[], |(_, bytes)| bytes)
    }
}

/// What is in the files.
pub struct Material {
    pub server: Option<CertifiedKey>,
    pub client: Option<CertifiedKey>,
    pub authorities: Vec<CertificateDer<'static>>,
    pub revoked: Revoked,
}

impl Material {
    /// Parses and checks.
    ///
    /// # Errors
    /// What is wrong, with the file's name.
    pub fn parse(
        options: &Options,
        contents: &Contents,
        provider: &CryptoProvider,
    ) -> Result<Self, Error> {
        let pair = |cert: &PathBuf, key: &PathBuf| -> Result<Option<CertifiedKey>, Error> {
            if cert.as_os_str().is_empty() {
                return Ok(None);
            }
            pair(cert, key, contents, provider).map(Some)
        };
        let server = pair(&options.cert_file, &options.key_file)?;
        let client = pair(&options.client_cert_file, &options.client_key_file)?;
        let (ca, crl) = (&options.trusted_ca_file, &options.crl_file);
        let authorities = match ca.as_os_str().is_empty() {
            true => Vec::new(),
            false => unexpired(ca, certificates(ca, contents.of(ca))?)?,
        };
        let revoked = match crl.as_os_str().is_empty() {
            true => Revoked::new(),
            false => revocation::read(contents.of(crl), &authorities)
                .map_err(|reason| Error::file(crl, reason))?,
        };
        Ok(Self {
            client: client.or_else(|| server.clone()),
            server,
            authorities,
            revoked,
        })
    }
}

/// The certificates in PEM.
///
/// # Errors
/// There is none.
pub fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::file(path, format!("tls: malformed PEM: {error}")))?;
    if !found.is_empty() {
        return Ok(found);
    }
    let reason = match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(_) => {
            "tls: failed to find certificate PEM data in certificate input, \
                  but did find a private key; PEM inputs may have been switched"
        }
        Err(_) => "tls: failed to find any PEM data in certificate input",
    };
    Err(Error::file(path, reason))
}

/// Leaves out authorities whose time is over: Go believes none of them, webpki does not look.
fn unexpired(
    path: &Path,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut left = Vec::with_capacity(authorities.len());
    for authority in authorities {
        let parsed = Leaf::parse(&authority).map_err(|reason| Error::file(path, reason))?;
        if seconds_since_end(&parsed).is_none() {
            left.push(authority);
        }
    }
    match left.is_empty() {
        true => Err(Error::file(path, "x509: every CA in it has expired")),
        false => Ok(left),
    }
}

/// How long ago a certificate's time ended, if it did.
fn seconds_since_end(leaf: &Leaf) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let end = u64::try_from(leaf.not_after).unwrap_or_default();
    now.unwrap_or_default().as_secs().checked_sub(end + 1)
}

/// The key in PEM.
///
/// # Errors
/// There is none.
pub fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    let reason = match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => return Ok(key),
        Err(pem::Error::NoItemsFound) => match CertificateDer::from_pem_slice(bytes) {
            Ok(_) => "tls: found a certificate rather than a key in the PEM for the private key",
            Err(_) => "tls: failed to find any PEM data in key input",
        },
        Err(_) => "tls: failed to parse private key",
    };
    Err(Error::file(path, reason))
}

/// A certificate and its key.
fn pair(
    cert_file: &Path,
    key_file: &Path,
    contents: &Contents,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let files = (cert_file, key_file);
    let bytes = (contents.of(cert_file), contents.of(key_file));
    let (certified, leaf) = matched(files, bytes, provider)?;
    if let Some(seconds) = seconds_since_end(&leaf) {
        let reason = format!(
            "x509: certificate has expired {} hours ago, at Unix time {}",
            seconds / 3_600,
            leaf.not_after
        );
        return Err(Error::file(cert_file, reason));
    }
    Ok(certified)
}

/// A certificate and the key that belongs to it. Texts are those of Go's tls.X509KeyPair.
///
/// # Errors
/// What is wrong, with the file's name.
pub fn matched(
    (cert_file, key_file): (&Path, &Path),
    (certificate, key): (&[u8], &[u8]),
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Leaf), Error> {
    let certificates = certificates(cert_file, certificate)?;
    let key = private_key(key_file, key)?;
    let first = certificates.first().expect("it is not empty");
    let leaf = Leaf::parse(first).map_err(|reason| Error::file(cert_file, reason))?;
    let signing = provider.key_provider.load_private_key(key).map_err(|_| {
        let reason = "tls: failed to parse private key: it is none of RSA (2048 to 8192 bits), \
                      ECDSA (P-256, P-384) and Ed25519";
        Error::file(key_file, reason)
    })?;
    let certified = CertifiedKey::new(certificates, signing);
    match certified.keys_match() {
        // Some kinds of keys cannot tell their public half; a handshake will.
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok((certified, leaf))
        }
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(Error::file(
            key_file,
            format!(
                "tls: private key does not match public key of {}",
                cert_file.display()
            ),
        )),
        Err(error) => Err(Error::file(cert_file, format!("x509: {error}"))),
    }
}

/// An error of the operating system in Go's words.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}
