//! Proposals. All that queued while the last entry was on its way becomes one raft entry, one in
//! flight; on a follower it becomes one section on the stream to the leader. Every member answers
//! its own callers from its own apply.
//!
//! Only what certainly never entered a log is put back into the queue; nothing that may have been
//! proposed is proposed again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use quorate_proto::quorate::peer::{ForwardRefusal, ForwardRequest};
use tokio::sync::{Notify, mpsc, oneshot};

use super::pending::Counters;
use super::queue::{Foreign, Notice, Queue, Route, refuse};
use crate::model::Refusal;
use crate::model::kv::{Batch, Section};
use crate::model::limits::{
    BATCH_BYTES_MAX, BATCH_COMMANDS_MAX, FOREIGN_SECTIONS_MAX, FORWARDED_SECTIONS_MAX,
    PROPOSALS_PENDING_MAX,
};
use crate::raft::callers::{Callers, Group, Outcome, Waiting};
use crate::raft::handle::{RaftHandle, WriteEnd};

/// An entry that was taken from the queue.
struct Entry {
    batch: Bytes,
    own: Option<u64>,
    notices: Vec<Notice>,
}

/// See the module. The queue's lock is held to move things in and out of it, never across a call.
pub struct Proposer {
    callers: Arc<Callers>,
    raft: Arc<RaftHandle>,
    pub(super) queue: Mutex<Queue>,
    /// Wakes the pump: there is something to send that nobody else will.
    pub(super) wake: Notify,
    timeout: Duration,
    pub counters: Counters,
}

fn section_of(origin: u64, first_sequence: u64, waiting: &[Waiting]) -> Section {
    Section {
        origin,
        first_sequence,
        commands: waiting.iter().map(|one| one.command.clone()).collect(),
    }
}

impl Proposer {
    /// `first_sequence` lies above every sequence number that this member has ever used.
    pub fn new(
        callers: Arc<Callers>,
        raft: Arc<RaftHandle>,
        first_sequence: u64,
        timeout: Duration,
    ) -> Arc<Self> {
        let proposer = Arc::new(Self {
            callers,
            raft,
            queue: Mutex::new(Queue {
                own: VecDeque::new(),
                foreign: VecDeque::new(),
                route: Route::None,
                next_sequence: first_sequence,
                pause_until: None,
            }),
            wake: Notify::new(),
            timeout,
            counters: Counters::default(),
        });
        let told = Arc::downgrade(&proposer);
        proposer.callers.on_finished(Box::new(move |session| {
            if let Some(proposer) = told.upgrade() {
                proposer.section_finished(session);
            }
        }));
        proposer
    }

    /// Puts a command on its way and returns where its outcome will come. One for the leader only
    /// is refused when another member leads, now or by the time it would leave the queue.
    ///
    /// # Errors
    /// [`Refusal::TooManyRequests`] when too many wait already, and [`Refusal::NotLeader`].
    pub async fn submit(
        self: &Arc<Self>,
        command: Bytes,
        leader_only: bool,
    ) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let (answer, outcome) = oneshot::channel();
        let entry = {
            let mut queue = self.queue.lock();
            if leader_only && !matches!(queue.route, Route::Leader { .. }) {
                return Err(Refusal::NotLeader);
            }
            if queue.own.len() >= PROPOSALS_PENDING_MAX {
                return Err(Refusal::TooManyRequests);
            }
            queue.own.push_back(Waiting {
                command,
                answer,
                leader_only,
            });
            self.dispatch(&mut queue)
        };
        if let Some(entry) = entry {
            self.write(entry).await;
        }
        Ok(outcome)
    }

    /// Takes a section of another member, to be proposed with the next entry.
    pub async fn submit_foreign(
        self: &Arc<Self>,
        section: Section,
        refusals: &mpsc::Sender<ForwardRefusal>,
    ) {
        let bytes = section.commands.iter().map(Bytes::len).sum();
        let foreign = Foreign {
            bytes,
            refusals: refusals.clone(),
            section,
        };
        let entry = {
            let mut queue = self.queue.lock();
            let leads = matches!(queue.route, Route::Leader { .. });
            if !leads || queue.foreign.len() >= FOREIGN_SECTIONS_MAX {
                drop(queue);
                let reason = if leads {
                    "too many requests"
                } else {
                    "not leader"
                };
                refuse(&foreign.notice(), reason);
                return;
            }
            queue.foreign.push_back(foreign);
            self.dispatch(&mut queue)
        };
        if let Some(entry) = entry {
            self.write(entry).await;
        }
    }

    /// Sends what can be sent at once, and returns the entry that the caller must write.
    fn dispatch(&self, queue: &mut Queue) -> Option<Entry> {
        if queue.is_paused() {
            self.wake.notify_one();
            return None;
        }
        match queue.route {
            Route::None | Route::Leader { busy: true } => None,
            Route::Leader { busy: false } => self.take_entry(queue),
            Route::Follower { .. } => {
                while self.forward_section(queue) {}
                None
            }
        }
    }

    /// Makes the next entry of everything that fits, and marks the route busy. Neither this
    /// member's proposals nor those of others can keep the other out.
    fn take_entry(&self, queue: &mut Queue) -> Option<Entry> {
        let share = if queue.foreign.is_empty() { 1 } else { 2 };
        let waiting = queue.take_own(BATCH_BYTES_MAX / share, BATCH_COMMANDS_MAX / share);
        let mut bytes: usize = waiting.iter().map(|one| one.command.len()).sum();
        let mut commands = waiting.len();
        let (mut sections, mut notices) = (Vec::new(), Vec::new());
        let own = (!waiting.is_empty()).then(|| self.enlist(queue, &mut sections, waiting, 0));
        while let Some(next) = queue.foreign.front() {
            bytes += next.bytes;
            commands += next.section.commands.len();
            let full = bytes > BATCH_BYTES_MAX || commands > BATCH_COMMANDS_MAX;
            if full && !notices.is_empty() {
                break;
            }
            let Some(foreign) = queue.foreign.pop_front() else {
                break;
            };
            notices.push(foreign.notice());
            sections.push(foreign.section);
        }
        if sections.is_empty() {
            return None;
        }
        queue.route = Route::Leader { busy: true };
        let batch = Batch { sections }.encode_to_vec().into();
        Some(Entry {
            batch,
            own,
            notices,
        })
    }

    /// Numbers a section of this member and lists its callers.
    fn enlist(
        &self,
        queue: &mut Queue,
        sections: &mut Vec<Section>,
        waiting: Vec<Waiting>,
        session: u64,
    ) -> u64 {
        let first = queue.next_sequence;
        queue.next_sequence += waiting.len() as u64;
        sections.push(section_of(self.callers.origin(), first, &waiting));
        let group = Group {
            waiting,
            until: Instant::now() + self.timeout,
            session,
        };
        self.callers.insert(first, group);
        first
    }

    /// Sends one section to the leader; whether there may be another.
    fn forward_section(&self, queue: &mut Queue) -> bool {
        let Route::Follower {
            session,
            ref stream,
            in_flight,
        } = queue.route
        else {
            return false;
        };
        if in_flight >= FORWARDED_SECTIONS_MAX || queue.own.is_empty() {
            return false;
        }
        let stream = stream.clone();
        let Ok(slot) = stream.try_reserve() else {
            if stream.is_closed() {
                queue.route = Route::None;
            }
            return false;
        };
        let waiting = queue.take_own(BATCH_BYTES_MAX, BATCH_COMMANDS_MAX);
        if waiting.is_empty() {
            return false;
        }
        let mut sections = Vec::with_capacity(1);
        self.enlist(queue, &mut sections, waiting, session);
        if let Route::Follower { in_flight, .. } = &mut queue.route {
            *in_flight += 1;
        }
        let section = sections.pop();
        slot.send(ForwardRequest { section });
        true
    }

    /// Hands an entry to raft. If this is dropped half way, nothing was proposed and the entry's
    /// commands go back into the queue.
    async fn write(self: &Arc<Self>, entry: Entry) {
        let Entry {
            batch,
            own,
            notices,
        } = entry;
        let mut unsent = Unsent {
            proposer: self,
            own,
            armed: true,
        };
        let proposer = Arc::clone(self);
        let done = move |end| proposer.entry_finished(end, own, &notices);
        // Raft that has stopped leaves the outcome open, as a crash does.
        let sent = self.raft.write(batch, done).await;
        unsent.armed = false;
        if sent.is_err() {
            tracing::debug!("a proposal met a raft that has stopped");
        }
    }

    /// The entry in flight is through. Called by the applier or by raft: never blocks.
    fn entry_finished(&self, end: WriteEnd, own: Option<u64>, notices: &[Notice]) {
        let mut queue = self.queue.lock();
        if let Route::Leader { busy } = &mut queue.route {
            *busy = false;
        }
        if end == WriteEnd::NotProposed {
            self.take_back(&mut queue, own);
        }
        let more = !queue.own.is_empty() || !queue.foreign.is_empty();
        drop(queue);
        if end == WriteEnd::NotProposed {
            notices
                .iter()
                .for_each(|notice| refuse(notice, "not leader"));
        }
        if more {
            self.wake.notify_one();
        }
    }

    fn take_back(&self, queue: &mut Queue, own: Option<u64>) {
        let group = own.and_then(|first| self.callers.take(first));
        queue.put_back(group.map_or_else(Vec::new, |group| group.waiting));
        self.wake.notify_one();
    }

    /// A section of this member was answered or given up.
    fn section_finished(&self, of_session: u64) {
        if of_session == 0 {
            return;
        }
        let mut queue = self.queue.lock();
        if let Route::Follower {
            session, in_flight, ..
        } = &mut queue.route
            && *session == of_session
        {
            *in_flight = in_flight.saturating_sub(1);
        }
        while !queue.is_paused() && self.forward_section(&mut queue) {}
    }

    /// The leader says that a section was certainly not proposed.
    pub fn section_refused(&self, refusal: &ForwardRefusal) {
        tracing::debug!(
            reason = refusal.reason,
            "the leader did not propose a section"
        );
        let group = self.callers.take(refusal.first_sequence);
        let Some(group) = group else { return };
        let session = group.session;
        let mut queue = self.queue.lock();
        queue.put_back(group.waiting);
        drop(queue);
        self.section_finished(session);
        self.wake.notify_one();
    }

    /// Everybody who still waits learns that this member stops.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.route = Route::None;
        queue.own.clear();
        queue.foreign.clear();
        drop(queue);
        self.callers.clear();
    }

    /// Sends what queued behind the entry in flight, and forgets callers that gave up. Runs for
    /// as long as the replica does.
    pub async fn pump(self: Arc<Self>) {
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                _ = sweep.tick() => {
                    self.callers.sweep(Instant::now());
                    self.queue.lock().own.retain(|waiting| !waiting.answer.is_closed());
                }
            }
            let paused = self.queue.lock().pause_until;
            if let Some(until) = paused {
                tokio::time::sleep_until(until.into()).await;
            }
            let entry = {
                let mut queue = self.queue.lock();
                queue.pause_until = None;
                self.dispatch(&mut queue)
            };
            if let Some(entry) = entry {
                self.write(entry).await;
            }
        }
    }
}

/// Puts an entry's commands back when the write was given up before raft had it.
struct Unsent<'a> {
    proposer: &'a Proposer,
    own: Option<u64>,
    armed: bool,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        if self.armed {
            let proposer = self.proposer;
            let mut queue = proposer.queue.lock();
            if let Route::Leader { busy } = &mut queue.route {
                *busy = false;
            }
            proposer.take_back(&mut queue, self.own);
        }
    }
}
