//! A store as the operator names it, with the credentials that are mounted here, made an open one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};
use quorate_sidecar::wire::{AzureStore, GcsStore, PvcStore, S3Store, Store};

use super::errors::{Secrets, failure};
use super::{Place, Uploads};
use crate::failure::{Failure, Reason};

const REGION: &str = "us-east-1";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request with its answer: a part, or a range.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const RETRIES_MAX: usize = 4;
/// After this long, a request is not tried again.
const RETRY_LIMIT: Duration = Duration::from_secs(45);

/// Where credentials and volumes are mounted.
#[derive(Debug, Clone)]
pub struct Mounts {
    /// The Secret that the store names, one file a key.
    pub credentials: Option<PathBuf>,
    /// The claim of a `pvc` store.
    pub volume: PathBuf,
}

impl Place {
    /// Opens `store`. Credentials are read anew each time, so that a rotated Secret is used.
    ///
    /// # Errors
    /// It names no store, or credentials that are not there.
    pub fn open(store: &Store, mounts: &Mounts) -> Result<Self, Failure> {
        let bad = |text: String| Failure::new(Reason::BadRequest, text);
        store.check().map_err(|error| bad(error.to_string()))?;
        let mut secrets = Secrets::default();
        let (opened, shown) = if let Some(s3) = &store.s3 {
            (
                open_s3(s3, mounts, &mut secrets)?,
                format!("s3://{}", s3.bucket),
            )
        } else if let Some(gcs) = &store.gcs {
            (
                open_gcs(gcs, mounts, &mut secrets)?,
                format!("gs://{}", gcs.bucket),
            )
        } else if let Some(azure) = &store.azure {
            let shown = format!("az://{}", azure.container);
            (open_azure(azure, mounts, &mut secrets)?, shown)
        } else if let Some(pvc) = &store.pvc {
            (open_pvc(pvc, mounts)?, format!("pvc://{}", pvc.claim_name))
        } else {
            return Err(Failure::internal("a checked store names no place"));
        };
        let (opened, uploads) = opened;
        Ok(Self {
            store: opened,
            uploads,
            shown,
            prefix: store.prefix.clone(),
            secrets: Arc::new(secrets),
        })
    }
}

type Opened = Result<(Arc<dyn ObjectStore>, Uploads), Failure>;

fn retries() -> RetryConfig {
    RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_LIMIT,
        ..RetryConfig::default()
    }
}

fn client() -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
}

fn bucket<S>(store: object_store::Result<S>, secrets: &Secrets) -> Opened
where
    S: ObjectStore + MultipartStore,
{
    let store = store.map_err(|error| failure(&error, "open the store", secrets))?;
    let store = Arc::new(store);
    Ok((
        Arc::clone(&store) as Arc<dyn ObjectStore>,
        Uploads::Bucket(store),
    ))
}

fn open_s3(s3: &S3Store, mounts: &Mounts, secrets: &mut Secrets) -> Opened {
    let mut options = client();
    let mut builder = match &s3.credentials_secret {
        // A Pod's own identity comes by variables that the cloud's webhook sets.
        None => AmazonS3Builder::from_env(),
        Some(name) => {
            let folder = Folder::of(mounts, name)?;
            let id = folder.need("AWS_ACCESS_KEY_ID", secrets)?;
            let key = folder.need("AWS_SECRET_ACCESS_KEY", secrets)?;
            let mut builder = AmazonS3Builder::new()
                .with_access_key_id(id)
                .with_secret_access_key(key);
            if let Some(token) = folder.find("AWS_SESSION_TOKEN", secrets)? {
                builder = builder.with_token(token);
            }
            if let Some(pem) = folder.find("ca.crt", &mut Secrets::default())? {
                options = trust(options, &pem, name)?;
            }
            builder
        }
    };
    builder = builder
        .with_bucket_name(&s3.bucket)
        .with_region(s3.region.as_deref().unwrap_or(REGION))
        .with_virtual_hosted_style_request(s3.virtual_hosted_style)
        .with_retry(retries());
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(endpoint);
        // Without TLS nobody's certificates are asked for, and the image need not have any.
        let is_plain = endpoint.starts_with("http://");
        options = options
            .with_allow_http(is_plain)
            .with_no_system_certificates(is_plain);
    }
    bucket(builder.with_client_options(options).build(), secrets)
}

fn trust(options: ClientOptions, pem: &str, secret: &str) -> Result<ClientOptions, Failure> {
    let wrong = |what: String| {
        let text = format!("ca.crt of the Secret {secret} {what}");
        Failure::new(Reason::BadRequest, text)
    };
    let certificates = Certificate::from_pem_bundle(pem.as_bytes());
    let certificates = certificates.map_err(|error| wrong(format!("is no PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong("holds no certificate".into()));
    }
    let trusted = certificates.into_iter();
    Ok(trusted.fold(options, ClientOptions::with_root_certificate))
}

fn open_gcs(gcs: &GcsStore, mounts: &Mounts, secrets: &mut Secrets) -> Opened {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&gcs.bucket)
        .with_retry(retries())
        .with_client_options(client());
    if let Some(name) = &gcs.credentials_secret {
        let key = Folder::of(mounts, name)?.need("service-account.json", secrets)?;
        builder = builder.with_service_account_key(key);
    }
    bucket(builder.build(), secrets)
}

fn open_azure(azure: &AzureStore, mounts: &Mounts, secrets: &mut Secrets) -> Opened {
    let builder = match &azure.credentials_secret {
        None => MicrosoftAzureBuilder::from_env(),
        Some(name) => {
            let key = Folder::of(mounts, name)?.need("AZURE_STORAGE_ACCOUNT_KEY", secrets)?;
            MicrosoftAzureBuilder::new().with_access_key(key)
        }
    };
    let builder = builder
        .with_account(&azure.account)
        .with_container_name(&azure.container)
        .with_retry(retries())
        .with_client_options(client());
    bucket(builder.build(), secrets)
}

/// Files are written under another name, synced, and renamed; then their folder is synced.
fn open_pvc(pvc: &PvcStore, mounts: &Mounts) -> Opened {
    if !mounts.volume.is_dir() {
        let text = format!(
            "the claim {} is not mounted at {}",
            pvc.claim_name,
            mounts.volume.display()
        );
        return Err(Failure::new(Reason::NotFound, text));
    }
    let store = LocalFileSystem::new_with_prefix(&mounts.volume);
    let store = store.map_err(|error| failure(&error, "open the volume", &Secrets::default()))?;
    let volume = mounts.volume.clone();
    Ok((Arc::new(store.with_fsync(true)), Uploads::Folder(volume)))
}

/// A mounted Secret.
struct Folder<'a> {
    path: &'a Path,
    name: &'a str,
}

impl<'a> Folder<'a> {
    fn of(mounts: &'a Mounts, name: &'a str) -> Result<Self, Failure> {
        match mounts.credentials.as_deref() {
            Some(path) => Ok(Self { path, name }),
            None => {
                let text = format!("the Secret {name} is not mounted: no directory was given");
                Err(Failure::new(Reason::BadRequest, text))
            }
        }
    }

    fn find(&self, key: &str, secrets: &mut Secrets) -> Result<Option<String>, Failure> {
        match fs::read_to_string(self.path.join(key)) {
            Ok(text) => {
                let text = text.trim().to_owned();
                secrets.add(&text);
                Ok(Some(text))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let text = format!("{key} of the Secret {}: {error}", self.name);
                Err(Failure::new(Reason::AccessDenied, text))
            }
        }
    }

    fn need(&self, key: &str, secrets: &mut Secrets) -> Result<String, Failure> {
        let found = self.find(key, secrets)?.filter(|text| !text.is_empty());
        found.ok_or_else(|| {
            let text = format!("the Secret {} has no {key}", self.name);
            Failure::new(Reason::AccessDenied, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gcs() -> Store {
        Store {
            gcs: Some(GcsStore {
                bucket: "b".into(),
                credentials_secret: Some("keys".into()),
            }),
            ..Store::default()
        }
    }

    fn azure() -> Store {
        Store {
            azure: Some(AzureStore {
                account: "a".into(),
                container: "c".into(),
                credentials_secret: Some("keys".into()),
            }),
            ..Store::default()
        }
    }

    fn s3() -> Store {
        Store {
            s3: Some(S3Store {
                bucket: "b".into(),
                endpoint: Some("http://127.0.0.1:1".into()),
                region: None,
                virtual_hosted_style: false,
                credentials_secret: Some("keys".into()),
            }),
            ..Store::default()
        }
    }

    /// What opening says with these files in the Secret.
    fn open(store: &Store, files: &[(&str, &str)]) -> Result<String, Failure> {
        quorate_tls::use_ring();
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let mounts = Mounts {
            credentials: Some(folder.path().to_owned()),
            volume: folder.path().join("volume"),
        };
        Place::open(store, &mounts).map(|place| place.uri("k"))
    }

    #[test]
    fn each_store_opens_with_its_keys_and_tells_which_is_missing() {
        let s3_keys = [
            ("AWS_ACCESS_KEY_ID", "id\n"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ];
        let azure_keys = [("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")];
        for (store, keys, uri) in [
            (s3(), s3_keys.as_slice(), "s3://b/k"),
            (azure(), azure_keys.as_slice(), "az://c/k"),
        ] {
            assert_eq!(open(&store, keys), Ok(uri.to_owned()));
            let failure = open(&store, &keys[1..]).unwrap_err();
            assert_eq!(failure.reason, Reason::AccessDenied);
            assert!(failure.message.contains(keys[0].0), "{failure}");
        }
        let failure = open(&gcs(), &[]).unwrap_err();
        assert_eq!(failure.reason, Reason::AccessDenied);
        assert!(
            failure.message.contains("service-account.json"),
            "{failure}"
        );
        let [first, second] = s3_keys;
        let failure = open(&s3(), &[first, second, ("ca.crt", "no PEM")]).unwrap_err();
        assert_eq!(failure.reason, Reason::BadRequest);
        assert_eq!(
            open(&Store::default(), &[]).unwrap_err().reason,
            Reason::BadRequest
        );
    }
}
