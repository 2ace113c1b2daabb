//! What the objects of a cluster are called, and under which names its members are reached.

use kube::ResourceExt;

use crate::api::QuorateCluster;

/// The port that clients use.
pub const CLIENT_PORT: i32 = 2379;
/// The port that members use among themselves.
pub const PEER_PORT: i32 = 2380;
/// The port of metrics and health, in plaintext.
pub const METRICS_PORT: i32 = 2381;
/// The port of the sidecar's API.
pub const SIDECAR_PORT: i32 = quorate_sidecar::wire::PORT as i32;

/// The port of the sidecar's metrics and health, in plaintext.
pub const SIDECAR_METRICS_PORT: i32 = 2383;

/// The names of one cluster's objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The cluster's name.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    client_tls: bool,
    peer_tls: bool,
    client_given: Option<String>,
    peer_given: Option<String>,
}

impl Names {
    /// Of a cluster.
    #[must_use]
    pub fn new(cluster: &QuorateCluster) -> Self {
        let tls = &cluster.spec.tls;
        Self {
            cluster: cluster.name_any(),
            namespace: cluster.namespace().unwrap_or_default(),
            client_tls: tls.client.enabled(),
            peer_tls: tls.peer.enabled(),
            client_given: tls.client.secret_name.clone(),
            peer_given: tls.peer.secret_name.clone(),
        }
    }

    /// The Service that clients use.
    #[must_use]
    pub fn client_service(&self) -> String {
        format!("{}-client", self.cluster)
    }

    /// The headless Service that gives each member a name.
    #[must_use]
    pub fn peer_service(&self) -> String {
        format!("{}-peer", self.cluster)
    }

    /// The claim of a member.
    #[must_use]
    pub fn claim(&self, member: &str) -> String {
        format!("{member}-data")
    }

    /// The name of a member in DNS, which is also the name in its certificates.
    #[must_use]
    pub fn host(&self, member: &str) -> String {
        format!("{member}.{}.{}.svc", self.peer_service(), self.namespace)
    }

    /// The name of the client Service in DNS.
    #[must_use]
    pub fn client_host(&self) -> String {
        format!("{}.{}.svc", self.client_service(), self.namespace)
    }

    /// `http` or `https`, towards clients.
    #[must_use]
    pub fn client_scheme(&self) -> &'static str {
        scheme(self.client_tls)
    }

    /// `http` or `https`, between members.
    #[must_use]
    pub fn peer_scheme(&self) -> &'static str {
        scheme(self.peer_tls)
    }

    /// A member's URL for clients.
    #[must_use]
    pub fn client_url(&self, member: &str) -> String {
        format!(
            "{}://{}:{CLIENT_PORT}",
            self.client_scheme(),
            self.host(member)
        )
    }

    /// A member's URL for peers.
    #[must_use]
    pub fn peer_url(&self, member: &str) -> String {
        format!("{}://{}:{PEER_PORT}", self.peer_scheme(), self.host(member))
    }

    /// Where clients connect, for the status.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!(
            "{}://{}:{CLIENT_PORT}",
            self.client_scheme(),
            self.client_host()
        )
    }

    /// The Secret with the operator's own authority of this cluster: `ca.crt` is the bundle that
    /// is trusted, `tls.crt` and `tls.key` are what signs.
    #[must_use]
    pub fn authority_secret(&self) -> String {
        format!("{}-ca", self.cluster)
    }

    /// The Secret that members show to clients: the given one, where one is given.
    #[must_use]
    pub fn server_secret(&self) -> String {
        let made = || format!("{}-server-tls", self.cluster);
        self.client_given.clone().unwrap_or_else(made)
    }

    /// The Secret that clients show to members: the given one, where one is given.
    #[must_use]
    pub fn client_secret(&self) -> String {
        let made = || format!("{}-client-tls", self.cluster);
        self.client_given.clone().unwrap_or_else(made)
    }

    /// The Secret that members show to each other: the given one, where one is given.
    #[must_use]
    pub fn peer_secret(&self) -> String {
        let made = || format!("{}-peer-tls", self.cluster);
        self.peer_given.clone().unwrap_or_else(made)
    }

    /// The Secret that sidecars show to the operator.
    #[must_use]
    pub fn sidecar_secret(&self) -> String {
        format!("{}-sidecar-tls", self.cluster)
    }

    /// The Secret that the operator shows to sidecars. No Pod mounts it.
    #[must_use]
    pub fn operator_secret(&self) -> String {
        format!("{}-operator-tls", self.cluster)
    }
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}
