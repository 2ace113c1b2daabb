//! The life of one Pod on its node, from its volumes to its last container's end.

use super::container::{Container, Surroundings};
use super::launch::Run;
use super::mounts::Mounts;
use super::{Place, Shared, event, status};
use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use rustix::process::Signal;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often processes and objects are looked at.
const TICK: Duration = Duration::from_millis(50);

/// After so long without a volume, an Event says why.
const MOUNT_PATIENCE: Duration = Duration::from_secs(2);

/// One Pod, while its node has it.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    place: Place,
    uid: String,
    directory: PathBuf,
    address: Ipv4Addr,
    name: Option<String>,
    mounts: Option<Mounts>,
    missing_since: Option<Instant>,
    told_missing: Option<String>,
    init: Vec<Container>,
    main: Vec<Container>,
    since: Timestamp,
    reported: Option<PodStatus>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut running = self.shared.running.lock();
        running.retain(|(place, _), inside| *place != self.place || inside.uid != self.uid);
        drop(running);
        if let Err(error) = self.shared.names.remove(&self.uid) {
            self.shared.say(&format!("{}: {error:#}", self.place));
        }
    }
}

impl Worker {
    /// Makes its folder and gives it an address.
    ///
    /// # Errors
    /// When there is no free address.
    pub(super) fn new(shared: &Arc<Shared>, pod: &Pod) -> Result<Self> {
        let place = Place::of(pod);
        let uid = pod.metadata.uid.clone().context("a UID")?;
        let spec = pod.spec.as_ref().context("a spec")?;
        let directory = shared.dir.join("pods").join(&uid);
        std::fs::create_dir_all(&directory)?;
        let address = shared.addresses.next()?;
        let name = spec.subdomain.as_ref().map(|subdomain| {
            let host = spec.hostname.as_ref().unwrap_or(&place.name);
            format!("{host}.{subdomain}.{}.svc", place.namespace)
        });
        let all = |specs: &[Spec]| -> Vec<Container> {
            let made = specs.iter().map(|spec| Container::new(spec, &directory));
            made.collect()
        };
        Ok(Self {
            init: all(spec.init_containers.as_deref().unwrap_or_default()),
            main: all(&spec.containers),
            shared: shared.clone(),
            place,
            uid,
            address,
            name,
            mounts: None,
            missing_since: None,
            told_missing: None,
            since: Timestamp::now(),
            reported: None,
            directory,
        })
    }

    /// Runs it until it is deleted.
    pub(super) async fn run(mut self, mut pods: watch::Receiver<Arc<Pod>>) {
        loop {
            let pod = pods.borrow_and_update().clone();
            if pod.metadata.deletion_timestamp.is_some() {
                self.terminate(&pod).await;
                self.until_deleted(&pod).await;
                return;
            }
            let looked = match self.sync(&pod).await {
                Ok(()) => self.report(&pod).await,
                Err(error) => Err(error),
            };
            if let Err(error) = looked {
                self.shared.say(&format!("{}: {error:#}", self.place));
            }
            tokio::select! {
                changed = pods.changed() => {
                    if changed.is_err() {
                        // Deleted with no grace, or its node is lost: everything dies with it.
                        return;
                    }
                }
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn sync(&mut self, pod: &Pod) -> Result<()> {
        let Some(mut mounts) = self.mounts.take() else {
            return self.mount(pod).await;
        };
        let refreshed = mounts.refresh(&self.shared, &self.place.namespace);
        let synced = self.sync_containers(pod, &mounts);
        self.mounts = Some(mounts);
        refreshed.and(synced)
    }

    async fn mount(&mut self, pod: &Pod) -> Result<()> {
        match Mounts::prepare(&self.shared, pod, &self.directory)? {
            Ok(mounts) => {
                if let Some(name) = &self.name {
                    let names = vec![name.clone(), format!("{name}.cluster.local")];
                    self.shared.names.set(&self.uid, self.address, names)?;
                }
                self.mounts = Some(mounts);
                Ok(())
            }
            Err(missing) => {
                let since = *self.missing_since.get_or_insert_with(Instant::now);
                let is_told = self.told_missing.as_ref() == Some(&missing);
                if since.elapsed() > MOUNT_PATIENCE && !is_told {
                    event::warn(&self.shared, pod, "FailedMount", &missing).await?;
                    self.told_missing = Some(missing);
                }
                Ok(())
            }
        }
    }

    fn sync_containers(&mut self, pod: &Pod, mounts: &Mounts) -> Result<()> {
        let around = Surroundings {
            shared: &self.shared,
            pod,
            mounts,
            address: self.address,
            name: self.name.as_deref(),
        };
        let policy = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref());
        let again = |code: i32| match policy {
            Some("Never") => false,
            Some("OnFailure") => code != 0,
            _ => true,
        };
        for container in self.init.iter_mut().chain(&mut self.main) {
            container.look(&around)?;
        }
        for container in &mut self.init {
            match container.exit_code() {
                Some(0) => continue,
                Some(code) if policy == Some("Never") && code != 0 => {}
                _ => container.begin(&around)?,
            }
            // The next one begins when this one has ended well.
            return self.publish();
        }
        for container in &mut self.main {
            if container.exit_code().is_none_or(again) {
                container.begin(&around)?;
            }
        }
        self.publish()
    }

    /// Lets tests reach what runs.
    fn publish(&self) -> Result<()> {
        let mut running = self.shared.running.lock();
        for container in self.init.iter().chain(&self.main) {
            let key = (self.place.clone(), container.spec.name.clone());
            let Some(room) = container.room() else {
                continue;
            };
            let inside = super::Inside {
                uid: self.uid.clone(),
                room: room.clone(),
                group: container.run().map(|run| run.group),
                address: self.address,
            };
            running.insert(key, inside);
        }
        Ok(())
    }

    async fn report(&mut self, pod: &Pod) -> Result<()> {
        let told = status::Told {
            pod,
            address: self.mounts.as_ref().map(|_| self.address),
            since: self.since,
            init: &self.init,
            main: &self.main,
        };
        let now = told.status();
        if self.reported.as_ref() == Some(&now) {
            return Ok(());
        }
        let patch = serde_json::json!({"metadata": {"uid": self.uid}, "status": now});
        let patched = self
            .api()
            .patch_status(
                &self.place.name,
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await;
        match patched {
            Ok(_) => self.reported = Some(now),
            // Deleted, or another one by that name: the watch will tell.
            Err(kube::Error::Api(error)) if [404, 409].contains(&error.code) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.shared.client.clone(), &self.place.namespace)
    }

    /// Hooks, SIGTERM, and SIGKILL when the grace is over.
    async fn terminate(&mut self, pod: &Pod) {
        let spec = pod.spec.as_ref();
        let usual = spec.and_then(|spec| spec.termination_grace_period_seconds);
        let grace = pod
            .metadata
            .deletion_grace_period_seconds
            .or(usual)
            .unwrap_or(30);
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
        let shared = &self.shared;
        let all = self.init.iter_mut().chain(&mut self.main);
        futures::future::join_all(all.map(|container| stop(shared, container, grace))).await;
        if let Err(error) = self.report(pod).await {
            self.shared.say(&format!("{}: {error:#}", self.place));
        }
    }

    /// Tells the API server that nothing of it is left.
    async fn until_deleted(&self, pod: &Pod) {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        loop {
            match self.api().delete(&self.place.name, &params).await {
                Ok(_) => return,
                Err(kube::Error::Api(error)) if [404, 409].contains(&error.code) => return,
                Err(error) => self.shared.say(&format!("{}: {error:#}", self.place)),
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

async fn stop(shared: &Shared, container: &mut Container, grace: Duration) {
    let deadline = Instant::now() + grace;
    let hook = container
        .spec
        .lifecycle
        .as_ref()
        .and_then(|hooks| hooks.pre_stop.clone());
    let command = hook
        .and_then(|hook| hook.exec)
        .and_then(|exec| exec.command);
    let name = container.spec.name.clone();
    let room = container.room().cloned();
    let Some(run) = container.run_mut() else {
        return;
    };
    if let (Some(command), Some(room)) = (command, room) {
        let hook = room.exec(shared, &command, grace);
        // A hook is over when what it is for is over.
        tokio::select! {
            ran = hook => match ran {
                Ok(output) if output.status.success() => {}
                other => shared.say(&format!("preStop of {name}: {other:?}")),
            },
            ended = run.end() => return note(shared, container, ended),
        }
    }
    run.signal(Signal::TERM);
    let left = deadline.saturating_duration_since(Instant::now());
    let ended = match tokio::time::timeout(left, run.end()).await {
        Ok(ended) => ended,
        Err(_) => kill(run).await,
    };
    note(shared, container, ended);
}

async fn kill(run: &mut Run) -> Result<std::process::ExitStatus> {
    run.kill();
    run.end().await
}

fn note(shared: &Shared, container: &mut Container, ended: Result<std::process::ExitStatus>) {
    match ended {
        Ok(status) => container.ended_with(status),
        Err(error) => shared.say(&format!("{}: {error:#}", container.spec.name)),
    }
}
