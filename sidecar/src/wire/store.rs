//! Where backups lie.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where backups lie: exactly one of `s3`, `gcs`, `azure` and `pvc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// What every key of a backup begins with, without slashes at its ends. Clusters may share a
    /// bucket and a prefix: keys hold the namespace, the name and the UID of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 256),
        regex(pattern = "^[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*$")
    )]
    pub prefix: Option<String>,
    /// A bucket of Amazon S3 or of a server that speaks its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Store>,
    /// A bucket of Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsStore>,
    /// A container of Azure Blob Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureStore>,
    /// A PersistentVolumeClaim, mounted into every member's Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<PvcStore>,
}

/// A bucket of Amazon S3 or of a server that speaks its protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Store {
    /// The bucket's name. It must exist.
    #[schemars(length(min = 1, max = 255))]
    pub bucket: String,
    /// The URL of a server other than Amazon's, such as `http://minio.minio.svc:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region; `us-east-1` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The bucket is in the host name instead of the path (Amazon's own style).
    #[serde(default)]
    pub virtual_hosted_style: bool,
    /// A Secret of the cluster's namespace with the keys `AWS_ACCESS_KEY_ID` and
    /// `AWS_SECRET_ACCESS_KEY`, perhaps `AWS_SESSION_TOKEN`, and `ca.crt` when the endpoint's
    /// certificate comes of an authority of one's own. Without it, the Pod's own identity is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<String>,
}

/// A bucket of Google Cloud Storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcsStore {
    /// The bucket's name. It must exist.
    #[schemars(length(min = 1, max = 255))]
    pub bucket: String,
    /// A Secret of the cluster's namespace with the key `service-account.json`. Without it, the
    /// Pod's own identity is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<String>,
}

/// A container of Azure Blob Storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureStore {
    /// The storage account.
    #[schemars(length(min = 1, max = 63))]
    pub account: String,
    /// The container. It must exist.
    #[schemars(length(min = 1, max = 63))]
    pub container: String,
    /// A Secret of the cluster's namespace with the key `AZURE_STORAGE_ACCOUNT_KEY`. Without it,
    /// the Pod's own identity is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<String>,
}

/// A PersistentVolumeClaim that every member's Pod mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PvcStore {
    /// The claim's name, in the cluster's namespace. Members on more than one node need a claim
    /// with the access mode ReadWriteMany.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// A store that names none or more than one place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a store is exactly one of s3, gcs, azure and pvc; this one is {0} of them")]
pub struct StoreError(pub usize);

impl Store {
    /// # Errors
    /// The store names none or more than one place.
    pub fn check(&self) -> Result<(), StoreError> {
        let places = [
            self.s3.is_some(),
            self.gcs.is_some(),
            self.azure.is_some(),
            self.pvc.is_some(),
        ];
        match places.into_iter().filter(|place| *place).count() {
            1 => Ok(()),
            places => Err(StoreError(places)),
        }
    }

    /// The Secret with the store's credentials, if it names one.
    #[must_use]
    pub fn credentials_secret(&self) -> Option<&str> {
        let s3 = self
            .s3
            .as_ref()
            .and_then(|s3| s3.credentials_secret.as_deref());
        let gcs = self
            .gcs
            .as_ref()
            .and_then(|gcs| gcs.credentials_secret.as_deref());
        let azure = self
            .azure
            .as_ref()
            .and_then(|azure| azure.credentials_secret.as_deref());
        s3.or(gcs).or(azure)
    }
}
