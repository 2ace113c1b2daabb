//! TLS of a cluster.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS towards clients and between members. Where certificates come from cannot change while the
/// cluster lives, since members of both kinds would not believe each other; the rest can.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Towards clients.
    #[serde(default)]
    pub client: TlsSource,
    /// Between members.
    #[serde(default)]
    pub peer: TlsSource,
    /// Whether clients must show a certificate of the trusted authority.
    #[serde(default)]
    pub client_auth: ClientAuth,
}

/// Where certificates come from: at most one of the four; the operator's own authority without
/// any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.operatorCA), has(self.certManager), has(self.secretName), has(self.disabled) && self.disabled].filter(given, given).size() <= 1")
        .message("certificates come from one place: give one of operatorCA, certManager, secretName and disabled"),
    validation = Rule::new("(has(self.disabled) && self.disabled) == (has(oldSelf.disabled) && oldSelf.disabled) && has(self.secretName) == has(oldSelf.secretName) && (!has(self.secretName) || self.secretName == oldSelf.secretName) && has(self.certManager) == has(oldSelf.certManager) && (!has(self.certManager) || self.certManager.issuerRef == oldSelf.certManager.issuerRef)")
        .message("where certificates come from cannot change, as members of both kinds would not believe each other: make a new cluster from a backup, or renew what is in the Secret")
)]
pub struct TlsSource {
    /// The operator's own authority, one a cluster, in the Secret `<cluster>-ca`.
    #[serde(
        default,
        rename = "operatorCA",
        skip_serializing_if = "Option::is_none"
    )]
    pub operator_ca: Option<OperatorAuthority>,
    /// cert-manager: the operator makes the Certificate objects and uses their Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManager>,
    /// A Secret of the same namespace with `tls.crt`, `tls.key` and `ca.crt`. The certificate must
    /// be good for server and client, and for `*.<cluster>-peer.<namespace>.svc`; on the side of
    /// clients also for `<cluster>-client.<namespace>.svc` and `localhost`. To renew it, change
    /// the Secret: members read it again without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// No TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// The operator's own authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.renewBeforeHours < self.validityHours").message(
    "renewBeforeHours must be less than validityHours"
))]
pub struct OperatorAuthority {
    /// How long a member's certificate is valid, in hours.
    #[serde(default = "default_validity")]
    #[schemars(range(min = 1, max = 87_600))]
    pub validity_hours: i64,
    /// How long before its end a certificate is renewed, in hours.
    #[serde(default = "default_renewal")]
    #[schemars(range(min = 1, max = 43_800))]
    pub renew_before_hours: i64,
}

fn default_validity() -> i64 {
    90 * 24
}

fn default_renewal() -> i64 {
    30 * 24
}

impl Default for OperatorAuthority {
    fn default() -> Self {
        Self {
            validity_hours: default_validity(),
            renew_before_hours: default_renewal(),
        }
    }
}

/// Certificates of cert-manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertManager {
    /// Who issues.
    pub issuer_ref: IssuerReference,
    /// How long certificates are valid, in hours; the issuer's default without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 87_600))]
    pub duration_hours: Option<i64>,
}

/// An issuer of cert-manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `Issuer` or `ClusterIssuer`, or another kind of the group.
    #[serde(default = "default_issuer_kind")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The group.
    #[serde(default = "default_issuer_group")]
    #[schemars(length(min = 1, max = 253))]
    pub group: String,
}

fn default_issuer_kind() -> String {
    "Issuer".to_owned()
}

fn default_issuer_group() -> String {
    "cert-manager.io".to_owned()
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientAuth {
    /// They must.
    #[default]
    Required,
    /// They need not.
    None,
}

impl TlsSource {
    /// Whether there is TLS at all.
    #[must_use]
    pub fn enabled(&self) -> bool {
        self.disabled != Some(true)
    }

    /// The settings of the operator's own authority, where that is the source.
    #[must_use]
    pub fn own_authority(&self) -> Option<OperatorAuthority> {
        let other = self.cert_manager.is_some() || self.secret_name.is_some();
        (self.enabled() && !other).then(|| self.operator_ca.clone().unwrap_or_default())
    }
}
