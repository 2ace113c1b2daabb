//! Secrets that someone else fills: given by a user, or issued by cert-manager.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::leaves::{Leaves, Purpose};
use super::{CertificatePlan, Held};
use crate::api::QuorateCluster;
use crate::model::Refusal;

const KEYS: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Judges each of them as a member would, and says what would be right.
pub fn judge(
    now: Timestamp,
    cluster: &QuorateCluster,
    leaves: &Leaves<'_>,
    existing: &BTreeMap<String, Held>,
    plan: &mut CertificatePlan,
) {
    for purpose in Purpose::ALL {
        let issued = leaves.cert_manager(purpose).is_some();
        if !issued && !leaves.given(purpose) {
            continue;
        }
        let Some(secret) = leaves.secret(purpose) else {
            continue;
        };
        match check(now, leaves, purpose, existing.get(&secret)) {
            Ok(end) => {
                plan.expires.insert(secret, end);
            }
            Err(wrong) => {
                let namespace = cluster.metadata.namespace.as_deref().unwrap_or_default();
                let refusal = refusal(&format!("{namespace}/{secret}"), issued, &wrong);
                // A Secret may serve two purposes, and one word about it is enough.
                if !plan.missing.contains(&refusal) {
                    plan.missing.push(refusal);
                }
            }
        }
    }
}

fn refusal(secret: &str, issued: bool, wrong: &Wrong) -> Refusal {
    let (reason, text) = match wrong {
        Wrong::Missing if issued => (
            "SecretMissing",
            "cert-manager has not issued it yet; see the Certificate of the same name".to_owned(),
        ),
        Wrong::Missing => (
            "SecretMissing",
            "it does not exist; make it with the keys tls.crt, tls.key and ca.crt".to_owned(),
        ),
        Wrong::Key(key) if issued && *key == "ca.crt" => (
            "CertificateInvalid",
            "it has no ca.crt: the issuer does not tell its authority, so members could not know \
             each other; use an issuer that does (CA, Vault)"
                .to_owned(),
        ),
        Wrong::Key(key) => ("CertificateInvalid", format!("it has no {key}")),
        Wrong::Certificate(text) => ("CertificateInvalid", text.clone()),
    };
    Refusal {
        reason: reason.to_owned(),
        message: format!("Secret {secret}: {text}"),
    }
}

enum Wrong {
    Missing,
    Key(&'static str),
    Certificate(String),
}

fn check(
    now: Timestamp,
    leaves: &Leaves<'_>,
    purpose: Purpose,
    held: Option<&Held>,
) -> Result<Timestamp, Wrong> {
    let held = held.ok_or(Wrong::Missing)?;
    if let Some(absent) = KEYS.into_iter().find(|key| held.get(key).is_empty()) {
        return Err(Wrong::Key(absent));
    }
    let wrong = |text: String| Wrong::Certificate(text);
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let [certificate, key, authorities] = KEYS.map(|key| held.get(key));
    let leaf = quorate_tls::inspect(certificate, key, authorities, seconds)
        .map_err(|error| wrong(error.to_string()))?;
    // Given ones may have no extended key usage at all, which allows everything.
    let uses = [
        (purpose.serves() && !leaf.may_serve, "server"),
        (purpose.calls() && !leaf.may_call, "client"),
    ];
    if let Some((_, lacks)) = uses.into_iter().find(|(lacks, _)| *lacks) {
        return Err(wrong(format!(
            "the certificate may not be used as a {lacks}'s; it needs the extended key usage \
             {lacks}Auth"
        )));
    }
    let needed = leaves.needed_names(purpose);
    if let Some(absent) = needed.iter().find(|name| !leaf.is_valid_for(name)) {
        return Err(wrong(format!(
            "the certificate is not valid for {absent} (it is for {}); it needs the names {}",
            leaf.dns_names.join(", "),
            leaves.subject_names(purpose).join(", "),
        )));
    }
    Timestamp::from_second(leaf.not_after).map_err(|error| wrong(error.to_string()))
}
