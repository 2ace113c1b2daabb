//! The tasks that follow who leads: proposals are routed to the leader, lease deadlines run on it,
//! and streams that require a leader learn when there is none.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use quorate_proto::quorate::peer::{ForwardRefusal, ForwardRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Replica;
use super::renew::RenewalsQueue;
use crate::model::limits::{FORWARDED_SECTIONS_MAX, PEER_STALL_MS, PROPOSAL_PAUSE_MS};
use crate::raft::handle::{Leadership, LeadershipWatch};
use crate::raft::transport::Answers;

impl Replica {
    /// Starts the tasks of this member.
    pub(super) fn spawn_all(self: &Arc<Self>, renewals: RenewalsQueue) {
        self.spawn("route", Arc::clone(self).follow_leadership());
        self.spawn("leader", Arc::clone(self).follow_leader());
        self.spawn("propose", Arc::clone(&self.proposer).pump());
        self.spawn("read", Arc::clone(&self.reads).pump());
        self.spawn("renew", Arc::clone(self).forward_renewals(renewals));
        self.spawn("watch", Arc::clone(self).follow_history());
    }

    /// Runs a task until the replica stops. If it ends before that, by a return or a panic, the
    /// node stops: half a member is worse than none.
    pub fn spawn(
        self: &Arc<Self>,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let stopping = self.raft.closing().clone();
        let fatal = self.published.fatal.clone();
        let alarm = Alarm { name, fatal };
        self.tasks.lock().spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => alarm.disarm(),
                () = task => drop(alarm),
            }
        });
    }

    /// As [`Replica::spawn`], for work that may come to its end.
    pub fn spawn_once(
        self: &Arc<Self>,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let task = async move {
            task.await;
            std::future::pending().await
        };
        self.spawn(name, task);
    }

    /// A watcher that cannot read history has met a broken disk.
    async fn follow_history(self: Arc<Self>) {
        let cause = self.hub().failed().await;
        self.fail("watch history", &cause);
        std::future::pending().await
    }

    async fn follow_leadership(self: Arc<Self>) {
        let mut watch = self.raft.watch_leadership();
        let mut sessions = Sessions::new();
        let mut session = 0;
        loop {
            let now = watch.current();
            self.note_leadership(now);
            let here = now.leader == self.member_id();
            if here {
                let extension = self.config.raft.election_timeout;
                self.clock.lead(Instant::now(), extension);
                self.proposer.lead();
            } else {
                self.clock.follow();
                self.proposer.wait_for_leader();
            }
            session += 1;
            let opened = if here || now.leader == 0 {
                None
            } else {
                tokio::select! {
                    going_on = changed_from(&mut watch, now) => match going_on {
                        true => continue,
                        false => return,
                    },
                    opened = self.open_session(now.leader) => match opened {
                        Some(opened) => Some(opened),
                        None => continue,
                    },
                }
            };
            if let Some((stream, refusals)) = opened {
                sessions.push(self.hear_refusals(session, now, refusals).boxed());
                self.proposer.follow(session, stream);
            }
            loop {
                tokio::select! {
                    going_on = changed_from(&mut watch, now) => match going_on {
                        true => break,
                        false => return,
                    },
                    Some(ended) = sessions.next() => if ended == session { break },
                }
            }
        }
    }

    fn note_leadership(&self, now: Leadership) {
        let before = self.leadership.send_replace(now);
        if now.leader != 0 && now.leader != before.leader {
            *self.leader_since.lock() = Some(Instant::now());
            self.leader_changes.fetch_add(1, Ordering::Relaxed);
            let leader = format!("{:016x}", now.leader);
            tracing::info!(leader, now.term, "new leader");
        }
    }

    /// Opens a stream of sections to the leader; none, after a pause, when it cannot be reached.
    async fn open_session(
        &self,
        leader: u64,
    ) -> Option<(mpsc::Sender<ForwardRequest>, Answers<ForwardRefusal>)> {
        let pause = Duration::from_millis(PROPOSAL_PAUSE_MS);
        let Some(peer) = self.raft.peer(leader) else {
            tokio::time::sleep(pause).await;
            return None;
        };
        let (stream, sections) = mpsc::channel(FORWARDED_SECTIONS_MAX);
        let sections = ReceiverStream::new(sections).boxed();
        let call = self.raft.transport().forward(&peer, sections);
        let limit = Duration::from_millis(PEER_STALL_MS);
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(refusals)) => Some((stream, refusals)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot forward to the leader");
                tokio::time::sleep(pause).await;
                None
            }
            Err(_) => None,
        }
    }

    /// Puts back what the leader says it did not propose, until the stream breaks. When another
    /// leads, it is heard out for a while: what it still had must not wait for its time-out.
    async fn hear_refusals(
        self: &Arc<Self>,
        session: u64,
        of: Leadership,
        mut refusals: Answers<ForwardRefusal>,
    ) -> u64 {
        let replica = Arc::clone(self);
        let mut leadership = self.leadership.subscribe();
        let heard_out = async {
            if leadership.wait_for(|now| *now != of).await.is_ok() {
                tokio::time::sleep(HEAR_OUT).await;
            }
        };
        let heard = async {
            while let Some(refusal) = refusals.next().await {
                match refusal {
                    Ok(refusal) => replica.proposer.section_refused(&refusal),
                    Err(error) => {
                        tracing::debug!(%error, "forwarding to the leader broke off");
                        return;
                    }
                }
            }
        };
        tokio::select! {
            () = heard => {}
            () = heard_out => {}
        }
        session
    }

    /// Publishes the leader that works, and ends the node when raft has ended.
    async fn follow_leader(self: Arc<Self>) {
        let slow = self.config.raft.election_timeout / 4;
        let fast = Duration::from_millis(10);
        let mut leadership = self.leadership.subscribe();
        loop {
            let now = self.raft.working_leader();
            self.leader.send_if_modified(|leader| {
                let changed = *leader != now;
                *leader = now;
                changed
            });
            let is_learner = self.raft.is_learner();
            self.is_learner.store(is_learner, Ordering::Relaxed);
            let pause = if now == 0 { fast } else { slow };
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
            if let Some(reason) = self.raft.failure() {
                self.published.fail("raft", &reason);
                return;
            }
        }
    }
}

/// The refusals of this session and of earlier ones; each ends with its number.
type Sessions<'a> = FuturesUnordered<BoxFuture<'a, u64>>;

/// How long a former leader is heard out.
const HEAR_OUT: Duration = Duration::from_secs(2);

/// Waits until another member or another term leads; false when raft has stopped.
async fn changed_from(watch: &mut LeadershipWatch, before: Leadership) -> bool {
    loop {
        if watch.changed().await.is_err() {
            return false;
        }
        if watch.current() != before {
            return true;
        }
    }
}

/// Goes off when a task ends that should not.
struct Alarm {
    name: &'static str,
    fatal: tokio::sync::watch::Sender<Option<String>>,
}

impl Alarm {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let reason = format!("task {} has ended", self.name);
        tracing::error!(reason, "the node stops");
        self.fatal.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(reason);
            first
        });
    }
}
