//! The PodDisruptionBudget: drains never take the quorum.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Names, labels};
use crate::api::{QuorateCluster, ROLE_LABEL};

/// How many of so many voters are a quorum.
#[must_use]
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// The budget while there are `voters`; None when the spec wants none.
///
/// It counts voters only, and keeps a quorum of the voters there are or are to be, whichever is
/// more: while a cluster shrinks the live ones decide, while it grows the intended ones. A single
/// member can then not be drained: its Pod has to be deleted by someone who means it. Where the
/// quorum is lost, no unhealthy voter is evicted either, since its start may bring it back.
#[must_use]
pub fn disruption_budget(cluster: &QuorateCluster, voters: usize) -> Option<PodDisruptionBudget> {
    if !cluster.spec.pdb.enabled {
        return None;
    }
    let intended = usize::try_from(cluster.spec.replicas).unwrap_or_default();
    let keep = quorum(voters.max(intended));
    let names = Names::new(cluster);
    let mut selector = labels::selector(&names.cluster);
    selector.insert(ROLE_LABEL.to_owned(), "voter".to_owned());
    Some(PodDisruptionBudget {
        metadata: labels::cluster_meta(cluster, names.cluster),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: i32::try_from(keep).ok().map(IntOrString::Int),
            selector: Some(LabelSelector {
                match_labels: Some(selector),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some("IfHealthyBudget".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::cluster;

    #[test]
    fn a_quorum_of_the_larger_number_is_kept() {
        let mut cluster = cluster();
        for (live, intended, keep) in [(0, 3, 2), (3, 3, 2), (5, 3, 3), (3, 5, 3), (1, 1, 1)] {
            cluster.spec.replicas = intended;
            let budget = disruption_budget(&cluster, live).and_then(|budget| budget.spec);
            let budget = budget.expect("there is one");
            assert_eq!(budget.min_available, Some(IntOrString::Int(keep)));
            let labels = budget.selector.and_then(|all| all.match_labels);
            assert_eq!(labels.expect("labels")["quorate.dev/role"], "voter");
        }
        cluster.spec.pdb.enabled = false;
        assert_eq!(disruption_budget(&cluster, 3), None);
    }
}
