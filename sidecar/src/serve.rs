//! The running sidecar: its listeners and tasks, until a signal.
//!
//! | task | when it ends before the sidecar is told to stop |
//! |---|---|
//! | a listener | the sidecar stops |
//! | a backup, a verification | it is told as failed, nothing else |
//! | the removal of what a killed sidecar left | it is done |
//! | a connection | it is closed |

use std::path::PathBuf;
use std::sync::Arc;

use quorate_tls::{Guard, GuardOptions, Identity};
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::listen::Listener;
use crate::api::{Sidecar, open_router, router};
use crate::backup::{Journal, Taking};
use crate::config::ServeFlags;
use crate::metrics::Metrics;
use crate::store::hexadecimal;
use crate::tasks::Tasks;
use crate::verify::Proving;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not start, or had to stop.
pub async fn run(flags: ServeFlags) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let stop = CancellationToken::new();
    let sidecar = sidecar(&flags, &stop)?;
    let mut listeners = JoinSet::new();
    let api = Listener::bind(flags.listen, guard(&flags)?).await?;
    listeners.spawn(api.serve(router(Arc::clone(&sidecar)), stop.clone()));
    if let Some(address) = flags.listen_metrics {
        let open = Listener::bind(address, None).await?;
        listeners.spawn(open.serve(open_router(Arc::clone(&sidecar)), stop.clone()));
    }
    let mut cleaning = JoinSet::new();
    cleaning.spawn(clean(Arc::clone(&sidecar), stop.clone()));
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = listeners.join_next() => Err(format!("a listener ended: {ended:?}")),
    };
    tracing::info!("stopping; what is under way is given up");
    stop.cancel();
    sidecar.backups.ended().await;
    sidecar.verifications.ended().await;
    while listeners.join_next().await.is_some() {}
    while cleaning.join_next().await.is_some() {}
    tracing::info!("stopped");
    ended
}

/// Removes what the sidecar before this one left, if it was killed.
async fn clean(sidecar: Arc<Sidecar>, stop: CancellationToken) {
    let taking = &sidecar.taking;
    let cleaning = async { taking.journal.lock().await.clean(&taking.mounts).await };
    tokio::select! {
        () = cleaning => {}
        () = stop.cancelled() => {}
    }
}

fn guard(flags: &ServeFlags) -> Result<Option<Guard>, String> {
    let Some(options) = flags.tls() else {
        tracing::warn!("the API is served over plain HTTP, to everybody who reaches it");
        return Ok(None);
    };
    if options.is_empty() {
        return Err(
            "the API needs --server-cert-file, --server-key-file and --server-ca-file, \
                    or --insecure-http"
                .to_owned(),
        );
    }
    let identity = Identity::load(options).map_err(|error| error.to_string())?;
    let options = GuardOptions {
        side: "client",
        check_addresses: false,
        takes_plaintext: false,
    };
    Ok(Some(Guard::new(Arc::new(identity), options)))
}

/// This sidecar's own folder in the scratch directory, which others may share. Its name is short,
/// since paths of sockets are. What an earlier run unpacked there goes.
fn scratch(flags: &ServeFlags) -> Result<PathBuf, String> {
    let digest = Sha256::digest(&flags.name);
    let folder = flags
        .scratch_dir
        .join(format!("q-{}", &hexadecimal(&digest)[..8]));
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(failed)?;
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(failed)?;
        }
    }
    Ok(folder)
}

fn sidecar(flags: &ServeFlags, stop: &CancellationToken) -> Result<Arc<Sidecar>, String> {
    let scratch = scratch(flags)?;
    let metrics = Metrics::new(flags.data_dir.clone());
    let members = flags.member.members();
    if let Some(tls) = &members.tls {
        tls.check().map_err(|error| error.to_string())?;
    }
    // Loopback only: a proxy of the environment has no part in it, nor have certificates, of which
    // an image need not have any.
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    let http = http.build();
    Ok(Arc::new(Sidecar {
        taking: Arc::new(Taking {
            members,
            mounts: flags.mounts(),
            name: flags.name.clone(),
            metrics: metrics.clone(),
            journal: Mutex::new(Journal::open(&scratch)),
        }),
        proving: Arc::new(Proving {
            mounts: flags.mounts(),
            scratch,
            quorate: flags.quorate_binary.clone(),
            metrics,
        }),
        backups: Tasks::new(stop.clone()),
        verifications: Tasks::new(stop.clone()),
        health_url: flags.health_url.clone(),
        http: http.map_err(|error| error.to_string())?,
    }))
}
