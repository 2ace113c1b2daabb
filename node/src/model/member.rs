//! Members and the identities that etcd derives from their URLs.

pub use quorate_snapshot::identity::{cluster_id, member_id};

use super::kv::MemberMessage;

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

impl From<MemberMessage> for Member {
    fn from(message: MemberMessage) -> Self {
        Self {
            id: message.id,
            name: message.name,
            peer_urls: message.peer_ur_ls,
            client_urls: message.client_ur_ls,
            is_learner: message.is_learner,
        }
    }
}

impl From<Member> for MemberMessage {
    fn from(member: Member) -> Self {
        Self {
            id: member.id,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.is_learner,
        }
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
