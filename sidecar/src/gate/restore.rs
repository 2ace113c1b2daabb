//! A new cluster's first member that starts from a backup: its data directory is made here, and
//! the node imports it.
//!
//! The snapshot lies beside the data directory for the while: the volume has room for it, as the
//! store itself will need as much.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use quorate_sidecar::wire::{RestoreRequest, exit};
use quorate_snapshot::InitialCluster;

use super::Stop;
use crate::backup::read_manifest;
use crate::config::GateFlags;
use crate::failure::Failure;
use crate::restore::{Target, fetch};
use crate::store::Place;

/// What the folder of a restore that is under way is called, after the data directory's name.
const SUFFIX: &str = ".restoring";

/// Makes the data directory of the backup.
pub async fn run(
    flags: &GateFlags,
    cluster: InitialCluster,
    request: RestoreRequest,
) -> Result<(), Stop> {
    let restored = restore(flags, cluster, &request).await;
    // Whatever came of it.
    let removed = remove_unfinished(&flags.data_dir);
    if let Err(failure) = restored {
        let key = &request.key;
        let (reason, text) = (failure.reason.word(), failure.message);
        let line = format!("cannot start from the backup {key}: {reason}: {text}");
        return Err(Stop::new(exit::RESTORE_FAILED, line));
    }
    removed
}

async fn restore(
    flags: &GateFlags,
    cluster: InitialCluster,
    request: &RestoreRequest,
) -> Result<(), Failure> {
    let place = Place::open(&request.store, &flags.mounts())?;
    let artifact = read_manifest(&place, &request.key).await?;
    tracing::info!(
        uri = artifact.uri,
        revision = artifact.revision,
        "restoring a backup"
    );
    let folder = folder(&flags.data_dir);
    let made = fs::create_dir_all(&folder);
    made.map_err(|error| Failure::disk(folder.display(), &error))?;
    let file = folder.join("snapshot.db");
    fetch(&place, &artifact, &file).await?;
    let target = Target {
        cluster,
        name: flags.name.clone(),
        bump_revision: flags.restore_bump_revision,
    };
    target.unpack(&file, &flags.data_dir).await?;
    tracing::info!(
        uri = artifact.uri,
        "restored a backup; the member imports it"
    );
    Ok(())
}

fn folder(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// Removes what a restore has left that was killed, or is done.
pub fn remove_unfinished(data_dir: &Path) -> Result<(), Stop> {
    let folder = folder(data_dir);
    let failed = |error: &dyn std::fmt::Display| {
        let line = format!(
            "cannot remove {} of an unfinished restore: {error}",
            folder.display()
        );
        Stop::new(exit::RESTORE_FAILED, line)
    };
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&error)),
        Ok(()) | Err(_) => {}
    }
    quorate_snapshot::remove_unfinished(data_dir).map_err(|error| failed(&error))
}
