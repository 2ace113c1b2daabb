//! Certificates: read, planned, written, and kept as files for the operator's own calls.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};

use super::Context;
use super::cluster::PassError;
use super::context::Kinds;
use crate::act::apply;
use crate::api::QuorateCluster;
use crate::members::Identity;
use crate::model::Refusal;
use crate::objects::Names;
use crate::pki::{self, Held};

/// What a pass knows of certificates.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// What is missing or no good.
    pub refusals: Vec<Refusal>,
    /// The Secret whose certificate ends first, and when.
    pub expires: Option<(String, Timestamp)>,
    /// How long there is nothing to be done about them.
    pub look_again: Option<Duration>,
}

/// Puts certificates right, unless the cluster is `idle`.
///
/// # Errors
/// The API server refuses or does not answer; a certificate cannot be made or kept.
pub async fn keep(
    context: &Context,
    cluster: &QuorateCluster,
    kinds: Kinds,
    idle: bool,
    now: Timestamp,
) -> Result<Secrets, PassError> {
    let names = Names::new(cluster);
    let api = Api::<Secret>::namespaced(context.client.clone(), &names.namespace);
    let mut held = BTreeMap::new();
    for name in pki::secrets(cluster, &context.settings) {
        if let Some(secret) = api.get_opt(&name).await? {
            held.insert(name, Held::from(&secret));
        }
    }
    let timing = &context.timing;
    let plan = pki::plan(now, cluster, &context.settings, timing, &held)
        .map_err(|error| PassError::Pki(error.to_string()))?;
    let mut missing = plan.missing;
    if !idle {
        for secret in &plan.writes {
            apply(&context.client, secret).await?;
            held.insert(secret.name_any(), Held::from(secret));
        }
        if kinds.certificate {
            for certificate in &plan.certificates {
                apply(&context.client, certificate).await?;
            }
        } else if !plan.certificates.is_empty() {
            missing.push(Refusal {
                reason: "InvalidReference".to_owned(),
                message: "spec.tls names an issuer of cert-manager, which is not installed: \
                          install cert-manager, or use operatorCA or secretName"
                    .to_owned(),
            });
        }
    }
    let credentials = context.credentials(&names.namespace, &names.cluster);
    let own = [
        (Identity::Client, names.client_secret()),
        (Identity::Operator, names.operator_secret()),
    ];
    for (identity, secret) in own {
        if let Some(held) = held.get(&secret) {
            credentials.update(identity, &held.data)?;
        }
    }
    let wait = |at: Timestamp| Duration::try_from(at - now).unwrap_or_default();
    Ok(Secrets {
        refusals: missing,
        expires: plan.expires.into_iter().min_by_key(|(_, at)| *at),
        look_again: plan.look_again.map(wait),
    })
}
