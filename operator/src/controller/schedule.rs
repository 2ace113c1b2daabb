//! A cluster's backups: the schedule's next one, those that go, and how they are.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::Context;
use crate::api::{
    BackupPhase, BackupSettings, CLUSTER_LABEL, Lifecycle, QuorateBackup, QuorateBackupSpec,
    QuorateCluster, RETIRED_ANNOTATION, SCHEDULED_LABEL,
};
use crate::schedule::{Kept, next_run, retention, run_name, verify_mode};
use crate::status::BackupFacts;

/// What a pass found out about backups.
#[derive(Debug, Clone, Default)]
pub struct Backups {
    /// For the status.
    pub facts: BackupFacts,
    /// When the schedule wants to be asked again.
    pub look_again: Option<Duration>,
}

/// Makes the backup that is due, deletes those that retention does not keep, and tells how
/// backups are. An `idle` cluster is only told of.
///
/// # Errors
/// The API server refuses or does not answer.
pub async fn keep(
    context: &Context,
    cluster: &QuorateCluster,
    idle: bool,
    now: Timestamp,
) -> kube::Result<Backups> {
    let namespace = cluster.namespace().unwrap_or_default();
    let api = Api::<QuorateBackup>::namespaced(context.client.clone(), &namespace);
    let all = api.list(&ListParams::default()).await?.items;
    let name = cluster.name_any();
    let own: Vec<_> = all
        .into_iter()
        .filter(|backup| backup.spec.cluster == name)
        .collect();
    let status = cluster.status.clone().unwrap_or_default();
    let mut backups = Backups {
        facts: facts(cluster, &own),
        look_again: None,
    };
    let Some(settings) = cluster.spec.backup.as_ref() else {
        return Ok(backups);
    };
    let made = cluster
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(now, |time| time.0);
    let last = status
        .last_scheduled_backup
        .as_ref()
        .map_or(made, |time| time.0);
    let uid = cluster.uid().unwrap_or_default();
    let due = match next_run(settings, &uid, last, now) {
        Ok(due) => due,
        Err(refusal) => {
            backups.facts.refusal = Some(refusal);
            return Ok(backups);
        }
    };
    let wait = |at: Timestamp| Duration::try_from(at - now).unwrap_or_default();
    backups.look_again = due.next.map(wait);
    backups.facts.overdue = due.missed.is_some();
    if idle || cluster.spec.lifecycle != Lifecycle::Running {
        return Ok(backups);
    }
    let began = status.cluster_id.is_some();
    if let Some(run) = due.run.filter(|_| began) {
        make(&api, cluster, settings, run, backups.facts.scheduled).await?;
        backups.facts.last_scheduled = Some(run);
        backups.facts.scheduled += 1;
        backups.look_again = Some(Duration::from_secs(1));
    }
    retire(&api, settings, &own, now).await?;
    Ok(backups)
}

fn facts(cluster: &QuorateCluster, own: &[QuorateBackup]) -> BackupFacts {
    let status = cluster.status.clone().unwrap_or_default();
    let phase = |backup: &&QuorateBackup| backup.status.as_ref().map(|status| status.phase);
    let finished = |backup: &QuorateBackup| {
        let status = backup.status.as_ref()?;
        let time = status.finished_at.as_ref().or(status.started_at.as_ref())?;
        Some(time.0)
    };
    let newest = |wanted: &[BackupPhase]| {
        let whole = own
            .iter()
            .filter(|backup| phase(backup).is_some_and(|is| wanted.contains(&is)));
        whole.filter_map(finished).max()
    };
    let last_over = own
        .iter()
        .filter(|backup| {
            matches!(
                phase(backup),
                Some(BackupPhase::Verified | BackupPhase::Failed)
            )
        })
        .max_by_key(|backup| finished(backup));
    let failure = last_over
        .filter(|backup| phase(backup) == Some(BackupPhase::Failed))
        .map(|backup| {
            let conditions = backup.status.iter().flat_map(|status| &status.conditions);
            let why = conditions
                .into_iter()
                .find(|found| found.type_ == "Succeeded");
            let why = why.map(|found| found.message.clone()).unwrap_or_default();
            format!("{}: {why}", backup.name_any())
        });
    let settings = cluster.spec.backup.as_ref();
    let scheduled = settings.is_some_and(|s| s.schedule.is_some() && !s.suspend);
    let kept = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        time.as_ref().map(|time| time.0)
    };
    BackupFacts {
        scheduled_now: scheduled && cluster.spec.lifecycle == Lifecycle::Running,
        refusal: None,
        failure,
        overdue: false,
        last_scheduled: kept(&status.last_scheduled_backup),
        last: newest(&[BackupPhase::Uploaded, BackupPhase::Verified]).or(kept(&status.last_backup)),
        last_verified: newest(&[BackupPhase::Verified]).or(kept(&status.last_verified_backup)),
        scheduled: status.scheduled_backups,
    }
}

async fn make(
    api: &Api<QuorateBackup>,
    cluster: &QuorateCluster,
    settings: &BackupSettings,
    run: Timestamp,
    made: i64,
) -> kube::Result<()> {
    let name = cluster.name_any();
    let spec = QuorateBackupSpec {
        cluster: name.clone(),
        store: Some(settings.store.clone()),
        verify: Some(verify_mode(settings, made)),
        reclaim: settings.reclaim,
    };
    let mut backup = QuorateBackup::new(&run_name(&name, run), spec);
    backup.metadata.labels = Some(BTreeMap::from([
        (CLUSTER_LABEL.to_owned(), name),
        (SCHEDULED_LABEL.to_owned(), "true".to_owned()),
    ]));
    match api.create(&PostParams::default(), &backup).await {
        // Made by a pass that was interrupted before the run was latched.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// Marks and deletes what retention does not keep: only what the schedule made.
async fn retire(
    api: &Api<QuorateBackup>,
    settings: &BackupSettings,
    own: &[QuorateBackup],
    now: Timestamp,
) -> kube::Result<()> {
    let scheduled = own.iter().filter(|backup| {
        backup.labels().contains_key(SCHEDULED_LABEL) && backup.meta().deletion_timestamp.is_none()
    });
    let kept: Vec<_> = scheduled
        .map(|backup| Kept {
            name: backup.name_any(),
            phase: backup
                .status
                .as_ref()
                .map(|status| status.phase)
                .unwrap_or_default(),
            created: backup
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(now, |time| time.0),
        })
        .collect();
    for name in retention(&kept, &settings.retention, now) {
        let mark = json!({"metadata": {"annotations": {RETIRED_ANNOTATION: "true"}}});
        let marked = api
            .patch(&name, &PatchParams::default(), &Patch::Merge(mark))
            .await;
        let deleted = match marked {
            Ok(_) => api.delete(&name, &DeleteParams::default()).await.map(drop),
            Err(error) => Err(error),
        };
        match deleted {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => other?,
        }
    }
    Ok(())
}
