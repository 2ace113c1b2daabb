//! What waits to be proposed, and where it goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use quorate_proto::quorate::peer::{ForwardRefusal, ForwardRequest};
use tokio::sync::mpsc;

use super::propose::Proposer;
use crate::model::Refusal;
use crate::model::kv::Section;
use crate::model::limits::PROPOSAL_PAUSE_MS;
use crate::raft::callers::Waiting;

/// Where proposals go.
#[derive(Debug)]
pub enum Route {
    /// No leader is known or reached: proposals wait.
    None,
    /// This member leads; at most one entry is in flight.
    Leader { busy: bool },
    /// Sections go to the leader over this session's stream.
    Follower {
        session: u64,
        stream: mpsc::Sender<ForwardRequest>,
        in_flight: usize,
    },
}

/// A section of another member, which hears of it only when it was not proposed.
pub struct Foreign {
    pub section: Section,
    pub bytes: usize,
    pub refusals: mpsc::Sender<ForwardRefusal>,
}

/// Who is told when an entry with foreign sections was not proposed.
pub struct Notice {
    pub first_sequence: u64,
    pub count: u64,
    pub refusals: mpsc::Sender<ForwardRefusal>,
}

pub struct Queue {
    pub own: VecDeque<Waiting>,
    pub foreign: VecDeque<Foreign>,
    pub route: Route,
    pub next_sequence: u64,
    /// Nothing leaves before this: raft has just said that it will not take it.
    pub pause_until: Option<Instant>,
}

impl Queue {
    /// Takes this member's proposals, one at least and then as many as there is room for, as far
    /// as somebody still waits for them.
    pub fn take_own(&mut self, bytes_max: usize, commands_max: usize) -> Vec<Waiting> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.own.front() {
            let size = next.command.len();
            if next.answer.is_closed() {
                self.own.pop_front();
                continue;
            }
            let full = bytes + size > bytes_max || taken.len() >= commands_max;
            if full && !taken.is_empty() {
                break;
            }
            bytes += size;
            taken.extend(self.own.pop_front());
        }
        taken
    }

    pub fn is_paused(&mut self) -> bool {
        match self.pause_until {
            Some(until) if until > Instant::now() => true,
            Some(_) | None => {
                self.pause_until = None;
                false
            }
        }
    }

    pub fn put_back(&mut self, waiting: Vec<Waiting>) {
        for one in waiting.into_iter().rev() {
            if one.leader_only {
                not_leader(one);
            } else {
                self.own.push_front(one);
            }
        }
        self.pause_until = Some(Instant::now() + Duration::from_millis(PROPOSAL_PAUSE_MS));
    }
}

/// Refuses what only a leader may propose.
pub fn not_leader(waiting: Waiting) {
    // A caller that is gone needs no answer.
    drop(waiting.answer.send(Err(Refusal::NotLeader)));
}

impl Foreign {
    pub fn notice(&self) -> Notice {
        Notice {
            first_sequence: self.section.first_sequence,
            count: self.section.commands.len() as u64,
            refusals: self.refusals.clone(),
        }
    }
}

pub fn refuse(notice: &Notice, reason: &str) {
    let refusal = ForwardRefusal {
        first_sequence: notice.first_sequence,
        count: notice.count,
        reason: reason.into(),
    };
    // A stream that is gone or full hears nothing: its callers time out with an unknown outcome,
    // which is true.
    if let Err(error) = notice.refusals.try_send(refusal) {
        tracing::debug!(%error, "a refusal was not delivered");
    }
}

/// Where proposals go from now on.
impl Proposer {
    /// This member leads from now on.
    pub fn lead(&self) {
        self.queue.lock().route = Route::Leader { busy: false };
        self.wake.notify_one();
    }

    /// Sections go over this stream from now on.
    pub fn follow(&self, session: u64, stream: mpsc::Sender<ForwardRequest>) {
        self.queue.lock().route = Route::Follower {
            session,
            stream,
            in_flight: 0,
        };
        self.wake.notify_one();
    }

    /// There is nowhere to propose to. Sections of other members are told so.
    pub fn wait_for_leader(&self) {
        let foreign = {
            let mut queue = self.queue.lock();
            queue.route = Route::None;
            let own = std::mem::take(&mut queue.own);
            let (leaders, own): (VecDeque<_>, _) = own.into_iter().partition(|one| one.leader_only);
            queue.own = own;
            leaders.into_iter().for_each(not_leader);
            std::mem::take(&mut queue.foreign)
        };
        for section in foreign {
            refuse(&section.notice(), "not leader");
        }
    }
}
