//! Looks for tests: three members that are well, for a test to break.

use jiff::{SignedDuration, Timestamp};

use crate::api::{Birth, Lifecycle, MemberPhase, NodeLoss, Reclaim};

use super::{
    ClaimView, ClusterView, Listed, ListedMember, MemberView, Observed, PodView, Storage, Voice,
};

pub const GIB: u64 = 1 << 30;

pub fn now() -> Timestamp {
    "2026-05-01T03:00:00Z".parse().unwrap()
}

pub fn member(id: u64) -> MemberView {
    let pod = PodView {
        uid: format!("pod-{id}"),
        revision: "r".to_owned(),
        ready_since: Some(now() - SignedDuration::from_hours(1)),
        deleting: false,
        failed: false,
        gate_exit: None,
        waiting: None,
        restarts: 0,
        node: Some(format!("node-{id}")),
        zone: Some("a".to_owned()),
        node_lost: false,
    };
    let claim = ClaimView {
        uid: format!("claim-{id}"),
        requested_bytes: GIB,
        capacity_bytes: GIB,
        lost: false,
        deleting: false,
    };
    MemberView {
        created: now() - SignedDuration::from_hours(2),
        birth: Birth::Join,
        phase: MemberPhase::Admitted,
        id: Some(id),
        leaving: None,
        initial_cluster: Some("x".to_owned()),
        unhealthy_since: None,
        claim_uid: Some(claim.uid.clone()),
        pod: Some(pod),
        claim: Some(claim),
    }
}

pub fn voice(id: u64) -> Voice {
    Voice {
        cluster_id: 7,
        id,
        leader: 1,
        raft_index: 100,
        applied_index: 100,
        learner: false,
        db_size_bytes: 5_000_000,
        version: "3.7.3".to_owned(),
        errors: Vec::new(),
    }
}

/// Three members, all well.
pub fn seen() -> Observed {
    let names = [(1, "c-a"), (2, "c-b"), (3, "c-c")];
    let listed = names.map(|(id, name)| ListedMember {
        id,
        name: name.to_owned(),
        learner: false,
    });
    Observed {
        now: now(),
        cluster: ClusterView {
            name: "c".to_owned(),
            namespace: "n".to_owned(),
            deleting: false,
            lifecycle: Lifecycle::Running,
            replicas: 3,
            cluster_id: Some(7),
            revision: "r".to_owned(),
            upgrading: false,
            storage: Storage {
                bytes: GIB,
                expandable: None,
                reclaim: Reclaim::Retain,
            },
            replace_unhealthy_after_seconds: 600,
            max_replacements_per_hour: 3,
            on_node_lost: NodeLoss::Replace,
            replacements: Vec::new(),
            space_freed: None,
            was_hibernated: false,
            operation: None,
            refusals: Vec::new(),
            blocks_pods: false,
        },
        members: names.map(|(id, name)| (name.to_owned(), member(id))).into(),
        listed: Some(Listed {
            cluster_id: 7,
            members: listed.into(),
        }),
        voices: names.map(|(id, name)| (name.to_owned(), voice(id))).into(),
        alarms: Vec::new(),
        fresh_name: "c-new".to_owned(),
    }
}
