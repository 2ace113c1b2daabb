//! Proving backups: by reading them in full, and by starting a throw-away node from them.

mod structure;
mod test_restore;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_sidecar::wire::{Phase, VerifyMode, VerifyRequest, VerifyState};

use crate::backup::read_manifest;
use crate::failure::{Failure, Reason};
use crate::metrics::Metrics;
use crate::restore::fetch;
use crate::store::{Mounts, Place};
use crate::tasks::{Running, State, Tasks};

impl State for VerifyState {
    fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    fn failed(self, failure: Failure) -> Self {
        Self {
            phase: Phase::Failed,
            problem: Some(failure.into()),
        }
    }
}

/// What proving a backup needs.
pub struct Proving {
    pub mounts: Mounts,
    /// Where the snapshot and a restored store lie for the while: two to three times its size.
    pub scratch: PathBuf,
    /// The program of the throw-away node.
    pub quorate: PathBuf,
    pub metrics: Metrics,
}

/// Begins to prove a backup, unless it was asked for before.
///
/// # Errors
/// [`Reason::Busy`] while another one is proved.
pub fn begin(
    tasks: &Tasks<VerifyState>,
    proving: &Arc<Proving>,
    request: VerifyRequest,
) -> Result<VerifyState, Failure> {
    if request.name.is_empty() {
        let text = "a verification has a name";
        return Err(Failure::new(Reason::BadRequest, text));
    }
    let first = VerifyState {
        phase: Phase::Running,
        problem: None,
    };
    let proving = Arc::clone(proving);
    let name = request.name.clone();
    tasks.begin(&name, first, |running| async move {
        proving.run(request, running).await
    })
}

impl Proving {
    async fn run(
        &self,
        request: VerifyRequest,
        running: Running<VerifyState>,
    ) -> Result<VerifyState, Failure> {
        let proved = tokio::select! {
            proved = self.prove(&request) => proved,
            () = running.cancel.cancelled() => {
                Err(Failure::new(Reason::Cancelled, "it was cancelled before it was proved"))
            }
        };
        let (uri, mode) = (&request.artifact.uri, request.mode);
        self.metrics
            .verification_ended(mode, proved.as_ref().map(drop));
        match proved {
            Ok(()) => {
                tracing::info!(uri, ?mode, "proved a backup");
                Ok(VerifyState {
                    phase: Phase::Succeeded,
                    problem: None,
                })
            }
            Err(failure) => {
                let reason = failure.reason.word();
                tracing::warn!(uri, ?mode, reason, %failure, "did not prove a backup");
                Err(failure)
            }
        }
    }

    async fn prove(&self, request: &VerifyRequest) -> Result<(), Failure> {
        let place = Place::open(&request.store, &self.mounts)?;
        let artifact = &request.artifact;
        let manifest = read_manifest(&place, &artifact.key).await?;
        if manifest != *artifact {
            let text = format!(
                "the manifest of {} says something else than is expected",
                place.uri(&artifact.key)
            );
            return Err(Failure::new(Reason::HashMismatch, text));
        }
        let folder = scratch(&self.scratch)?;
        let snapshot = folder.path().join("snapshot.db");
        fetch(&place, artifact, &snapshot).await?;
        structure::check(&snapshot, artifact).await?;
        match request.mode {
            VerifyMode::Hash => Ok(()),
            VerifyMode::TestRestore => {
                test_restore::run(&self.quorate, artifact, folder.path(), &snapshot).await
            }
        }
    }
}

/// A folder for the while, which goes with what it holds.
fn scratch(parent: &Path) -> Result<tempfile::TempDir, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("verify-")
        .tempdir_in(parent);
    folder.map_err(|error| Failure::disk(parent.display(), &error))
}
