//! Floor 5: one member of the cluster, as its doors and duties see it.
//!
//! It owns the tasks of this member: each has a name, runs until the replica stops, and if it ends
//! before, the node stops.

mod config;
pub mod hash;
pub mod lease_clock;
mod membership;
pub mod peer;
mod pending;
mod promotions;
pub mod propose;
mod queue;
mod quota;
pub mod read;
mod reconfigure;
mod renew;
mod route;
mod stop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::config::{AutoCompaction, ReplicaConfig};
use self::lease_clock::LeaseClock;
use self::pending::{Pending, request_timeout};
use self::promotions::Promotions;
use self::propose::Proposer;
use self::quota::Quota;
use self::read::Reads;
pub use self::reconfigure::Reconfiguration;
use self::renew::Renewals;
use crate::machine::view::View;
use crate::model::Refusal;
use crate::model::kv::{Command, LeaseGrantRequest, Reply, command};
use crate::model::tally::{RequestType, Tally};
use crate::raft::applier::{LeaseNews, Published};
use crate::raft::bootstrap::{self, Started};
use crate::raft::handle::{Leadership, RaftHandle};
use crate::raft::identity::{DataDirectory, StartError};
use crate::raft::transport::Transport;
use crate::storage::Db;
use crate::storage::log::Flush;
use crate::watch::Hub;

/// Where raft stands, for status, metrics and health.
#[derive(Debug, Clone, Default)]
pub struct RaftStatus {
    /// 0 when there is none.
    pub leader: u64,
    pub term: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub is_leader: bool,
    pub is_learner: bool,
    /// How often the leader changed since start.
    pub leader_changes: u64,
    pub proposals_committed: u64,
    pub proposals_applied: u64,
    pub proposals_pending: u64,
    pub proposals_failed: u64,
}

/// This member: proposes, reads, watches.
pub struct Replica {
    config: ReplicaConfig,
    raft: Arc<RaftHandle>,
    published: Arc<Published>,
    proposer: Arc<Proposer>,
    reads: Arc<Reads>,
    clock: Arc<LeaseClock>,
    quota: Quota,
    renewals: Renewals,
    /// Who leads, as far as raft knows.
    leadership: watch::Sender<Leadership>,
    /// Who leads and can do its work; 0 for none.
    leader: watch::Sender<u64>,
    leader_changes: AtomicU64,
    is_learner: AtomicBool,
    /// When the present leader was elected; a lock for the length of a read.
    leader_since: Mutex<Option<Instant>>,
    /// Held while the members are changed: one change at a time.
    changing: tokio::sync::Mutex<()>,
    promotions: Promotions,
    tasks: Mutex<JoinSet<()>>,
    data_directory: Mutex<Option<DataDirectory>>,
}

impl Replica {
    /// Takes the data directory, replays the log and starts this member's tasks. A single member
    /// leads at once; several elect a leader among them.
    ///
    /// # Errors
    /// When the directory is another member's or in use, or a disk fails.
    pub async fn start(
        config: ReplicaConfig,
        transport: Arc<dyn Transport>,
    ) -> Result<Arc<Self>, StartError> {
        let clock = Arc::new(LeaseClock::default());
        let hook = lease_hook(&clock);
        let started = bootstrap::start(&config.raft, transport, hook).await?;
        let Started {
            raft,
            published,
            data_directory,
        } = started;
        let timeout = request_timeout(config.raft.election_timeout);
        // No sequence number of an earlier boot is used again: a replayed section answers nobody.
        let first_sequence = data_directory.boots << SEQUENCE_BITS;
        let callers = Arc::clone(&published.callers);
        let proposer = Proposer::new(callers, Arc::clone(&raft), first_sequence, timeout);
        let (leadership, followed) = watch::channel(Leadership::default());
        let view = Arc::clone(&published.view);
        let tally = Arc::clone(&published.tally);
        let (renewals, renewals_queue) = Renewals::new();
        let replica = Arc::new(Self {
            reads: Reads::new(Arc::clone(&raft), view, followed, timeout, tally),
            quota: Quota::new(config.quota_bytes, &published.db.load())
                .map_err(StartError::from)?,
            config,
            raft,
            published,
            proposer,
            clock,
            renewals,
            leadership,
            leader: watch::channel(0).0,
            leader_changes: AtomicU64::new(0),
            is_learner: AtomicBool::new(false),
            leader_since: Mutex::new(None),
            changing: tokio::sync::Mutex::new(()),
            promotions: Promotions::default(),
            tasks: Mutex::new(JoinSet::new()),
            data_directory: Mutex::new(Some(data_directory)),
        });
        replica.spawn_all(renewals_queue);
        Ok(replica)
    }

    pub fn member_id(&self) -> u64 {
        self.raft.member_id()
    }

    pub fn cluster_id(&self) -> u64 {
        self.config.raft.cluster_id
    }

    pub fn config(&self) -> &ReplicaConfig {
        &self.config
    }

    /// Proposes a command and waits until this member has applied it. Never repeated by itself:
    /// a timeout leaves the outcome unknown and says so.
    pub async fn propose(&self, command: Command) -> Result<Reply, Refusal> {
        let started = Instant::now();
        let kind = command.kind.as_ref().and_then(RequestType::of);
        let outcome = match self.check_quota(&command).await {
            Ok(()) => self.propose_admitted(command).await,
            Err(refusal) => Err(refusal),
        };
        if let Some(kind) = kind {
            self.tally().request(kind, started, outcome.is_ok());
        }
        outcome
    }

    /// As [`Replica::propose`], whatever the store has room for.
    async fn propose_admitted(&self, command: Command) -> Result<Reply, Refusal> {
        let command = self.with_minimum_ttl(command);
        let bytes = command.encode_to_vec();
        if bytes.len() > self.config.max_request_bytes {
            return Err(Refusal::RequestTooLarge);
        }
        let _pending = Pending::enter(&self.proposer.counters)?;
        let start = Instant::now();
        let work = async {
            let outcome = self.proposer.submit(bytes.into(), false).await?;
            // Answers are dropped only when the replica stops.
            outcome.await.unwrap_or(Err(Refusal::Stopped))
        };
        match tokio::time::timeout(self.request_timeout(), work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let counters = &self.proposer.counters;
                counters.failed.fetch_add(1, Ordering::Relaxed);
                Err(self.why_timed_out(start))
            }
        }
    }

    /// A lease lives long enough to be renewed over a change of leader.
    ///
    /// etcd: server/etcdserver/server.go (minTTL), server/lease/lessor.go (Grant).
    fn with_minimum_ttl(&self, mut command: Command) -> Command {
        if let Some(command::Kind::LeaseGrant(LeaseGrantRequest { ttl, .. })) = &mut command.kind {
            let minimum_ms = self.config.raft.election_timeout.as_millis() * 3 / 2;
            let minimum = i64::try_from(minimum_ms.div_ceil(1_000)).unwrap_or(i64::MAX);
            if *ttl > 0 {
                *ttl = (*ttl).max(minimum);
            }
        }
        command
    }

    /// etcd: server/etcdserver/server.go, `parseProposeCtxErr`.
    fn why_timed_out(&self, start: Instant) -> Refusal {
        let elected = *self.leader_since.lock();
        let grace = 2 * self.config.raft.election_timeout;
        if elected.is_some_and(|elected| start < elected && elected - start < grace) {
            return Refusal::TimeoutLeaderFailure;
        }
        let leadership = self.raft.leadership();
        let heard = if leadership.leader == 0 {
            return Refusal::Timeout;
        } else if leadership.leader == self.member_id() {
            self.raft.quorum_acked_ago()
        } else {
            self.raft.heard_ago()
        };
        let connected = heard.is_some_and(|ago| ago < start.elapsed());
        let alone = self.raft.standing().voters.len() == 1;
        if connected || alone {
            Refusal::Timeout
        } else {
            Refusal::TimeoutConnectionLost
        }
    }

    fn request_timeout(&self) -> Duration {
        request_timeout(self.config.raft.election_timeout)
    }

    /// Returns once a read of [`Replica::view`] is linearizable (ReadIndex); callers that wait at
    /// the same time share a round.
    pub async fn barrier(&self) -> Result<(), Refusal> {
        self.reads.barrier().await
    }

    /// The newest state this member has applied.
    pub fn view(&self) -> Arc<View> {
        self.published.view.load()
    }

    /// Publishes the newest state frozen anew, so that nothing that was deleted beside the
    /// applier is held by it any longer.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn renew_view(&self) -> Result<(), crate::storage::Error> {
        let old = self.view();
        if let Some(again) = old.again()? {
            let again = Arc::new(again);
            self.published.view.renew(&old, Arc::clone(&again));
            self.published.hub.renew(&old, &again);
        }
        Ok(())
    }

    /// What this member counts of its work.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.published.tally
    }

    pub fn hub(&self) -> &Arc<Hub> {
        &self.published.hub
    }

    /// The open state store; another one after a snapshot was installed.
    pub fn db(&self) -> Arc<Db> {
        self.published.db.load_full()
    }

    pub fn status(&self) -> RaftStatus {
        let standing = self.raft.standing();
        let counters = &self.proposer.counters;
        RaftStatus {
            leader: self.raft.working_leader(),
            term: standing.term,
            committed_index: standing.committed,
            applied_index: standing.applied,
            is_leader: standing.is_leader,
            is_learner: standing.is_learner,
            leader_changes: self.leader_changes.load(Ordering::Relaxed),
            proposals_committed: standing.committed,
            proposals_applied: standing.applied,
            proposals_pending: counters.pending.load(Ordering::Relaxed),
            proposals_failed: counters.failed.load(Ordering::Relaxed),
        }
    }

    /// The leader that works; 0 for none. Cheap: for every request.
    pub fn leader(&self) -> u64 {
        *self.leader.borrow()
    }

    /// The present term. Cheap: for every request.
    pub fn term(&self) -> u64 {
        self.leadership.borrow().term
    }

    /// Whether this member has no vote. Cheap: for every request.
    pub fn is_learner(&self) -> bool {
        self.is_learner.load(Ordering::Relaxed)
    }

    /// Follows the leader's ID (0 = none), for streams that require one.
    pub fn subscribe_leader(&self) -> watch::Receiver<u64> {
        self.leader.subscribe()
    }

    /// Becomes the reason why this node must stop, once there is one.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.published.fatal.subscribe()
    }

    /// Sets who hears of each sync of the log, in the log's thread; once.
    pub fn observe_flushes(&self, observer: Box<dyn Fn(Flush) + Send + Sync>) {
        let set = self.published.flush_observer.set(observer);
        debug_assert!(set.is_ok(), "one observer, set at start");
    }

    /// How many leases there are, for metrics.
    pub fn lease_count(&self) -> usize {
        self.clock.len()
    }

    /// How promotions of learners ended, for metrics.
    pub fn promotions(&self) -> &Promotions {
        &self.promotions
    }

    pub fn raft(&self) -> &Arc<RaftHandle> {
        &self.raft
    }

    /// As [`Replica::propose`], for duties of the leader: never forwarded, for a leader that was
    /// replaced must not go on in the name of the next.
    pub async fn propose_as_leader(&self, command: Command) -> Result<Reply, Refusal> {
        if !self.leads() {
            return Err(Refusal::NotLeader);
        }
        let work = async {
            let bytes = command.encode_to_vec().into();
            let outcome = self.proposer.submit(bytes, true).await?;
            outcome.await.unwrap_or(Err(Refusal::Stopped))
        };
        let limit = self.request_timeout();
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or(Err(Refusal::Timeout))
    }

    /// Leases whose time is over, the oldest first; none on a follower.
    pub fn expired_leases(&self, now: Instant, count_max: usize) -> Vec<i64> {
        self.clock.expired(now, count_max)
    }

    /// Follows what this member has applied.
    pub fn follow_applied(&self) -> watch::Receiver<crate::machine::Position> {
        self.published.view.subscribe()
    }

    /// Tells the server that this node must stop.
    pub fn fail(&self, what: &str, error: &dyn std::fmt::Display) {
        self.published.fail(what, error);
    }

    /// Whether this member leads and a majority follows it.
    pub fn leads(&self) -> bool {
        self.raft.working_leader() == self.member_id()
    }
}

/// Commands that one boot can propose before sequence numbers meet those of the next.
const SEQUENCE_BITS: u32 = 40;

/// The applier tells the clock directly, so that a granted lease can be renewed as soon as its
/// grant is answered.
fn lease_hook(clock: &Arc<LeaseClock>) -> Box<dyn Fn(LeaseNews<'_>) + Send + Sync> {
    let clock = Arc::clone(clock);
    Box::new(move |news| match news {
        LeaseNews::Changed(changes) => clock.apply(changes, Instant::now()),
        LeaseNews::Replaced(view) => match view.leases() {
            Ok(records) => clock.replace(&records, Instant::now()),
            Err(error) => tracing::error!(%error, "cannot read the leases"),
        },
    })
}
