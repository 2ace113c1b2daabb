//! From start to end: lease, controllers, signals.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::NamespaceResourceScope;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Config;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Context, Metrics, backup, cluster, http, lease};
use crate::api::{CLUSTER_LABEL, QuorateBackup, QuorateCluster, QuorateMember};
use crate::config::RunArgs;
use crate::objects::Settings;
use crate::pki::Timing;

/// Changes that come within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long running passes may take to end after a signal.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs until a signal, or until the lease is lost: then another replica works, and this process
/// ends to begin anew with nothing remembered.
///
/// # Errors
/// The API server cannot be reached, an address cannot be listened at, or the lease was lost.
pub async fn run(arguments: RunArgs) -> Result<()> {
    let client = Client::try_default()
        .await
        .context("the API server's configuration")?;
    let metrics = Arc::new(Metrics::default());
    let stop = CancellationToken::new();
    let identity = identity(&arguments);
    let server = tokio::spawn(http::serve(arguments.listen, metrics.clone(), stop.clone()));
    let mut leadership = lease::stand(
        client.clone(),
        &arguments.pod_namespace,
        &identity,
        arguments.lease_seconds,
    )
    .await?;
    tracing::info!(identity, "waiting for the lease");
    let mut ended = std::pin::pin!(signalled()?);
    let outcome = tokio::select! {
        () = &mut ended => Ok(()),
        held = lease::held(&mut leadership) => match held {
            Err(error) => Err(error),
            Ok(()) => {
                metrics.lead(true);
                tracing::info!(identity, "leading");
                let context = context(client, &arguments, identity.clone(), metrics.clone());
                let work = work(context, &arguments, stop.clone());
                let mut held = leadership.held.clone();
                let outcome = tokio::select! {
                    () = &mut ended => Ok(()),
                    () = lease::lost(&mut held) => bail!("the lease was lost"),
                    outcome = work => outcome,
                };
                metrics.lead(false);
                outcome
            }
        },
    };
    stop.cancel();
    // Dropping the receiver gives the lease back, so that the next replica need not wait.
    drop(leadership.held);
    let given_back = tokio::time::timeout(SHUTDOWN_TIMEOUT, leadership.keeper).await;
    if !matches!(given_back, Ok(Ok(Ok(_)))) {
        tracing::warn!("the lease was not given back; it will expire");
    }
    server.await.context("the HTTP server")??;
    outcome
}

fn identity(arguments: &RunArgs) -> String {
    match &arguments.pod_name {
        Some(name) => name.clone(),
        None => format!("quorate-operator-{:08x}", rand::random::<u32>()),
    }
}

async fn end_of(mut signal: tokio::signal::unix::Signal) {
    signal.recv().await;
}

fn signalled() -> Result<impl Future<Output = ()>> {
    let (interrupt, terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! {
            () = end_of(interrupt) => {}
            () = end_of(terminate) => {}
        }
    })
}

fn context(
    client: Client,
    arguments: &RunArgs,
    identity: String,
    metrics: Arc<Metrics>,
) -> Arc<Context> {
    let settings = Settings {
        operator_version: env!("CARGO_PKG_VERSION").to_owned(),
        member_image_repository: arguments.member_image.clone(),
        cluster_domain: arguments.cluster_domain.clone(),
        operator_namespace: arguments.pod_namespace.clone(),
    };
    let run_dir = arguments.run_dir.clone();
    let timing = Timing {
        propagation_seconds: arguments.ca_propagation_seconds,
        retirement_seconds: arguments.ca_retirement_seconds,
    };
    Arc::new(Context::new(
        client, identity, run_dir, settings, timing, metrics,
    ))
}

/// Runs the controllers of every namespace that is looked after, until one of them ends.
async fn work(context: Arc<Context>, arguments: &RunArgs, stop: CancellationToken) -> Result<()> {
    let mut controllers = JoinSet::new();
    let namespaces: Vec<Option<String>> = match arguments.watch_namespaces.as_slice() {
        [] => vec![None],
        named => named.iter().cloned().map(Some).collect(),
    };
    for namespace in namespaces {
        let config = Config::default()
            .debounce(DEBOUNCE)
            .concurrency(arguments.concurrency);
        controllers.spawn(clusters(
            context.clone(),
            namespace.clone(),
            config.clone(),
            stop.clone(),
        ));
        controllers.spawn(backups(context.clone(), namespace, config, stop.clone()));
    }
    match controllers.join_next().await {
        Some(ended) => ended.context("a controller")?,
        None => Ok(()),
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The cluster that an object belongs to, by its label.
fn cluster_of<K: ResourceExt>(object: &K) -> Option<ObjectRef<QuorateCluster>> {
    let cluster = object.labels().get(CLUSTER_LABEL)?;
    Some(ObjectRef::new(cluster).within(&object.namespace()?))
}

async fn clusters(
    context: Arc<Context>,
    namespace: Option<String>,
    config: Config,
    stop: CancellationToken,
) -> Result<()> {
    let client = &context.client;
    let within = namespace.as_deref();
    let ours = || watcher::Config::default().labels(CLUSTER_LABEL);
    // Of Secrets only the metadata are watched: what they hold is read when it is needed.
    let secrets = watcher(api::<PartialObjectMeta<Secret>>(client, within), ours())
        .default_backoff()
        .touched_objects();
    Controller::new(
        api::<QuorateCluster>(client, within),
        watcher::Config::default(),
    )
    .with_config(config)
    .owns(api::<QuorateMember>(client, within), ours())
    .owns(api::<Service>(client, within), ours())
    .owns(api::<PodDisruptionBudget>(client, within), ours())
    .owns(api::<NetworkPolicy>(client, within), ours())
    .owns(api::<ConfigMap>(client, within), ours())
    .watches(api::<Pod>(client, within), ours(), |pod| cluster_of(&pod))
    .watches(
        api::<PersistentVolumeClaim>(client, within),
        ours(),
        |claim| cluster_of(&claim),
    )
    .watches(
        api::<QuorateBackup>(client, within),
        watcher::Config::default(),
        |backup: QuorateBackup| {
            let namespace = backup.namespace()?;
            Some(ObjectRef::new(&backup.spec.cluster).within(&namespace))
        },
    )
    .watches_stream(secrets, |secret| cluster_of(&secret))
    .graceful_shutdown_on(async move { stop.cancelled().await })
    .run(cluster::reconcile, cluster::after_error, context.clone())
    .for_each(async |_| ())
    .await;
    Ok(())
}

async fn backups(
    context: Arc<Context>,
    namespace: Option<String>,
    config: Config,
    stop: CancellationToken,
) -> Result<()> {
    let backups = api::<QuorateBackup>(&context.client, namespace.as_deref());
    Controller::new(backups, watcher::Config::default())
        .with_config(config)
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(backup::reconcile, backup::after_error, context.clone())
        .for_each(async |_| ())
        .await;
    Ok(())
}
