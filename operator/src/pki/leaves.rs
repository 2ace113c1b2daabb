//! Which certificates a cluster needs: for what, for which names, from where.

use crate::api::{CertManager, OperatorAuthority, QuorateCluster, TlsSource};
use crate::model::Refusal;
use crate::objects::{Names, OPERATOR_NAME, Settings};

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Members show it to clients.
    Server,
    /// `quoratectl`, sidecars, the operator and users show it to members.
    Client,
    /// Members show it to each other.
    Peer,
    /// Sidecars show it to the operator.
    Sidecar,
    /// The operator shows it to sidecars.
    Operator,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Server,
        Self::Client,
        Self::Peer,
        Self::Sidecar,
        Self::Operator,
    ];

    /// The common name: that of clients is who they are.
    pub fn common_name(self) -> &'static str {
        match self {
            Self::Server => "quorate-server",
            Self::Client => "quorate-client",
            Self::Peer => "quorate-peer",
            Self::Sidecar => "quorate-sidecar",
            Self::Operator => OPERATOR_NAME,
        }
    }

    /// Whether servers show it.
    pub fn serves(self) -> bool {
        matches!(self, Self::Server | Self::Peer | Self::Sidecar)
    }

    /// Whether callers show it.
    pub fn calls(self) -> bool {
        matches!(self, Self::Client | Self::Peer | Self::Operator)
    }
}

/// The certificates of one cluster.
pub struct Leaves<'a> {
    cluster: &'a QuorateCluster,
    names: Names,
    domain: &'a str,
}

impl<'a> Leaves<'a> {
    pub fn new(cluster: &'a QuorateCluster, settings: &'a Settings) -> Self {
        Self {
            cluster,
            names: Names::new(cluster),
            domain: &settings.cluster_domain,
        }
    }

    fn source(&self, purpose: Purpose) -> Option<&'a TlsSource> {
        match purpose {
            Purpose::Server | Purpose::Client => Some(&self.cluster.spec.tls.client),
            Purpose::Peer => Some(&self.cluster.spec.tls.peer),
            Purpose::Sidecar | Purpose::Operator => None,
        }
    }

    /// The Secret with it; None when there is no TLS on its side.
    pub fn secret(&self, purpose: Purpose) -> Option<String> {
        let off = |source: &TlsSource| !source.enabled();
        if self.source(purpose).is_some_and(off) {
            return None;
        }
        Some(match purpose {
            Purpose::Server => self.names.server_secret(),
            Purpose::Client => self.names.client_secret(),
            Purpose::Peer => self.names.peer_secret(),
            Purpose::Sidecar => self.names.sidecar_secret(),
            Purpose::Operator => self.names.operator_secret(),
        })
    }

    /// The settings of the own authority where it issues this one.
    pub fn own(&self, purpose: Purpose) -> Option<OperatorAuthority> {
        match self.source(purpose) {
            Some(source) => source.own_authority(),
            None => Some(OperatorAuthority::default()),
        }
    }

    /// The settings of cert-manager where it issues this one.
    pub fn cert_manager(&self, purpose: Purpose) -> Option<&'a CertManager> {
        let source = self.source(purpose)?;
        source.cert_manager.as_ref().filter(|_| source.enabled())
    }

    /// Whether a user gives this one.
    pub fn given(&self, purpose: Purpose) -> bool {
        let given = |source: &TlsSource| source.enabled() && source.secret_name.is_some();
        self.source(purpose).is_some_and(given)
    }

    /// Names and addresses that it is issued for: none for callers, who are known by their common
    /// name and call from anywhere.
    pub fn subject_names(&self, purpose: Purpose) -> Vec<String> {
        if !purpose.serves() {
            return Vec::new();
        }
        let peers = format!(
            "*.{}.{}.svc",
            self.names.peer_service(),
            self.names.namespace
        );
        let mut all = vec![format!("{peers}.{}", self.domain), peers];
        if purpose == Purpose::Server {
            let service = self.names.client_service();
            let host = self.names.client_host();
            all.push(format!("{host}.{}", self.domain));
            all.push(host);
            all.push(format!("{service}.{}", self.names.namespace));
            all.push(service);
            let further = self.cluster.spec.service.additional_sans.iter();
            all.extend(further.filter_map(|name| normal(name)));
        }
        all.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        all.sort();
        all.dedup();
        all
    }

    /// What of `spec.service.additionalSANs` no certificate can have.
    pub fn wrong_names(&self) -> impl Iterator<Item = Refusal> {
        let further = self.cluster.spec.service.additional_sans.iter();
        let wrong = further.filter(|name| normal(name).is_none());
        wrong.map(|name| Refusal {
            reason: "InvalidReference".to_owned(),
            message: format!(
                "spec.service.additionalSANs: {name:?} is neither an address nor a DNS name; an \
                 internationalised name is written in its xn-- form"
            ),
        })
    }

    /// Names that it must be valid for, whoever issued it: a member's own, the Service's, and
    /// loopback's.
    pub fn needed_names(&self, purpose: Purpose) -> Vec<String> {
        match purpose {
            Purpose::Server => vec![
                self.names.host("member"),
                self.names.client_host(),
                "localhost".to_owned(),
            ],
            Purpose::Peer | Purpose::Sidecar => vec![self.names.host("member")],
            Purpose::Client | Purpose::Operator => Vec::new(),
        }
    }
}

/// An address as certificates hold it, or a DNS name, of which the first label may be `*`.
fn normal(name: &str) -> Option<String> {
    if let Ok(address) = name.parse::<std::net::IpAddr>() {
        return Some(address.to_string());
    }
    let label = |label: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(fits)
    };
    let rest = name.strip_prefix("*.").unwrap_or(name);
    (name.len() <= 253 && rest.split('.').all(label)).then(|| name.to_owned())
}
