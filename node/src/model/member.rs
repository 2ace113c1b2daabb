//! Members and the identities that etcd derives from their URLs.

use sha1::{Digest, Sha1};

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

/// A member's ID as etcd computes it for a first start: the first eight bytes of the SHA-1 over
/// its sorted peer URLs and the cluster token.
///
/// etcd: server/etcdserver/api/membership/member.go.
pub fn member_id(peer_urls: &[String], cluster_token: &str) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    first_eight_bytes(Sha1::new_with_prefix(urls.concat()).chain_update(cluster_token))
}

/// The ID of a member that is added to a running cluster: it depends on the time, so that a
/// replacement at the same URLs is another member. `unix_seconds` is when it is added; etcd leaves
/// the cluster token out.
///
/// etcd: server/etcdserver/api/v3rpc/member.go, `MemberAdd`.
pub fn added_member_id(peer_urls: &[String], unix_seconds: u64) -> u64 {
    member_id(peer_urls, &unix_seconds.to_string())
}

/// A cluster's ID: the first eight bytes of the SHA-1 over its sorted member IDs.
///
/// etcd: server/etcdserver/api/membership/cluster.go.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    let mut sum = Sha1::new();
    for id in ids {
        sum.update(id.to_be_bytes());
    }
    first_eight_bytes(sum)
}

fn first_eight_bytes(sum: Sha1) -> u64 {
    let digest = sum.finalize();
    digest[..8]
        .iter()
        .fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A single member with all defaults: what `etcdctl member list` and the response headers of
    /// a real etcd say.
    #[test]
    fn identities_of_a_default_etcd() {
        let id = member_id(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(id, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[id]), 0xcdf8_1819_4e3a_8c32);
    }
}
