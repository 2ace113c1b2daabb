//! Lists of members and endpoints as rows, for the simple and the table format.

use super::Health;
use crate::go::format_bytes;
use quorate_proto::etcdserverpb as pb;

/// The headings and rows of a list.
pub struct Rows {
    /// As they are declared; a table shows them in capitals.
    pub headings: &'static [&'static str],
    /// One cell a heading.
    pub rows: Vec<Vec<String>>,
}

/// Members.
pub fn members(response: &pb::MemberListResponse) -> Rows {
    let row = |member: &pb::Member| {
        vec![
            format!("{:x}", member.id),
            if member.name.is_empty() {
                "unstarted".into()
            } else {
                "started".into()
            },
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    Rows {
        headings: &[
            "ID",
            "Status",
            "Name",
            "Peer Addrs",
            "Client Addrs",
            "Is Learner",
        ],
        rows: response.members.iter().map(row).collect(),
    }
}

/// The health of endpoints.
pub fn health(list: &[Health]) -> Rows {
    let row = |health: &Health| {
        vec![
            health.endpoint.clone(),
            health.health.to_string(),
            health.took.clone(),
            health.error.clone(),
        ]
    };
    Rows {
        headings: &["endpoint", "health", "took", "error"],
        rows: list.iter().map(row).collect(),
    }
}

/// The status of endpoints.
pub fn status(list: &[(String, pb::StatusResponse)]) -> Rows {
    Rows {
        headings: &[
            "endpoint",
            "ID",
            "version",
            "storage version",
            "db size",
            "in use",
            "percentage not in use",
            "quota",
            "is leader",
            "is learner",
            "raft term",
            "raft index",
            "raft applied index",
            "errors",
            "downgrade target version",
            "downgrade enabled",
        ],
        rows: list
            .iter()
            .map(|(endpoint, status)| status_row(endpoint, status))
            .collect(),
    }
}

fn status_row(endpoint: &str, status: &pb::StatusResponse) -> Vec<String> {
    let member = super::header(&status.header).member_id;
    let downgrade = status.downgrade_info.clone().unwrap_or_default();
    let size = |bytes: i64| format_bytes(u64::try_from(bytes).unwrap_or_default());
    // A server that reports no size uses all of it.
    let in_use_percent = status
        .db_size_in_use
        .saturating_mul(100)
        .checked_div(status.db_size)
        .unwrap_or(100);
    vec![
        endpoint.to_owned(),
        format!("{member:x}"),
        status.version.clone(),
        status.storage_version.clone(),
        size(status.db_size),
        size(status.db_size_in_use),
        format!("{}%", 100 - in_use_percent),
        size(status.db_size_quota),
        (status.leader == member).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

/// The hashes of endpoints.
pub fn hash_kv(list: &[(String, pb::HashKvResponse)]) -> Rows {
    let row = |(endpoint, hash): &(String, pb::HashKvResponse)| {
        vec![
            endpoint.clone(),
            hash.hash.to_string(),
            hash.hash_revision.to_string(),
        ]
    };
    Rows {
        headings: &["endpoint", "hash", "hash_revision"],
        rows: list.iter().map(row).collect(),
    }
}
