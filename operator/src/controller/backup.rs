//! One pass over one backup: ask its sidecar, and take the next step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::controller::Action as Next;
use kube::{Api, ResourceExt};
use quorate_sidecar::wire::{BackupState, VerifyState};

use super::cluster::PassError;
use super::{Context, reach};
use crate::act::finalizer;
use crate::api::{
    BackupPhase, FINALIZER, Lifecycle, QuorateBackup, QuorateBackupStatus, QuorateCluster,
    RETIRED_ANNOTATION,
};
use crate::members::{Sidecar, SidecarError};
use crate::objects::Names;
use crate::observe::{self, Objects};
use crate::schedule::{BackupView, Candidate, ClusterFacts, Heard, backup_step, task_name};

/// While something goes on.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// After a pass that failed.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// When nothing is left to be done.
pub(super) const LATER: Duration = Duration::from_secs(3600);

/// One pass.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn reconcile(
    backup: Arc<QuorateBackup>,
    context: Arc<Context>,
) -> Result<Next, PassError> {
    let began = Instant::now();
    let outcome = Box::pin(pass(&backup, &context)).await;
    let word = if outcome.is_ok() { "success" } else { "error" };
    context.metrics.pass("QuorateBackup", word, began.elapsed());
    outcome.map(Next::requeue)
}

/// When a pass that failed is made again.
pub fn after_error(backup: Arc<QuorateBackup>, error: &PassError, _: Arc<Context>) -> Next {
    if error.is_conflict() {
        return Next::requeue(SOON);
    }
    tracing::warn!(
        namespace = backup.namespace().unwrap_or_default(),
        backup = backup.name_any(),
        %error,
        "a pass failed"
    );
    Next::requeue(AFTER_FAILURE)
}

/// What a pass works with.
pub(super) struct Pass<'a> {
    pub(super) context: &'a Context,
    pub(super) backup: QuorateBackup,
    /// The cluster, its objects, and what it tells the planner; None when there is none.
    cluster: Option<(QuorateCluster, Objects, ClusterFacts)>,
    pub(super) now: Timestamp,
}

async fn pass(seen: &QuorateBackup, context: &Context) -> Result<Duration, PassError> {
    let namespace = seen.namespace().unwrap_or_default();
    let backups = Api::<QuorateBackup>::namespaced(context.client.clone(), &namespace);
    let Some(backup) = backups.get_opt(&seen.name_any()).await? else {
        context.heard_of(&seen.uid().unwrap_or_default());
        return Ok(LATER);
    };
    let over = matches!(phase(&backup), BackupPhase::Verified | BackupPhase::Failed);
    let deleting = backup.metadata.deletion_timestamp.is_some();
    if over && !deleting {
        return Ok(LATER);
    }
    if deleting && !backup.finalizers().iter().any(|own| own == FINALIZER) {
        return Ok(LATER);
    }
    let backup = match deleting {
        true => backup,
        false => finalizer::hold(&context.client, backup).await?,
    };
    let now = Timestamp::now();
    let cluster = cluster_of(context, &namespace, &backup.spec.cluster, now).await?;
    let pass = Pass {
        context,
        backup,
        cluster,
        now,
    };
    let view = pass.view().await;
    let facts = pass.cluster.as_ref().map(|(_, _, facts)| facts);
    let step = backup_step(&view, facts);
    pass.take(&view, step).await
}

fn phase(backup: &QuorateBackup) -> BackupPhase {
    backup
        .status
        .as_ref()
        .map(|status| status.phase)
        .unwrap_or_default()
}

async fn cluster_of(
    context: &Context,
    namespace: &str,
    name: &str,
    now: Timestamp,
) -> Result<Option<(QuorateCluster, Objects, ClusterFacts)>, PassError> {
    let clusters = Api::<QuorateCluster>::namespaced(context.client.clone(), namespace);
    let Some(cluster) = clusters.get_opt(name).await? else {
        return Ok(None);
    };
    let names = Names::new(&cluster);
    let objects = observe::objects(&context.client, &cluster).await?;
    let credentials = context.credentials(namespace, name);
    let heard = observe::hear(reach::reaches(&names, &objects, &credentials)).await;
    let leader = heard.leader().map(str::to_owned);
    let nothing = observe::Circumstances::default();
    let observed = observe::assemble(&cluster, &objects, &heard, nothing, now);
    let candidates = observed.voices.iter().map(|(name, voice)| Candidate {
        name: name.clone(),
        healthy: crate::plan::is_healthy(&observed, name),
        leader: leader.as_deref() == Some(name.as_str()),
        learner: voice.learner,
        applied_index: voice.applied_index,
    });
    let settings = cluster.spec.backup.as_ref();
    let deleting = cluster.metadata.deletion_timestamp.is_some();
    let facts = ClusterFacts {
        uid: cluster.uid().unwrap_or_default(),
        running: cluster.spec.lifecycle == Lifecycle::Running && !deleting,
        deleting,
        store: settings.map(|settings| settings.store.clone()),
        verify: settings
            .map(|settings| settings.verify.mode)
            .unwrap_or_default(),
        candidates: candidates.collect(),
    };
    Ok(Some((cluster, objects, facts)))
}

impl Pass<'_> {
    pub(super) fn status(&self) -> QuorateBackupStatus {
        self.backup.status.clone().unwrap_or_default()
    }

    pub(super) fn sidecar(&self, member: &str) -> Option<Sidecar> {
        let (cluster, objects, _) = self.cluster.as_ref()?;
        let names = Names::new(cluster);
        let credentials = self.context.credentials(&names.namespace, &names.cluster);
        reach::sidecar(&names, objects, &credentials, member)
    }

    /// The backup and what its sidecar says of it.
    async fn view(&self) -> BackupView {
        let status = self.status();
        let uid = self.backup.uid().unwrap_or_default();
        let task = task_name(&self.backup.name_any(), &uid, status.attempts);
        let (mut taken, mut proof) = (Heard::Nothing, Heard::Nothing);
        if let Some(member) = status.member.as_deref().filter(|_| status.attempts > 0) {
            let sidecar = self.sidecar(member);
            if status.phase == BackupPhase::Uploaded {
                let ask = async |sidecar: Sidecar| sidecar.verification(&task).await;
                proof = self.hear::<VerifyState>(&uid, sidecar, ask).await;
            } else {
                let ask = async |sidecar: Sidecar| sidecar.backup(&task).await;
                taken = self.hear::<BackupState>(&uid, sidecar, ask).await;
            }
        }
        let created = self.backup.metadata.creation_timestamp.as_ref();
        BackupView {
            now: self.now,
            name: self.backup.name_any(),
            namespace: self.backup.namespace().unwrap_or_default(),
            created: created.map_or(self.now, |time| time.0),
            deleting: self.backup.metadata.deletion_timestamp.is_some(),
            retired: self.backup.annotations().contains_key(RETIRED_ANNOTATION),
            spec: self.backup.spec.clone(),
            task: taken,
            proof,
            status,
            uid,
        }
    }

    async fn hear<T>(
        &self,
        uid: &str,
        sidecar: Option<Sidecar>,
        ask: impl AsyncFnOnce(Sidecar) -> Result<Option<T>, SidecarError>,
    ) -> Heard<T> {
        let Some(sidecar) = sidecar else {
            return Heard::Silence(self.context.silent_since(uid, self.now));
        };
        match ask(sidecar).await {
            Ok(state) => {
                self.context.heard_of(uid);
                state.map_or(Heard::Unknown, Heard::State)
            }
            // A sidecar that refuses to tell is as good as one that does not answer.
            Err(error) => {
                tracing::debug!(%error, "nothing was heard of a task");
                Heard::Silence(self.context.silent_since(uid, self.now))
            }
        }
    }
}
