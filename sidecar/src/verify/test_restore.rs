//! A throw-away node that starts from a backup, alone and on sockets that nobody else sees, and is
//! asked for its hash.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use quorate_client::proto::etcdserverpb as pb;
use quorate_client::{Client, ClientConfig};
use quorate_sidecar::wire::Artifact;
use quorate_snapshot::InitialCluster;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::failure::{Failure, Reason};
use crate::member::unavailable;
use crate::restore::Target;

const NAME: &str = "verify";
/// No one dials it: the node is alone.
const PEER_URL: &str = "http://localhost:1";
/// It imports all of the store before it answers.
const START_LIMIT: Duration = Duration::from_secs(600);
const START_PAUSE: Duration = Duration::from_millis(100);
const HASH_LIMIT: Duration = Duration::from_secs(600);
/// How much of a log is told when the node does not start.
const LOG_CHARS_MAX: usize = 400;

/// Restores the file `snapshot` into `folder`, starts a node there and compares its hash.
///
/// # Errors
/// The node does not start, or answers another hash.
pub async fn run(
    quorate: &Path,
    artifact: &Artifact,
    folder: &Path,
    snapshot: &Path,
) -> Result<(), Failure> {
    let cluster = InitialCluster::parse(&format!("{NAME}={PEER_URL}"), NAME);
    let target = Target {
        cluster: cluster.map_err(Failure::snapshot)?,
        name: NAME.to_owned(),
        bump_revision: 0,
    };
    target.unpack(snapshot, &folder.join("data")).await?;
    // The node needs the room.
    let removed = tokio::fs::remove_file(snapshot).await;
    removed.map_err(|error| Failure::disk(snapshot.display(), &error))?;
    let mut node = start(quorate, folder)?;
    let compared = compare(&mut node, artifact, folder).await;
    if let Err(error) = node.kill().await {
        tracing::warn!(%error, "a throw-away node cannot be ended");
    }
    compared
}

fn start(quorate: &Path, folder: &Path) -> Result<Child, Failure> {
    let log = std::fs::File::create(folder.join("log"));
    let log = log.map_err(|error| Failure::disk(folder.display(), &error))?;
    let socket = |name: &str| format!("unix://{}", folder.join(name).display());
    let node = Command::new(quorate)
        .env_clear()
        .arg(format!("--name={NAME}"))
        .arg(format!("--data-dir={}", folder.join("data").display()))
        .arg(format!("--listen-client-urls={}", socket("client.sock")))
        .arg(format!("--advertise-client-urls={}", socket("client.sock")))
        .arg(format!("--listen-peer-urls={}", socket("peer.sock")))
        .arg(format!("--initial-advertise-peer-urls={PEER_URL}"))
        .arg(format!("--initial-cluster={NAME}={PEER_URL}"))
        .arg(format!("--initial-cluster-token={NAME}"))
        .arg("--unsafe-no-fsync")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn();
    node.map_err(|error| Failure::internal(format!("start {}: {error}", quorate.display())))
}

async fn compare(node: &mut Child, artifact: &Artifact, folder: &Path) -> Result<(), Failure> {
    let config = ClientConfig::new([format!("unix://{}", folder.join("client.sock").display())]);
    let client = Client::connect_lazy(config).map_err(unavailable)?;
    let answer = ask(node, &client, artifact.revision, folder).await?;
    let found = (answer.hash, answer.compact_revision);
    let expected = (artifact.hash, artifact.compact_revision);
    if found == expected {
        return Ok(());
    }
    let text = format!(
        "a node that started from it has at revision {} the hash {} compacted to {}, and the \
         manifest says {} compacted to {}",
        artifact.revision, found.0, found.1, expected.0, expected.1
    );
    Err(Failure::new(Reason::HashMismatch, text))
}

/// Asks until the node has started.
async fn ask(
    node: &mut Child,
    client: &Client,
    revision: i64,
    folder: &Path,
) -> Result<pb::HashKvResponse, Failure> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Ok(Some(status)) = node.try_wait() {
            let text = format!(
                "a node that starts from it ends with {status}: {}",
                last(folder)
            );
            return Err(Failure::new(Reason::HashMismatch, text));
        }
        let request = pb::HashKvRequest { revision };
        let mut maintenance = client.maintenance();
        match tokio::time::timeout(HASH_LIMIT, maintenance.hash_kv(request)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) if status.code() == tonic::Code::OutOfRange => {
                let text = format!("a node that started from it says: {}", status.message());
                return Err(Failure::new(Reason::HashMismatch, text));
            }
            Ok(Err(_)) | Err(_) if Instant::now() < deadline => sleep(START_PAUSE).await,
            Ok(Err(_)) | Err(_) => {
                let text = format!(
                    "a node that starts from it does not answer: {}",
                    last(folder)
                );
                return Err(Failure::internal(text));
            }
        }
    }
}

/// The last line of the node's log.
fn last(folder: &Path) -> String {
    let log = std::fs::read(folder.join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let line = log.lines().last().unwrap_or("it said nothing");
    line.chars().take(LOG_CHARS_MAX).collect()
}
