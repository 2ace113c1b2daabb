//! The steps of a backup, taken one at a time.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quorate_sidecar::wire::{Artifact, DeleteRequest, Store, VerifyMode, VerifyRequest};
use serde_json::json;

use super::backup::{AFTER_FAILURE, LATER, Pass, SOON};
use super::cluster::PassError;
use crate::act::{finalizer, write_status};
use crate::api::{BackupPhase, Conditions, QuorateBackupStatus};
use crate::members::SidecarError;
use crate::model::Refusal;
use crate::schedule::{BackupStep, BackupView};

impl Pass<'_> {
    /// Takes one step and says when to look again.
    pub(super) async fn take(
        &self,
        view: &BackupView,
        step: BackupStep,
    ) -> Result<Duration, PassError> {
        match step {
            BackupStep::Rest => return Ok(LATER),
            BackupStep::Wait(why) => {
                self.write(self.status(), None, &why).await?;
                let begun = view.status.phase != BackupPhase::Pending;
                return Ok(if begun { SOON } else { AFTER_FAILURE });
            }
            BackupStep::Choose {
                member,
                attempt,
                store,
            } => self.choose(member, attempt, store).await?,
            BackupStep::Start { member, request } => {
                let Some(sidecar) = self.sidecar(&member) else {
                    return Ok(SOON);
                };
                let asked = sidecar.begin_backup(&request).await;
                return self.started(self.status(), asked.map(drop)).await;
            }
            BackupStep::Uploaded(artifact) => self.uploaded(*artifact).await?,
            BackupStep::Prove {
                member,
                attempt,
                request,
            } => self.prove(member, attempt, &request).await?,
            BackupStep::Verified(mode) => self.verified(mode).await?,
            BackupStep::Discard {
                member,
                request,
                why,
            } => return self.discard(&member, &request, &why).await,
            BackupStep::Fail(why) => self.fail(self.status(), &why).await?,
            step => return self.let_go(view, step).await,
        }
        Ok(SOON)
    }

    async fn choose(&self, member: String, attempt: i32, store: Store) -> kube::Result<()> {
        let why = going_on("Starting", format!("attempt {attempt} on {member}"));
        let status = QuorateBackupStatus {
            phase: BackupPhase::Pending,
            member: Some(member),
            attempts: attempt,
            store: Some(store),
            started_at: Some(Time(self.now)),
            ..self.status()
        };
        self.write(status, None, &why).await
    }

    async fn uploaded(&self, artifact: Artifact) -> kube::Result<()> {
        let why = going_on("Proving", format!("{} is to be proved", artifact.uri));
        let note = &artifact.uri;
        self.context
            .tell(&self.backup, false, "Uploaded", "Backup", note)
            .await;
        let status = QuorateBackupStatus {
            phase: BackupPhase::Uploaded,
            artifact: Some(artifact),
            attempts: 0,
            ..self.status()
        };
        self.write(status, None, &why).await
    }

    /// The attempt is latched before it is begun, so that attempts have an end.
    async fn prove(
        &self,
        member: String,
        attempt: i32,
        request: &VerifyRequest,
    ) -> kube::Result<()> {
        let why = going_on("Proving", format!("attempt {attempt} on {member}"));
        let sidecar = self.sidecar(&member);
        let status = QuorateBackupStatus {
            member: Some(member),
            attempts: attempt,
            ..self.status()
        };
        self.write(status, None, &why).await?;
        if let Some(sidecar) = sidecar
            && let Err(error) = sidecar.begin_verification(request).await
        {
            tracing::warn!(name = request.name, %error, "a proof was not begun");
        }
        Ok(())
    }

    async fn verified(&self, mode: VerifyMode) -> kube::Result<()> {
        let why = going_on("Verified", format!("proved by {mode:?}"));
        let note = &why.message;
        self.context
            .tell(&self.backup, false, "Verified", "Backup", note)
            .await;
        let status = QuorateBackupStatus {
            phase: BackupPhase::Verified,
            verified_by: Some(mode),
            finished_at: Some(Time(self.now)),
            ..self.status()
        };
        self.write(status, Some(true), &why).await
    }

    async fn discard(
        &self,
        member: &str,
        request: &DeleteRequest,
        why: &Refusal,
    ) -> Result<Duration, PassError> {
        let Some(sidecar) = self.sidecar(member) else {
            return Ok(AFTER_FAILURE);
        };
        if let Err(error) = sidecar.delete(request).await {
            tracing::warn!(key = request.key, %error, "what is damaged was not deleted");
            return Ok(AFTER_FAILURE);
        }
        self.fail(self.status(), why).await?;
        Ok(LATER)
    }

    async fn started(
        &self,
        mut status: QuorateBackupStatus,
        asked: Result<(), SidecarError>,
    ) -> Result<Duration, PassError> {
        match asked {
            Ok(()) => {
                let member = status.member.clone().unwrap_or_default();
                let note = format!("taken of {member}");
                self.context
                    .tell(&self.backup, false, "Started", "Backup", &note)
                    .await;
                status.phase = BackupPhase::Running;
                self.write(status, None, &going_on("Running", note)).await?;
                Ok(SOON)
            }
            Err(SidecarError::Refused { problem, .. }) => {
                let why = Refusal {
                    reason: problem.reason.clone(),
                    message: problem.message.clone(),
                };
                // What cannot be mended by waiting ends it; a busy sidecar is waited for.
                if ["BadRequest", "AccessDenied"].contains(&problem.reason.as_str()) {
                    self.fail(status, &why).await?;
                } else {
                    self.write(status, None, &why).await?;
                }
                Ok(AFTER_FAILURE)
            }
            Err(error) => {
                tracing::warn!(%error, "a backup was not begun");
                Ok(SOON)
            }
        }
    }

    /// The steps of a backup that is deleted.
    async fn let_go(&self, view: &BackupView, step: BackupStep) -> Result<Duration, PassError> {
        match step {
            BackupStep::Stop { member, task } => {
                if let Some(sidecar) = self.sidecar(&member)
                    && let Err(error) = sidecar.cancel_backup(&task).await
                {
                    tracing::warn!(backup = view.name, %error, "it was not stopped");
                    return Ok(AFTER_FAILURE);
                }
                return Ok(SOON);
            }
            BackupStep::Reclaim { member, request } => {
                let Some(sidecar) = self.sidecar(&member) else {
                    return Ok(AFTER_FAILURE);
                };
                if let Err(error) = sidecar.delete(&request).await {
                    let note = error.to_string();
                    self.context
                        .tell(&self.backup, true, "DeletionFailed", "Delete", &note)
                        .await;
                    return Ok(AFTER_FAILURE);
                }
            }
            BackupStep::Release(Some(note)) => {
                self.context
                    .tell(&self.backup, true, "ObjectKept", "Delete", &note)
                    .await;
            }
            _ => {}
        }
        finalizer::let_go(&self.context.client, &self.backup).await?;
        self.context.heard_of(&view.uid);
        Ok(LATER)
    }

    async fn fail(&self, mut status: QuorateBackupStatus, why: &Refusal) -> kube::Result<()> {
        self.context
            .tell(&self.backup, true, &why.reason, "Backup", &why.message)
            .await;
        status.phase = BackupPhase::Failed;
        status.finished_at = Some(Time(self.now));
        self.write(status, Some(false), why).await
    }

    /// Writes the status, if it says anything new.
    async fn write(
        &self,
        mut status: QuorateBackupStatus,
        succeeded: Option<bool>,
        why: &Refusal,
    ) -> kube::Result<()> {
        let old = self.status();
        let now = Time(self.now);
        let mut conditions = Conditions::new(&old.conditions, self.backup.metadata.generation, now);
        conditions.set("Succeeded", succeeded, &why.reason, &why.message);
        status.conditions = conditions.into_vec();
        if status == old {
            return Ok(());
        }
        write_status(&self.context.client, &self.backup, json!(status)).await?;
        Ok(())
    }
}

fn going_on(reason: &str, message: String) -> Refusal {
    Refusal {
        reason: reason.to_owned(),
        message,
    }
}
