//! Members and the identities that etcd derives from their URLs.

pub use quorate_snapshot::identity::{cluster_id, member_id};

/// One member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Empty until the member has started and published itself.
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
    pub is_learner: bool,
}

impl Member {
    /// Whether it has ever published itself.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }
}

/// The ID of a member that is added to a running cluster: it depends on the time, so that a
/// replacement at the same URLs is another member. `unix_seconds` is when it is added; etcd leaves
/// the cluster token out.
///
/// etcd: server/etcdserver/api/v3rpc/member.go, `MemberAdd`.
pub fn added_member_id(peer_urls: &[String], unix_seconds: u64) -> u64 {
    member_id(peer_urls, &unix_seconds.to_string())
}
