//! A small certificate authority for tests: it signs, lets expire and revokes.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Subject {
    pub common_name: String,
    /// DNS names and addresses.
    pub names: Vec<String>,
    pub serial: u64,
    pub is_expired: bool,
}

impl Subject {
    /// Somebody at 127.0.0.1 and localhost.
    pub fn here(common_name: &str, serial: u64) -> Self {
        Self::at(common_name, serial, &["127.0.0.1", "localhost"])
    }

    /// Somebody elsewhere.
    pub fn at(common_name: &str, serial: u64, names: &[&str]) -> Self {
        Self {
            common_name: common_name.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            serial,
            is_expired: false,
        }
    }

    /// Whose time is over.
    pub fn expired(self) -> Self {
        Self {
            is_expired: true,
            ..self
        }
    }
}

/// An authority with its certificate in a file.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate in PEM.
    pub pem: String,
    pub file: PathBuf,
    directory: PathBuf,
}

impl Authority {
    /// Makes one; its files lie in `directory`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.not_before = (SystemTime::now() - 10 * DAY).into();
        params.not_after = (SystemTime::now() + 10 * DAY).into();
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        let file = directory.join(format!("{name}.pem"));
        replace(&file, pem.as_bytes())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
            file,
            directory: directory.to_owned(),
        })
    }

    /// Signs a certificate for a server and client, as `name.pem` and `name.key`. Files of that
    /// name are replaced, each as a whole.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn issue(&self, name: &str, subject: &Subject) -> Result<Pair> {
        let mut params = CertificateParams::new(subject.names.clone())?;
        params.distinguished_name = named(&subject.common_name);
        params.serial_number = Some(SerialNumber::from(subject.serial));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = SystemTime::now();
        params.not_before = (now - 2 * DAY).into();
        params.not_after = match subject.is_expired {
            true => (now - DAY).into(),
            false => (now + DAY).into(),
        };
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pair = Pair {
            cert: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
        };
        replace(&pair.cert, certificate.pem().as_bytes())?;
        replace(&pair.key, key.serialize_pem().as_bytes())?;
        Ok(pair)
    }

    /// Writes a list of revoked serial numbers, in DER as etcd wants it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn revoke(&self, name: &str, serials: &[u64]) -> Result<PathBuf> {
        let now = SystemTime::now();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let file = self.directory.join(name);
        replace(&file, list.signed_by(&self.issuer)?.der())?;
        Ok(file)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Replaces a file as a whole, as tools that renew certificates do.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)?;
    Ok(())
}
