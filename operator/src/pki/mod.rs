//! Certificates of a cluster: its own authority, those of cert-manager, those that are given.
//!
//! ```text
//! existing Secrets, now ─► plan ─► Secrets to write         own: authority, leaves, rotation
//!                               ├─ Certificates to apply    cert-manager issues, we consume
//!                               └─ what is missing          given Secrets, or not issued yet
//! ```
//! [`plan`] is a pure function but for the keys that `issue` makes. Every sidecar and the operator
//! itself have certificates of the own authority, whatever `spec.tls` says: the sidecar's API
//! must be closed to everybody else.
//!
//! A new authority comes in two steps, so that at any moment everybody trusts everybody. First it
//! joins the bundle (`ca.crt`) of all Secrets while the old one goes on signing. Once the bundle
//! has been out for [`Timing::propagation_seconds`], all leaves are issued anew by it; once those
//! have been out for [`Timing::retirement_seconds`], the old one leaves the bundle. All that this
//! has to remember lies in the Secrets and their annotations. Members read files again before each
//! handshake, so nothing restarts.

mod authority;
mod cert_manager;
mod given;
mod issue;
mod leaves;
mod own;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::core::DynamicObject;

use crate::api::QuorateCluster;
use crate::model::Refusal;
use crate::objects::{Names, Settings};
pub use cert_manager::kind as certificate_kind;
pub use issue::Error;
use leaves::{Leaves, Purpose};

/// The annotation on a cluster that asks for a new authority: with each new value, one rotation.
pub const ROTATE_ANNOTATION: &str = "quorate.dev/rotate";

/// A Secret as it is in Kubernetes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Its data, decoded.
    pub data: BTreeMap<String, Vec<u8>>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.data.keys()).finish()
    }
}

impl From<&Secret> for Held {
    fn from(secret: &Secret) -> Self {
        let data = secret.data.clone().unwrap_or_default();
        Self {
            data: data
                .into_iter()
                .map(|(key, value)| (key, value.0))
                .collect(),
            annotations: secret.metadata.annotations.clone().unwrap_or_default(),
        }
    }
}

impl Held {
    fn get(&self, key: &str) -> &[u8] {
        self.data.get(key).map_or(&[], Vec::as_slice)
    }

    fn time(&self, annotation: &str) -> Option<Timestamp> {
        self.annotations.get(annotation)?.parse().ok()
    }
}

/// How long things take to be everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// After how many seconds each member has read a changed Secret: kubelets look once a minute
    /// or so.
    pub propagation_seconds: i64,
    /// For how many seconds an authority that signs nothing any more is still trusted: clients
    /// outside take their time.
    pub retirement_seconds: i64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            propagation_seconds: 300,
            retirement_seconds: 3_600,
        }
    }
}

/// What is to be done about certificates.
#[derive(Debug, Clone, Default)]
pub struct CertificatePlan {
    /// Secrets to apply, in this order: the authority comes first.
    pub writes: Vec<Secret>,
    /// cert-manager's Certificates to apply.
    pub certificates: Vec<DynamicObject>,
    /// Secrets that are missing or no good, and names that no certificate can have; no Pod can
    /// start as it should while there are any.
    pub missing: Vec<Refusal>,
    /// When each certificate in use ends, by Secret.
    pub expires: BTreeMap<String, Timestamp>,
    /// Whether an authority is being rotated.
    pub rotating: bool,
    /// When to look again, if nothing else happens.
    pub look_again: Option<Timestamp>,
}

/// The names of the Secrets to read before [`plan`]: an absent one is not to be in its map, and an
/// answer that failed is no absence.
#[must_use]
pub fn secrets(cluster: &QuorateCluster, settings: &Settings) -> Vec<String> {
    let names = Names::new(cluster);
    let leaves = Leaves::new(cluster, settings);
    let mut all = vec![names.authority_secret()];
    all.extend(
        Purpose::ALL
            .iter()
            .filter_map(|purpose| leaves.secret(*purpose)),
    );
    all.sort();
    all.dedup();
    all
}

/// What is to be done about certificates now. Done, it says nothing more until time passes or the
/// spec changes.
///
/// # Errors
/// A key or a certificate could not be made.
pub fn plan(
    now: Timestamp,
    cluster: &QuorateCluster,
    settings: &Settings,
    timing: &Timing,
    existing: &BTreeMap<String, Held>,
) -> Result<CertificatePlan, Error> {
    let leaves = Leaves::new(cluster, settings);
    let mut plan = own::plan(now, cluster, &leaves, timing, existing)?;
    plan.certificates = cert_manager::certificates(cluster, &leaves);
    plan.missing.extend(leaves.wrong_names());
    given::judge(now, cluster, &leaves, existing, &mut plan);
    Ok(plan)
}

#[cfg(test)]
mod tests;
