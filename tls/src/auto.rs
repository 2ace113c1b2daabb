//! Certificates that a member makes for itself: `--auto-tls`, `--peer-auto-tls`.
//!
//! etcd: client/pkg/transport/listener.go (SelfCert).

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::leaf::Leaf;
use crate::options::{Error, Options};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
/// A certificate that ends sooner is made anew at a start; etcd goes on with an expired one.
const RENEW_BEFORE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What a certificate is made for.
#[derive(Debug, Clone)]
pub struct AutoOptions {
    /// Where `cert.pem` and `key.pem` lie.
    pub directory: PathBuf,
    /// Names and addresses, without ports.
    pub hosts: Vec<String>,
    pub validity_years: u32,
    /// It is shown to servers too.
    pub for_calls: bool,
}

/// Takes the certificate that lies there, or makes one; gives back options that use it. Whoever
/// signed the certificate of a server that is called, it is believed.
///
/// # Errors
/// A directory or file cannot be written.
pub fn self_signed(auto: &AutoOptions, options: Options) -> Result<Options, Error> {
    if auto.validity_years == 0 {
        return Err(Error::Settings(
            "--self-signed-cert-validity is invalid, it should be greater than 0".to_owned(),
        ));
    }
    let cert_file = auto.directory.join("cert.pem");
    let key_file = auto.directory.join("key.pem");
    if !is_usable(&cert_file, &key_file) {
        make(auto, &cert_file, &key_file)?;
    }
    Ok(Options {
        client_cert_file: cert_file.clone(),
        client_key_file: key_file.clone(),
        cert_file,
        key_file,
        skip_verify: true,
        ..options
    })
}

fn is_usable(cert_file: &Path, key_file: &Path) -> bool {
    let read = || {
        let certificate = CertificateDer::from_pem_slice(&std::fs::read(cert_file).ok()?).ok()?;
        Leaf::parse(&certificate).ok()
    };
    let soon = SystemTime::now() + RENEW_BEFORE;
    let soon = soon.duration_since(UNIX_EPOCH).unwrap_or_default();
    let is_there = key_file.is_file();
    is_there && read().is_some_and(|leaf| leaf.not_after.unsigned_abs() > soon.as_secs())
}

fn make(auto: &AutoOptions, cert_file: &Path, key_file: &Path) -> Result<(), Error> {
    let failed = |error: rcgen::Error| Error::file(cert_file, format!("cannot make it: {error}"));
    // P-256: rustls with ring does not know etcd's P-521.
    let key = KeyPair::generate().map_err(failed)?;
    let not_after = SystemTime::now() + YEAR * auto.validity_years;
    let certificate = params(auto, not_after)
        .and_then(|params| params.self_signed(&key))
        .map_err(failed)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&auto.directory)
        .map_err(|error| Error::file(&auto.directory, error))?;
    // A crash in between leaves a key without its certificate, and the next start makes both.
    write(key_file, key.serialize_pem().as_bytes(), 0o600)?;
    write(cert_file, certificate.pem().as_bytes(), 0o644)?;
    let until = not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
    tracing::warn!(
        "cert-file" = %cert_file.display(),
        "not-after-unix" = until.as_secs(),
        "automatically generate certificates"
    );
    Ok(())
}

fn params(auto: &AutoOptions, not_after: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "etcd");
    params.distinguished_name = subject;
    // Clocks of others may be a little behind.
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = not_after.into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::CrlSign,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if auto.for_calls {
        let calls = ExtendedKeyUsagePurpose::ClientAuth;
        params.extended_key_usages.push(calls);
    }
    for host in auto.hosts.iter().filter(|host| !host.is_empty()) {
        params.subject_alt_names.push(match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    Ok(params)
}

/// Writes a file as a whole: another name first, so that nobody sees half of it.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let new = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    written().map_err(|error| Error::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    #[test]
    fn a_certificate_is_made_once_and_kept_secret() {
        let directory = tempfile::tempdir().expect("a directory");
        let auto = AutoOptions {
            directory: directory.path().join("fixtures/client"),
            hosts: vec!["127.0.0.1".to_owned(), "localhost".to_owned()],
            validity_years: 1,
            for_calls: true,
        };
        let options = self_signed(&auto, Options::default()).expect("it is made");
        let key = std::fs::read(&options.key_file).expect("a key");
        let mode = |path: &Path| {
            let metadata = std::fs::metadata(path).expect("it is there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(&options.key_file), 0o600);
        assert_eq!(mode(&auto.directory), 0o700);
        let identity = Identity::load(options.clone()).expect("it can be used");
        assert!(identity.server().is_ok() && identity.client().is_ok());
        let again = self_signed(&auto, Options::default()).expect("it is there");
        assert_eq!(std::fs::read(&again.key_file).expect("a key"), key);

        std::fs::remove_file(&options.cert_file).expect("it was there");
        self_signed(&auto, Options::default()).expect("it is made anew");
        assert_ne!(std::fs::read(&options.key_file).expect("a key"), key);
        let none = AutoOptions {
            validity_years: 0,
            ..auto
        };
        assert!(self_signed(&none, Options::default()).is_err());
    }
}
