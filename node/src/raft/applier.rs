//! The state machine as openraft drives it: committed entries go through the machine into one
//! storage batch, are committed once, then published, then answered.
//!
//! Order, which readers rely on: commit → View → hub → lease deadlines → callers.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, type_config::alias};
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::callers::{Callers, Outcome};
use super::counting;
use super::membership::{Addresses, is_removed_by};
use super::retention::Retention;
use super::snapshot::{Builder, Held, SnapshotData};
use super::state::StateDirectory;
use super::stored;
use super::types::{Entry, LogId, StoredMembership, TypeConfig, term_of};
use crate::machine::view::{View, ViewCell};
use crate::machine::{Machine, Position};
use crate::model::kv::{Batch as Commands, Command, Section};
use crate::model::limits::{APPLY_BYTES_MAX, APPLY_COMMANDS_MAX};
use crate::model::tally::Tally;
use crate::model::{EventBatch, LeaseChange};
use crate::storage::log::Flush;
use crate::storage::{Batch, Db, Error};
use crate::watch::Hub;

/// What the keeper of lease deadlines hears from the applier.
pub enum LeaseNews<'a> {
    Changed(&'a [LeaseChange]),
    /// The whole state was replaced.
    Replaced(&'a View),
}

/// Where the applier puts its results, shared with the floors above.
pub struct Published {
    /// The open state store; replaced only when a snapshot is installed.
    pub db: ArcSwap<Db>,
    pub view: Arc<ViewCell>,
    pub hub: Arc<Hub>,
    pub callers: Arc<Callers>,
    pub lease_news: Box<dyn Fn(LeaseNews<'_>) + Send + Sync>,
    pub retention: Arc<Retention>,
    pub addresses: Arc<Addresses>,
    /// Cancelled once this member was removed from the cluster.
    pub removed: CancellationToken,
    /// Set once, to the reason why this node must stop.
    pub fatal: watch::Sender<Option<String>>,
    /// Hears of each sync of the log, in the log's thread.
    pub flush_observer: OnceLock<Box<dyn Fn(Flush) + Send + Sync>>,
    /// What this member counts of its work.
    pub tally: Arc<Tally>,
}

impl Published {
    /// Tells the server that this node must stop, and makes openraft stop.
    pub fn fail(&self, what: &str, error: &dyn std::fmt::Display) -> io::Error {
        let reason = format!("{what}: {error}");
        tracing::error!(reason, "the node stops: its state can no longer be trusted");
        self.fatal.send_replace(Some(reason.clone()));
        io::Error::other(reason)
    }
}

/// The one writer of the state.
pub struct Applier {
    machine: Machine,
    db: Arc<Db>,
    directory: StateDirectory,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// What the disk held when the store was opened.
    found: Meta,
    published: Arc<Published>,
}

/// What one commit takes along.
struct Round {
    batch: Batch,
    events: Vec<Arc<EventBatch>>,
    lease_changes: Vec<LeaseChange>,
    answers: Vec<(u64, Vec<Outcome>)>,
    responders: Vec<ApplyResponder<TypeConfig>>,
    commands: usize,
    bytes: usize,
    last: Option<LogId>,
}

impl Round {
    fn new(db: &Arc<Db>) -> Self {
        Self {
            batch: db.batch(),
            events: Vec::new(),
            lease_changes: Vec::new(),
            answers: Vec::new(),
            responders: Vec::new(),
            commands: 0,
            bytes: 0,
            last: None,
        }
    }

    fn is_full(&self) -> bool {
        self.commands >= APPLY_COMMANDS_MAX || self.bytes >= APPLY_BYTES_MAX
    }
}

/// A log id as the machine knows it.
pub fn position(log_id: Option<LogId>) -> Position {
    log_id.map_or_else(Position::default, |id| Position {
        term: term_of(&id),
        index: id.index(),
    })
}

impl Applier {
    /// An applier over a store that was just opened; `applied` and `membership` are what it holds.
    pub fn new(
        machine: Machine,
        directory: StateDirectory,
        applied: Option<LogId>,
        membership: StoredMembership,
        published: Arc<Published>,
    ) -> Self {
        published.addresses.update(membership.membership());
        Self {
            machine,
            db: published.db.load_full(),
            directory,
            applied,
            found: Meta {
                last_log_id: applied,
                last_membership: membership.clone(),
            },
            membership,
            published,
        }
    }

    fn apply_entry(&mut self, round: &mut Round, entry: &Entry) -> Result<(), Error> {
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(batch) => self.apply_batch(round, &batch.0, entry.log_id)?,
            EntryPayload::Membership(membership) => {
                self.take_membership(StoredMembership::new(
                    Some(entry.log_id),
                    membership.clone(),
                ));
                let encoded = stored::encode_membership(&self.membership);
                round.batch.set_membership(&encoded);
                let members = stored::members_of(membership);
                self.machine.apply_members(&mut round.batch, &members)?;
            }
        }
        round.batch.finish_entry(position(Some(entry.log_id)));
        self.applied = Some(entry.log_id);
        round.last = Some(entry.log_id);
        Ok(())
    }

    fn take_membership(&mut self, now: StoredMembership) {
        let before = std::mem::replace(&mut self.membership, now);
        let (before, now) = (before.membership(), self.membership.membership());
        self.published.addresses.update(now);
        if is_removed_by(self.published.callers.origin(), before, now) {
            self.published.removed.cancel();
        }
    }

    fn apply_batch(&mut self, round: &mut Round, bytes: &Bytes, at: LogId) -> Result<(), Error> {
        let unreadable = |what: &str| Error::Damaged {
            path: "raft log".into(),
            offset: at.index(),
            what: format!("the entry at this index holds a {what}"),
        };
        let batch =
            Commands::decode(bytes.clone()).map_err(|_| unreadable("batch that is not one"))?;
        round.bytes += bytes.len();
        // A crash may have left an entry half applied, with a count of what was done.
        let mut skip = round.batch.progress().next_entry_commands;
        for section in batch.sections {
            let callers = &self.published.callers;
            let awaited =
                section.origin == callers.origin() && callers.is_awaited(section.first_sequence);
            let mut outcomes = Vec::with_capacity(if awaited { section.commands.len() } else { 0 });
            let Section {
                first_sequence,
                commands,
                ..
            } = section;
            for command in commands {
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                let command =
                    Command::decode(command).map_err(|_| unreadable("command that is not one"))?;
                let started = Instant::now();
                let applied = self.machine.apply(&mut round.batch, &command)?;
                if let Some(kind) = &command.kind {
                    let took = started.elapsed();
                    counting::count(&self.published.tally, kind, &applied, took);
                }
                round.commands += 1;
                round.events.extend(applied.events.map(Arc::new));
                round.lease_changes.extend(applied.lease_changes);
                if awaited {
                    outcomes.push(applied.outcome);
                }
            }
            if awaited {
                round.answers.push((first_sequence, outcomes));
            }
        }
        Ok(())
    }

    /// Commits what `round` holds and tells everybody.
    fn finish(&mut self, round: Round) -> Result<(), Error> {
        let Some(last) = round.last else {
            return Ok(());
        };
        let started = Instant::now();
        self.db.commit(round.batch)?;
        self.published.tally.commits.observe(started.elapsed());
        let view = Arc::new(View::of(&self.db));
        let published = &self.published;
        published.view.store(Arc::clone(&view));
        // Also with no events: the hub must see a compaction, and let go of the view before.
        published.hub.publish(&view, round.events);
        if !round.lease_changes.is_empty() {
            (published.lease_news)(LeaseNews::Changed(&round.lease_changes));
        }
        for (first_sequence, outcomes) in round.answers {
            published.callers.complete(first_sequence, outcomes);
        }
        for responder in round.responders {
            responder.send(());
        }
        published.retention.applied(last.index(), round.bytes);
        Ok(())
    }

    fn fatal(&self, what: &str, error: &Error) -> io::Error {
        self.published.fail(what, error)
    }

    /// Swaps the state for the one in a received snapshot.
    async fn install(&mut self, held: Held, meta: &Meta) -> Result<(), Error> {
        let replaced = self.directory.current_path()?;
        let directory = self.directory.clone();
        let (db, machine) = blocking(move || {
            let path = directory.adopt(&held.into_directory())?;
            let db = Db::open(&path)?;
            let machine = Machine::load(&db)?;
            Ok((db, machine))
        })
        .await?;
        let (applied, membership) = stored::load(&db)?;
        if applied != meta.last_log_id {
            return Err(Error::Damaged {
                path: self.directory.current_path()?.display().to_string(),
                offset: 0,
                what: format!("snapshot of {:?} holds {applied:?}", meta.last_log_id),
            });
        }
        self.directory.retire(&self.db, replaced);
        self.db = Arc::clone(&db);
        self.machine = machine;
        self.applied = applied;
        self.take_membership(membership);
        let view = Arc::new(View::of(&self.db));
        self.published.db.store(db);
        self.published.view.store(Arc::clone(&view));
        self.published.hub.reset(&view);
        (self.published.lease_news)(LeaseNews::Replaced(&view));
        self.published.retention.restart(position(applied).index);
        Ok(())
    }
}

type Meta = alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Runs disk work that may take long off the async workers.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Engine(error.to_string())))
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + Send,
    {
        let mut round = Round::new(&self.db);
        while let Some((entry, responder)) = entries.try_next().await? {
            self.apply_entry(&mut round, &entry)
                .map_err(|error| self.fatal("apply", &error))?;
            round.responders.extend(responder);
            if round.is_full() {
                let full = std::mem::replace(&mut round, Round::new(&self.db));
                self.finish(full)
                    .map_err(|error| self.fatal("apply", &error))?;
            }
        }
        self.finish(round)
            .map_err(|error| self.fatal("apply", &error))
    }

    /// In our terms a snapshot is the state made durable: only the log behind it may be purged.
    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder::new(
            Arc::clone(&self.db),
            self.meta(),
            Arc::clone(&self.published),
        )
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: SnapshotData) -> io::Result<()> {
        let SnapshotData::Held(held) = snapshot else {
            return Err(io::Error::other(
                "only a received snapshot can be installed",
            ));
        };
        let started = Instant::now();
        self.published.tally.snapshots_being_applied.set(1);
        let installed = self.install(held, meta).await;
        self.published.tally.snapshots_being_applied.set(0);
        installed.map_err(|error| self.fatal("snapshot", &error))?;
        let took: Duration = started.elapsed();
        tracing::info!(index = ?meta.last_log_id.map(|id| id.index()), ?took, "installed snapshot");
        Ok(())
    }

    /// At start the state as it was found on disk, whatever was replayed since: openraft takes it
    /// for durable and lets the log before it go. Later a checkpoint for a member that fell
    /// behind, made when it is asked for.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        if !self.published.retention.is_running() {
            let found = self.found.last_log_id.map(|_| Snapshot {
                meta: self.found.clone(),
                snapshot: SnapshotData::Flushed,
            });
            return Ok(found);
        }
        if self.applied.is_none() {
            return Ok(None);
        }
        let meta = self.meta();
        let (db, directory) = (Arc::clone(&self.db), self.directory.clone());
        let snapshot = blocking(move || SnapshotData::freeze(&db, &directory))
            .await
            .map_err(|error| self.fatal("checkpoint", &error))?;
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

impl Applier {
    fn meta(&self) -> Meta {
        Meta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        }
    }
}
