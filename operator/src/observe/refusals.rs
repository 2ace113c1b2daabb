//! What the spec asks for and cannot be had: told as `Stalled`, and looked at again each time.

use crate::model::Refusal;

/// What the spec refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Secrets that Pods mount, with what names them.
    pub secrets: Vec<(String, &'static str)>,
    /// The storage class, if the spec names one.
    pub storage_class: Option<String>,
    /// The priority class, if the spec names one.
    pub priority_class: Option<String>,
    /// A claim for backups.
    pub backup_claim: Option<String>,
}

/// What of it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Names of Secrets that exist.
    pub secrets: Vec<String>,
    /// Whether the storage class exists.
    pub storage_class: bool,
    /// Whether the priority class exists.
    pub priority_class: bool,
    /// Whether the claim for backups exists.
    pub backup_claim: bool,
}

/// What is missing, each with what would be right.
#[must_use]
pub fn refusals(needs: &Needs, found: &Found) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut missing = |kind: &str, name: &str, field: &str, remedy: &str| {
        refusals.push(Refusal {
            reason: "InvalidReference".to_owned(),
            message: format!("{field} names the {kind} {name:?}, which does not exist: {remedy}"),
        });
    };
    for (secret, field) in &needs.secrets {
        if !found.secrets.contains(secret) {
            missing(
                "Secret",
                secret,
                field,
                "create it in the cluster's namespace",
            );
        }
    }
    if let Some(class) = needs
        .storage_class
        .as_deref()
        .filter(|_| !found.storage_class)
    {
        missing(
            "StorageClass",
            class,
            "storage.storageClassName",
            "create it",
        );
    }
    if let Some(class) = needs
        .priority_class
        .as_deref()
        .filter(|_| !found.priority_class)
    {
        missing("PriorityClass", class, "pod.priorityClassName", "create it");
    }
    if let Some(claim) = needs
        .backup_claim
        .as_deref()
        .filter(|_| !found.backup_claim)
    {
        let remedy = "create it in the cluster's namespace";
        missing(
            "PersistentVolumeClaim",
            claim,
            "backup.store.pvc.claimName",
            remedy,
        );
    }
    refusals
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_field() {
        let needs = Needs {
            secrets: vec![("creds".to_owned(), "backup.store.s3.credentialsSecret")],
            storage_class: Some("fast".to_owned()),
            ..Needs::default()
        };
        let found = Found::default();
        let messages: Vec<_> = refusals(&needs, &found)
            .into_iter()
            .map(|r| r.message)
            .collect();
        assert_eq!(messages.len(), 2);
        assert!(messages[0].starts_with("backup.store.s3.credentialsSecret names the Secret"));
        let found = Found {
            secrets: vec!["creds".to_owned()],
            storage_class: true,
            ..Found::default()
        };
        assert_eq!(refusals(&needs, &found), []);
    }
}
