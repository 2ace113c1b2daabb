//! From a data directory to a running raft.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, Raft, SnapshotPolicy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::applier::{Applier, LeaseNews, Published, position};
use super::callers::Callers;
use super::force::force;
use super::handle::RaftHandle;
use super::identity::{DataDirectory, StartError};
use super::import;
use super::log_store::LogStore;
use super::network::Network;
use super::retention::Retention;
use super::state::StateDirectory;
use super::stored;
use super::transport::Transport;
use super::types::Node;
use crate::machine::Machine;
use crate::machine::view::{View, ViewCell};
use crate::model::member::Member;
use crate::model::tally::Tally;
use crate::storage::Db;
use crate::storage::log::{Identity, Options as LogOptions};
use crate::watch::Hub;

/// What raft needs to know.
#[derive(Debug, Clone)]
pub struct RaftOptions {
    pub member_id: u64,
    pub cluster_id: u64,
    pub data_dir: PathBuf,
    /// The members that the cluster starts with; not looked at once it has started. None when
    /// this member joins a cluster that runs.
    pub members: Vec<Member>,
    /// Kept with the data directory at its first start.
    pub cluster_token: String,
    /// Goes on alone, as the one member of the cluster: `--force-new-cluster`.
    pub force_new_cluster: bool,
    pub heartbeat_interval: Duration,
    /// etcd's election timeout: a leader that is silent for so long is replaced.
    pub election_timeout: Duration,
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    /// Off for `--unsafe-no-fsync` only.
    pub fsync: bool,
    /// Where the member counts its work.
    pub tally: Arc<Tally>,
}

/// A running raft and what it publishes.
pub struct Started {
    pub raft: Arc<RaftHandle>,
    pub published: Arc<Published>,
    pub data_directory: DataDirectory,
}

type Hook = Box<dyn Fn(LeaseNews<'_>) + Send + Sync>;

/// The election as openraft counts it. A follower stands after the leader's lease
/// (`election_timeout_max`) and a random time between the two; with E/2 and E a leader is
/// replaced 1.5 to 2 E after its last word, within etcd's E to 2 E.
fn config(options: &RaftOptions) -> Result<Config, StartError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let election_ms = ms(options.election_timeout);
    let config = Config {
        cluster_name: format!("{:x}", options.cluster_id),
        heartbeat_interval: ms(options.heartbeat_interval),
        election_timeout_min: election_ms / 2,
        election_timeout_max: election_ms,
        enable_pre_vote: Some(true),
        // The state is not synced at each apply, so that a leader must be elected anew.
        enable_leader_restore: Some(false),
        max_payload_entries: 4096,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: options.snapshot_catchup_entries,
        replication_lag_threshold: u64::MAX,
        install_snapshot_timeout: ms(SNAPSHOT_TIMEOUT),
        ..Config::default()
    };
    config
        .validate()
        .map_err(|error| StartError::Configuration(error.to_string()))
}

/// A receiver of a snapshot that takes nothing for so long is given up.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(120);

/// Takes the data directory, replays the log and joins or forms the cluster. `lease_news` hears
/// of every change to leases, from the replay on.
///
/// # Errors
/// When the directory is another member's or in use, or a disk fails.
pub async fn start(
    options: &RaftOptions,
    transport: Arc<dyn Transport>,
    lease_news: Hook,
) -> Result<Started, StartError> {
    let mut data_directory =
        DataDirectory::take(&options.data_dir, options.member_id, options.cluster_id)?;
    data_directory.keep_token(&options.cluster_token)?;
    import::run(options)?;
    let directory = StateDirectory::open(&options.data_dir)?;
    let db = Db::open(&directory.current_path()?)?;
    let machine = Machine::load(&db)?;
    let (applied, membership) = stored::load(&db)?;
    let view = Arc::new(View::of(&db));
    lease_news(LeaseNews::Replaced(&view));
    let published = Arc::new(Published {
        hub: Hub::new(&view),
        view: ViewCell::new(View::of(&db)),
        db: ArcSwap::new(db),
        callers: Arc::new(Callers::new(options.member_id)),
        lease_news,
        retention: Arc::new(Retention::new(options.snapshot_count)),
        addresses: Arc::default(),
        removed: CancellationToken::new(),
        fatal: watch::channel(None).0,
        flush_observer: OnceLock::new(),
        tally: Arc::clone(&options.tally),
    });
    // What the disk holds; the replay comes on top of it.
    published.retention.restart(position(applied).index);
    let log_options = LogOptions {
        // Without its votes and entries, a member would forget what it has promised.
        must_exist: applied.is_some() || data_directory.has_log,
        ..log_options(options, &published)
    };
    let log_store = LogStore::open(&options.data_dir.join("log"), log_options)?;
    data_directory.note_log()?;
    let log = Arc::clone(log_store.log());
    if options.force_new_cluster {
        force(&log, applied, &membership, options.member_id).await?;
    }
    let applier = Applier::new(
        machine,
        directory.clone(),
        applied,
        membership,
        Arc::clone(&published),
    );
    let config = Arc::new(config(options)?);
    let addresses = Arc::clone(&published.addresses);
    let network = Network::new(Arc::clone(&transport), addresses);
    let raft = Raft::new(options.member_id, config, network, log_store, applier).await;
    let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
    published.retention.run();
    initialize(&raft, options).await?;
    let handle = RaftHandle::new(
        raft,
        log,
        directory,
        Arc::clone(&published),
        transport,
        options.election_timeout,
    );
    Ok(Started {
        raft: Arc::new(handle),
        published,
        data_directory,
    })
}

/// Whose log it is.
pub fn log_identity(options: &RaftOptions) -> Identity {
    Identity {
        member_id: options.member_id,
        cluster_id: options.cluster_id,
    }
}

fn log_options(options: &RaftOptions, published: &Arc<Published>) -> LogOptions {
    let published = Arc::clone(published);
    let identity = log_identity(options);
    LogOptions {
        fsync: options.fsync,
        identity,
        on_flush: Some(Arc::new(move |flush| {
            if let Some(observer) = published.flush_observer.get() {
                observer(flush);
            }
        })),
        ..LogOptions::default()
    }
}

/// Forms the cluster, when nothing is known of one. Every first member does so with the same
/// members, which openraft allows: they vote for one leader as after any silence.
async fn initialize(
    raft: &Raft<super::types::TypeConfig, Applier>,
    options: &RaftOptions,
) -> Result<(), StartError> {
    let fatal = |error: String| StartError::Raft(error);
    if raft
        .is_initialized()
        .await
        .map_err(|error| fatal(error.to_string()))?
    {
        return Ok(());
    }
    if options.members.is_empty() {
        // Somebody else adds this member; raft waits to hear from its leader.
        return Ok(());
    }
    let members: BTreeMap<u64, Node> = options
        .members
        .iter()
        .map(|member| (member.id, Node::new(member.peer_urls.join(","))))
        .collect();
    match raft.initialize(members).await {
        // Another member's leader may have been faster.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(fatal(error.to_string())),
    }
}
