//! One replica works, the others wait.

use anyhow::{Context as _, Result};
use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The name of the Lease, in the operator's namespace.
pub const LEASE: &str = "quorate-operator";

/// The lease, held or waited for.
pub struct Leadership {
    /// Whether this replica holds it. Dropping this gives it back.
    pub held: watch::Receiver<bool>,
    /// Ends when the lease cannot be followed any more, and after `held` is dropped.
    pub keeper: JoinHandle<kube_lease_manager::Result<kube_lease_manager::LeaseManager>>,
}

/// Begins to wait for the lease.
///
/// # Errors
/// The Lease can be neither read nor made.
pub async fn stand(
    client: Client,
    namespace: &str,
    identity: &str,
    seconds: u64,
) -> Result<Leadership> {
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(namespace)
        .with_identity(identity)
        .with_duration(seconds)
        .with_grace((seconds / 3).max(1))
        .build()
        .await
        .with_context(|| format!("the Lease {LEASE} of namespace {namespace}"))?;
    let (held, keeper) = manager.watch().await;
    Ok(Leadership { held, keeper })
}

/// Waits until this replica holds the lease.
///
/// # Errors
/// The lease cannot be followed any more.
pub async fn held(leadership: &mut Leadership) -> Result<()> {
    leadership
        .held
        .wait_for(|held| *held)
        .await
        .map(drop)
        .context("the lease is not followed any more")
}

/// Waits until this replica does not hold the lease any more.
pub async fn lost(held: &mut watch::Receiver<bool>) {
    // A keeper that ended holds nothing either.
    drop(held.wait_for(|held| !*held).await);
}
