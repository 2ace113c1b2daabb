//! The members of a run: their lives, their disks, and what they hold in the end.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate::machine::view::View;
use quorate::model::kv::{Command, CompactionRequest, PutRequest, command};
use quorate::model::member::Member;
use quorate::model::{Event, KeyRange};
use quorate::raft::bootstrap::RaftOptions;
use quorate::replica::{Reconfiguration, Replica, ReplicaConfig};
use quorate::tasks::autocompact::AutoCompaction;
use tempfile::TempDir;
use tokio::time::Instant;

use super::PATIENCE;
use super::network::Network;

pub const CLUSTER_ID: u64 = 0xc1;
/// Events looked at in one slice of history.
const SLICE: usize = 10_000;

/// All changes of a run, in order.
pub type History = Vec<(i64, Event)>;

struct Seat {
    replica: Option<Arc<Replica>>,
    directory: PathBuf,
    lives: u64,
}

/// The members by ID.
pub struct Cluster {
    pub network: Arc<Network>,
    pub members: Vec<u64>,
    seats: Mutex<BTreeMap<u64, Seat>>,
    archive: Mutex<Archive>,
    home: TempDir,
}

/// What happened up to a revision, kept before a compaction may forget it.
#[derive(Default)]
struct Archive {
    events: History,
    last: i64,
}

impl Cluster {
    /// Starts a fresh cluster.
    pub async fn start(members: u64, seed: u64) -> Arc<Self> {
        let home = tempfile::tempdir().expect("a temporary directory");
        let members: Vec<u64> = (1..=members).collect();
        let seat = |member: &u64| {
            let seat = Seat {
                replica: None,
                directory: home.path().join(format!("member-{member}-life-1")),
                lives: 0,
            };
            (*member, seat)
        };
        let cluster = Arc::new(Self {
            network: Network::new(seed),
            seats: Mutex::new(members.iter().map(seat).collect()),
            members,
            archive: Mutex::default(),
            home,
        });
        let starts = cluster.members.iter().map(|m| cluster.boot(*m));
        futures::future::join_all(starts).await;
        cluster.until_serving().await;
        cluster
    }

    /// The running replica of a member, with the number of its life.
    pub fn replica(&self, member: u64) -> Option<(u64, Arc<Replica>)> {
        let seats = self.seats.lock();
        let seat = &seats[&member];
        seat.replica
            .as_ref()
            .map(|replica| (seat.lives, Arc::clone(replica)))
    }

    /// Starts a member on its directory.
    pub async fn boot(&self, member: u64) {
        let directory = self.seats.lock()[&member].directory.clone();
        let wire = self.network.begin_life(member);
        let replica = Replica::start(self.config(member, directory), wire)
            .await
            .unwrap_or_else(|error| panic!("member {member} does not start: {error}"));
        quorate::tasks::spawn_all(&replica);
        self.network.attach(&replica);
        let mut seats = self.seats.lock();
        let seat = seats.get_mut(&member).expect("a member");
        seat.replica = Some(replica);
        seat.lives += 1;
    }

    /// Takes a member down in peace.
    pub async fn stop_member(&self, member: u64) {
        let replica = self.take(member);
        if let Err(error) = replica.stop().await {
            panic!("member {member} does not stop: {error}");
        }
        self.network.end_life(member);
        // A process that ends lets go of all at once; here, a caller may still hold a view.
        let state = Arc::downgrade(&replica.db());
        drop(replica);
        self.until("nobody holds the state any more", || async {
            state.strong_count() == 0
        })
        .await;
    }

    /// Kills a member: it comes back with what its disk held at this moment.
    pub async fn crash(&self, member: u64) {
        let replica = self.take(member);
        // From here on nobody hears of it: what it does later was never done.
        self.network.end_life(member);
        let (from, to) = {
            let mut seats = self.seats.lock();
            let seat = seats.get_mut(&member).expect("a member");
            let name = format!("member-{member}-life-{}", seat.lives + 1);
            let from = std::mem::replace(&mut seat.directory, self.home.path().join(name));
            (from, seat.directory.clone())
        };
        tokio::task::spawn_blocking(move || image(&from, &to))
            .await
            .expect("an image of the disk");
        if let Err(error) = replica.stop().await {
            println!("the remains of member {member}: {error}");
        }
    }

    fn take(&self, member: u64) -> Arc<Replica> {
        let mut seats = self.seats.lock();
        let seat = seats.get_mut(&member).expect("a member");
        seat.replica.take().expect("a running member")
    }

    fn config(&self, member: u64, data_dir: PathBuf) -> ReplicaConfig {
        let members = self.members.iter().map(|id| Member {
            id: *id,
            name: format!("member-{id}"),
            peer_urls: vec![format!("sim://{id}")],
            client_urls: Vec::new(),
            is_learner: false,
        });
        ReplicaConfig {
            raft: RaftOptions {
                member_id: member,
                cluster_id: CLUSTER_ID,
                data_dir,
                members: members.collect(),
                heartbeat_interval: Duration::from_millis(50),
                election_timeout: Duration::from_millis(500),
                snapshot_count: 50,
                snapshot_catchup_entries: 20,
                fsync: true,
                cluster_token: String::new(),
                force_new_cluster: false,
                tally: Arc::default(),
            },
            name: format!("member-{member}"),
            client_urls: vec![format!("sim-client://{member}")],
            max_request_bytes: 1_572_864,
            quota_bytes: None,
            corrupt_check: None,
            compact_hash_check: None,
            auto_compaction: AutoCompaction::Off,
            compaction_slice_records: 100,
            compaction_pause: Duration::from_millis(1),
            reconfiguration: Reconfiguration::default(),
        }
    }

    pub fn heal(&self) {
        self.network.heal();
    }

    /// Waits until every member takes a write and reads it back.
    pub async fn until_serving(&self) {
        for member in &self.members {
            self.until(&format!("member {member} serves"), || async {
                let Some((_, replica)) = self.replica(*member) else {
                    return false;
                };
                let put = PutRequest {
                    key: Bytes::from(format!("probe-{member}")),
                    value: Bytes::from_static(b"probe"),
                    ..PutRequest::default()
                };
                let command = Command {
                    kind: Some(command::Kind::Put(put)),
                };
                replica.propose(command).await.is_ok() && replica.barrier().await.is_ok()
            })
            .await;
        }
    }

    /// Waits until all members have applied the same.
    pub async fn until_equal(&self) {
        self.until("all members have applied the same", || async {
            let applied: Vec<_> = self
                .members
                .iter()
                .map(|member| self.view(*member).applied)
                .collect();
            applied.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await;
    }

    /// Waits until every lease has expired.
    pub async fn until_leases_are_gone(&self) {
        self.until("all leases are gone", || async {
            let leases = |member: &u64| self.view(*member).leases().expect("leases");
            self.members.iter().all(|member| leases(member).is_empty())
        })
        .await;
    }

    async fn until<F: Future<Output = bool>>(&self, what: &str, condition: impl Fn() -> F) {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while !condition().await {
            assert!(Instant::now() < deadline, "in vain: {what}");
            pause.tick().await;
        }
    }

    pub fn view(&self, member: u64) -> Arc<View> {
        self.replica(member).expect("a running member").1.view()
    }

    /// How many members have replaced their state by another member's snapshot since they began.
    pub fn installed_snapshots(&self) -> usize {
        let seats = self.seats.lock();
        let replaced = |seat: &&Seat| {
            let name = std::fs::read_to_string(seat.directory.join("CURRENT"));
            name.expect("the name of the state").trim_end() != "state-1"
        };
        seats.values().filter(replaced).count()
    }

    /// Everything that happened, as the first member has it.
    pub fn history(&self) -> History {
        self.history_of(self.members[0])
    }

    pub fn history_of(&self, member: u64) -> History {
        let archive = self.archive.lock();
        let mut history = archive.events.clone();
        history.extend(read_history(&self.view(member), archive.last));
        history
    }

    /// Compacts half of what this member has and nobody has compacted. What is lost by it goes into
    /// the archive first, so that the run can be judged.
    pub async fn compact(&self, member: u64) {
        let Some((_, replica)) = self.replica(member) else {
            return;
        };
        let view = replica.view();
        let revision = {
            let mut archive = self.archive.lock();
            let revision = (archive.last + view.revision) / 2;
            if revision <= archive.last {
                return;
            }
            let mut lost = read_history(&view, archive.last);
            lost.retain(|(at, _)| *at <= revision);
            archive.events.extend(lost);
            archive.last = revision;
            revision
        };
        let request = CompactionRequest {
            revision,
            ..CompactionRequest::default()
        };
        let command = Command {
            kind: Some(command::Kind::Compaction(request)),
        };
        // Whether it comes to pass or not: the next one goes further.
        if let Err(refusal) = replica.propose(command).await {
            println!("    {refusal}");
        }
    }

    /// Compacts until every member has lost something.
    pub async fn until_compacted(&self) {
        self.until("every member has compacted", || async {
            self.compact(self.members[0]).await;
            let mut members = self.members.iter();
            members.all(|member| self.view(*member).compacted > 0)
        })
        .await;
    }

    /// Keeps a member down until the others have purged what it would need from their logs.
    pub async fn fall_behind(&self, member: u64) {
        let last = self.replica(member).map(|(_, it)| it.raft().standing());
        // Some more entries may come until it is down.
        let last = last.expect("a running member").last_log_index + 50;
        self.stop_member(member).await;
        self.until("the logs of the others are purged", || async {
            let others = self.members.iter().filter(|other| **other != member);
            let mut others = others.filter_map(|other| self.replica(*other));
            others.all(|(_, other)| other.raft().standing().purged_index > last)
        })
        .await;
        self.boot(member).await;
    }

    /// Takes all members down and returns their directories.
    pub async fn stop(&self) -> Vec<PathBuf> {
        for member in &self.members {
            self.stop_member(*member).await;
        }
        let seats = self.seats.lock();
        seats.values().map(|seat| seat.directory.clone()).collect()
    }
}

/// What happened after revision `after`, as `view` has it.
fn read_history(view: &View, after: i64) -> History {
    let everything = KeyRange::From(Bytes::from_static(b"\0"));
    let mut history = Vec::new();
    let mut from = after + 1;
    while from <= view.revision {
        let (events, next) = view.history(from, &everything, SLICE).expect("history");
        assert!(next > from, "history stands still at {from}");
        history.extend(events);
        from = next;
    }
    history
}

/// Copies a data directory as a power cut would leave it. A copy takes time, so the state must not
/// have changed between its copy and that of the log: else the log may have been purged of what
/// the copied state still needs.
fn image(from: &Path, to: &Path) {
    for attempt in 0.. {
        let copied = state_files(from).and_then(|before| {
            copy_state(from, to)?;
            copy(&from.join("log"), &to.join("log"))?;
            Ok(state_files(from)? == before)
        });
        match copied {
            Ok(true) => return,
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                panic!("no image of {}: {e}", from.display())
            }
            // It changed while we looked: look again.
            Ok(false) | Err(_) => {
                assert!(attempt < 1_000, "{} never rests", from.display());
                if to.exists() {
                    std::fs::remove_dir_all(to).expect("an image to begin anew");
                }
            }
        }
    }
}

/// The names, sizes and times of the files that make up the state.
fn state_files(directory: &Path) -> io::Result<Vec<(PathBuf, u64, SystemTime)>> {
    let mut files = Vec::new();
    for item in std::fs::read_dir(directory)? {
        let item = item?;
        let name = item.file_name();
        if item.file_type()?.is_dir() {
            if name.to_string_lossy().starts_with("state-") {
                files.extend(state_files(&item.path())?);
            }
        } else if !name.to_string_lossy().starts_with("LOG") {
            let metadata = item.metadata()?;
            files.push((item.path(), metadata.len(), metadata.modified()?));
        }
    }
    files.sort();
    Ok(files)
}

fn copy_state(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for item in std::fs::read_dir(from)? {
        let item = item?;
        let name = item.file_name();
        let text = name.to_string_lossy();
        if item.file_type()?.is_dir() {
            if text.starts_with("state-") {
                copy(&item.path(), &to.join(&name))?;
            }
        } else if text != "lock" && !text.ends_with(".tmp") {
            std::fs::copy(item.path(), to.join(&name))?;
        }
    }
    Ok(())
}

/// Copies the files of a folder, those that name others first: what they name is still there, or
/// the copy fails and begins anew.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    let mut names: Vec<String> = std::fs::read_dir(from)?
        .map(|item| Ok(item?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()?;
    names.sort_by_key(|name| {
        (
            name != "CURRENT",
            !name.starts_with("MANIFEST"),
            name.clone(),
        )
    });
    for name in names {
        if name != "LOCK" {
            std::fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}
