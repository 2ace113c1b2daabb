//! A cluster's own authority as it lies in its Secret.
//!
//! | key | what |
//! |---|---|
//! | `tls.crt`, `tls.key` | the newest authority, which signs once everybody trusts it |
//! | `old.crt`, `old.key` | the one before, which signs until then |
//! | `ca.crt` | all that are to be trusted |

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Held;
use super::issue::{self, Error, Pair};

/// How long an authority is valid, in hours: ten years.
const VALIDITY_HOURS: i64 = 10 * 365 * 24;
/// The annotation with the value of the cluster's that was last obeyed.
const ROTATED: &str = "quorate.dev/rotated";

/// An authority that can sign.
#[derive(Clone, PartialEq, Eq)]
pub struct Signer {
    pub pair: Pair,
    pub common_name: String,
    pub until: Timestamp,
}

impl Signer {
    fn read(certificate: &[u8], key: &[u8]) -> Option<Self> {
        let leaf = quorate_tls::certificates(certificate)
            .ok()?
            .into_iter()
            .next()?;
        let key = String::from_utf8(key.to_vec()).ok()?;
        // Not its own authority as far as the crypto library is concerned, but its key must fit.
        rcgen::KeyPair::from_pem(&key).ok()?;
        Some(Self {
            pair: Pair {
                certificate: String::from_utf8(certificate.to_vec()).ok()?,
                key,
            },
            common_name: leaf.common_name?,
            until: Timestamp::from_second(leaf.not_after).ok()?,
        })
    }

    fn make(cluster: &str, now: Timestamp, leaf_hours: i64) -> Result<Self, Error> {
        // Each authority has a name of its own, so that a chain is never looked for at the wrong
        // one; within the 64 characters that a common name may have.
        let common_name = format!("{cluster} {:x}", now.as_millisecond());
        let hours = VALIDITY_HOURS.max(leaf_hours.saturating_mul(3));
        let until = now + SignedDuration::from_hours(hours);
        Ok(Self {
            pair: issue::authority(&common_name, now, until)?,
            common_name,
            until,
        })
    }

    /// Whether this one issued the pair, and it is good now.
    pub fn issued(&self, held: &Held, now: Timestamp) -> bool {
        let authority = self.pair.certificate.as_bytes();
        judged(held, authority, now).is_some()
    }
}

/// What a leaf says, if it is good under these authorities.
pub fn judged(held: &Held, authorities: &[u8], now: Timestamp) -> Option<quorate_tls::Leaf> {
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    quorate_tls::inspect(held.get("tls.crt"), held.get("tls.key"), authorities, now).ok()
}

/// A cluster's own authority.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    pub signer: Signer,
    pub old: Option<Signer>,
    /// Trusted certificates in PEM, the signer's first.
    bundle: Vec<String>,
    rotated: String,
}

impl Authority {
    /// What lies in the Secret; None when it is not there or cannot sign.
    pub fn read(held: Option<&Held>) -> Option<Self> {
        let held = held?;
        let signer = Signer::read(held.get("tls.crt"), held.get("tls.key"))?;
        let mut bundle = vec![signer.pair.certificate.clone()];
        add(&mut bundle, held.get("ca.crt"));
        Some(Self {
            old: Signer::read(held.get("old.crt"), held.get("old.key")),
            signer,
            bundle,
            rotated: held.annotations.get(ROTATED).cloned().unwrap_or_default(),
        })
    }

    /// The first one of a cluster, or one in place of one that was lost: what its leaves trusted
    /// is trusted on.
    ///
    /// # Errors
    /// It could not be made.
    pub fn make(
        cluster: &str,
        now: Timestamp,
        leaf_hours: i64,
        rotated: &str,
        leaves: &[&Held],
    ) -> Result<Self, Error> {
        let signer = Signer::make(cluster, now, leaf_hours)?;
        let mut bundle = vec![signer.pair.certificate.clone()];
        for leaf in leaves {
            add(&mut bundle, leaf.get("ca.crt"));
        }
        Ok(Self {
            signer,
            old: None,
            bundle,
            rotated: rotated.to_owned(),
        })
    }

    /// Begins a rotation if one is due and none goes on: asked for by the annotation, or because
    /// leaves would soon outlive their authority.
    ///
    /// # Errors
    /// The new one could not be made.
    pub fn rotate(
        &mut self,
        cluster: &str,
        now: Timestamp,
        leaf_hours: i64,
        asked: &str,
    ) -> Result<(), Error> {
        let is_asked = !asked.is_empty() && asked != self.rotated;
        let ends = self.signer.until <= now + SignedDuration::from_hours(leaf_hours * 2);
        if self.is_rotating() || !(is_asked || ends) {
            return Ok(());
        }
        let new = Signer::make(cluster, now, leaf_hours)?;
        self.bundle.insert(0, new.pair.certificate.clone());
        self.old = Some(std::mem::replace(&mut self.signer, new));
        if is_asked {
            asked.clone_into(&mut self.rotated);
        }
        Ok(())
    }

    /// Whether more than the newest is trusted.
    pub fn is_rotating(&self) -> bool {
        self.bundle.len() > 1
    }

    /// Trusts the newest alone.
    pub fn retire_old(&mut self) {
        self.old = None;
        self.bundle.truncate(1);
    }

    /// All that is to be trusted, in PEM.
    pub fn bundle(&self) -> String {
        self.bundle.concat()
    }

    /// Who signs a leaf that is needed now. Before the newest is trusted everywhere it is the one
    /// before, as long as it is there and valid.
    pub fn signs(&self, is_announced: bool, now: Timestamp) -> &Signer {
        let before = self
            .old
            .as_ref()
            .filter(|old| !is_announced && old.until > now);
        before.unwrap_or(&self.signer)
    }

    /// Data and annotations of the Secret.
    pub fn held(&self) -> Held {
        let mut data = BTreeMap::new();
        let mut put = |key: &str, text: &str| data.insert(key.to_owned(), text.as_bytes().to_vec());
        put("tls.crt", &self.signer.pair.certificate);
        put("tls.key", &self.signer.pair.key);
        put("ca.crt", &self.bundle());
        if let Some(old) = &self.old {
            put("old.crt", &old.pair.certificate);
            put("old.key", &old.pair.key);
        }
        Held {
            data,
            annotations: BTreeMap::from([(ROTATED.to_owned(), self.rotated.clone())]),
        }
    }
}

/// Adds the certificates of a bundle that are not in yet and are certificates.
fn add(bundle: &mut Vec<String>, pem: &[u8]) {
    const END: &str = "-----END CERTIFICATE-----";
    let text = String::from_utf8_lossy(pem);
    for part in text.split_inclusive(END) {
        let certificate = format!("{}\n", part.trim());
        let known = bundle
            .iter()
            .any(|known| known.trim() == certificate.trim());
        if !known && quorate_tls::certificates(certificate.as_bytes()).is_ok() {
            bundle.push(certificate);
        }
    }
}
