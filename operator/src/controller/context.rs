//! What every pass needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use parking_lot::Mutex;

use super::Metrics;
use crate::api::FIELD_MANAGER;
use crate::members::Credentials;
use crate::model::Refusal;
use crate::objects::Settings;
use crate::pki::Timing;

/// After how long it is looked again which optional kinds exist.
const KINDS_TTL: Duration = Duration::from_secs(30);

/// Which kinds exist in the Kubernetes at hand that Kubernetes itself does not bring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// `monitoring.coreos.com/v1` PodMonitor.
    pub pod_monitor: bool,
    /// `monitoring.coreos.com/v1` ServiceMonitor.
    pub service_monitor: bool,
    /// `monitoring.coreos.com/v1` PrometheusRule.
    pub prometheus_rule: bool,
    /// `cert-manager.io/v1` Certificate.
    pub certificate: bool,
}

/// What is remembered of a cluster between passes. Nothing is lost with it: a new process only
/// looks, and perhaps tries, once more.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Why the last action did not succeed.
    pub failure: Option<Refusal>,
    /// When space was last made in the store.
    pub space_freed: Option<Timestamp>,
    /// When the first certificate ends.
    pub certificate_expiry: Option<Timestamp>,
}

/// What every pass needs.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What is told of clusters.
    pub recorder: Recorder,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What Pods are made with.
    pub settings: Settings,
    /// How long certificates take to be everywhere.
    pub timing: Timing,
    run_dir: PathBuf,
    memory: Mutex<BTreeMap<(String, String), Memory>>,
    silences: Mutex<BTreeMap<String, Timestamp>>,
    kinds: Mutex<Option<(Instant, Kinds)>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// Begins with nothing known.
    #[must_use]
    pub fn new(
        client: Client,
        instance: String,
        run_dir: PathBuf,
        settings: Settings,
        timing: Timing,
        metrics: Arc<Metrics>,
    ) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(instance),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            metrics,
            settings,
            timing,
            run_dir,
            memory: Mutex::default(),
            silences: Mutex::default(),
            kinds: Mutex::new(None),
        }
    }

    /// The certificates of a cluster.
    #[must_use]
    pub fn credentials(&self, namespace: &str, cluster: &str) -> Credentials {
        Credentials::new(&self.run_dir, namespace, cluster)
    }

    /// What is remembered of a cluster.
    #[must_use]
    pub fn memory(&self, namespace: &str, cluster: &str) -> Memory {
        let key = (namespace.to_owned(), cluster.to_owned());
        self.memory.lock().get(&key).cloned().unwrap_or_default()
    }

    /// Remembers something of a cluster.
    pub fn remember(&self, namespace: &str, cluster: &str, what: impl FnOnce(&mut Memory)) {
        let key = (namespace.to_owned(), cluster.to_owned());
        what(self.memory.lock().entry(key).or_default());
    }

    /// Since when the sidecar of a backup, by its UID, has not answered; from `now` if this is new.
    #[must_use]
    pub fn silent_since(&self, uid: &str, now: Timestamp) -> Timestamp {
        *self.silences.lock().entry(uid.to_owned()).or_insert(now)
    }

    /// The sidecar of a backup has answered, or the backup is gone.
    pub fn heard_of(&self, uid: &str) {
        self.silences.lock().remove(uid);
    }

    /// Forgets a cluster that is gone, its certificates too.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn forget(&self, namespace: &str, cluster: &str) -> std::io::Result<()> {
        let key = (namespace.to_owned(), cluster.to_owned());
        self.memory.lock().remove(&key);
        self.credentials(namespace, cluster).remove()
    }

    /// Which optional kinds exist; asked anew after a while, because they may come later.
    pub async fn kinds(&self) -> Kinds {
        if let Some((asked, kinds)) = *self.kinds.lock()
            && asked.elapsed() < KINDS_TTL
        {
            return kinds;
        }
        let monitoring = self.kinds_of("monitoring.coreos.com/v1").await;
        let certificates = self.kinds_of("cert-manager.io/v1").await;
        let kinds = Kinds {
            pod_monitor: monitoring.iter().any(|kind| kind == "PodMonitor"),
            service_monitor: monitoring.iter().any(|kind| kind == "ServiceMonitor"),
            prometheus_rule: monitoring.iter().any(|kind| kind == "PrometheusRule"),
            certificate: certificates.iter().any(|kind| kind == "Certificate"),
        };
        *self.kinds.lock() = Some((Instant::now(), kinds));
        kinds
    }

    /// The kinds of a group; none when there is no such group.
    async fn kinds_of(&self, group_version: &str) -> Vec<String> {
        match self.client.list_api_group_resources(group_version).await {
            Ok(list) => list.resources.into_iter().map(|found| found.kind).collect(),
            Err(error) => {
                tracing::debug!(group_version, %error, "no such kinds");
                Vec::new()
            }
        }
    }

    /// Tells something of an object. An Event that cannot be written is logged: it must not stop
    /// the work.
    pub async fn tell<K>(&self, object: &K, warning: bool, reason: &str, action: &str, note: &str)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        let reference = object.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::warn!(%error, reason, "an Event could not be written");
        }
    }
}
