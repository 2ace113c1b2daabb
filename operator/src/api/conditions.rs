//! Conditions: written on the first visit, changed in time only when their status flips.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The types of conditions of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// The cluster serves as it should.
    Ready,
    /// The operator is changing something (kstatus).
    Reconciling,
    /// Nothing goes on until someone acts (kstatus).
    Stalled,
    /// Enough voters answer.
    QuorumHealthy,
    /// Every member is as the spec wants it.
    Converged,
    /// Backups are made and proved in time.
    BackupHealthy,
    /// Certificates are there and valid.
    TLSReady,
    /// No alarm about space or corruption; volumes have their size.
    StorageHealthy,
    /// All members are of one cluster.
    ClusterIDConsistent,
}

impl ConditionType {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 9] = [
        Self::Ready,
        Self::Reconciling,
        Self::Stalled,
        Self::QuorumHealthy,
        Self::Converged,
        Self::BackupHealthy,
        Self::TLSReady,
        Self::StorageHealthy,
        Self::ClusterIDConsistent,
    ];

    /// The type's name in the API.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// Conditions under construction: the old ones, of which the new take over times.
#[derive(Debug)]
pub struct Conditions<'a> {
    old: &'a [Condition],
    new: Vec<Condition>,
    generation: Option<i64>,
    now: Time,
}

impl<'a> Conditions<'a> {
    /// Begins with what was there.
    #[must_use]
    pub fn new(old: &'a [Condition], generation: Option<i64>, now: Time) -> Self {
        Self {
            old,
            new: Vec::new(),
            generation,
            now,
        }
    }

    /// Sets one. `status` None is Unknown. Messages hold no counters that churn.
    pub fn set(&mut self, name: &str, status: Option<bool>, reason: &str, message: &str) {
        let status = match status {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let before = self.old.iter().find(|old| old.type_ == name);
        let since = before
            .filter(|old| old.status == status)
            .map(|old| old.last_transition_time.clone());
        self.new.push(Condition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: self.generation,
            last_transition_time: since.unwrap_or_else(|| self.now.clone()),
        });
    }

    /// All that were set, in their order.
    #[must_use]
    pub fn into_vec(self) -> Vec<Condition> {
        self.new
    }
}
