//! Waiting until the names of peers resolve: those of a Pod appear some seconds after it.

use std::time::Duration;

use quorate_sidecar::wire::exit;
use quorate_snapshot::InitialCluster;
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep, timeout};

use super::Stop;
use crate::config::{ClusterState, GateFlags};

const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long one look-up may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Waits for the names that a first start needs: all of a cluster that is formed, one other
/// member's of a cluster that runs. With data, what does not resolve is only told.
pub async fn resolve(
    flags: &GateFlags,
    cluster: &InitialCluster,
    is_first: bool,
) -> Result<(), Stop> {
    let deadline = Instant::now() + flags.resolve_timeout;
    let mut pause = PAUSE_MIN;
    loop {
        let (resolved, missing) = look_up(cluster, &flags.name).await;
        let is_enough = match flags.initial_cluster_state {
            ClusterState::New => missing.is_empty(),
            ClusterState::Existing => resolved > 0 || missing.is_empty(),
        };
        let shown = missing.join(", ");
        if is_enough || !is_first {
            if !missing.is_empty() {
                tracing::warn!(names = shown, "names of peers do not resolve");
            }
            return Ok(());
        }
        if Instant::now() + pause > deadline {
            let limit = flags.resolve_timeout;
            let line = format!("names of peers do not resolve within {limit:?}: {shown}");
            return Err(Stop::new(exit::PEERS_UNRESOLVED, line));
        }
        tracing::info!(names = shown, "waiting for names of peers to resolve");
        sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

/// How many other members' names resolve, and what does not.
async fn look_up(cluster: &InitialCluster, own: &str) -> (usize, Vec<String>) {
    let mut resolved = 0;
    let mut missing = Vec::new();
    for (name, urls) in cluster.iter() {
        for place in urls.iter().filter_map(|url| host_and_port(url)) {
            match timeout(LOOKUP_LIMIT, lookup_host(place)).await {
                Ok(Ok(_)) => resolved += usize::from(name != own),
                Ok(Err(_)) | Err(_) => {
                    let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
                    missing.push(host.to_owned());
                }
            }
        }
    }
    (resolved, missing)
}

fn host_and_port(url: &str) -> Option<&str> {
    let (scheme, place) = url.split_once("://")?;
    scheme
        .starts_with("http")
        .then(|| place.trim_end_matches('/'))
}
