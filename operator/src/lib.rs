//! `QuorateCluster` and friends on Kubernetes.
