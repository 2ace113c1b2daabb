//! Linearizable reads: rounds of ReadIndex that callers share. A lone reader starts its round at
//! once; readers that come while a round is on its way wait for the next one, so that an answer
//! always belongs to a round that began after the question. When this member is busy, rounds are
//! paced: the next one starts when everybody who is ready to ask has asked.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::machine::Position;
use crate::machine::view::ViewCell;
use crate::model::Refusal;
use crate::model::limits::{READ_RETRY_MS, READ_ROUND_YIELDS};
use crate::model::tally::Tally;
use crate::raft::handle::{Leadership, NoReadIndex, RaftHandle};

type Answer = Result<Position, Refusal>;

#[derive(Default)]
struct Gate {
    /// Somebody runs a round and looks for who waits afterwards.
    running: bool,
    waiting: Vec<oneshot::Sender<Answer>>,
}

/// See the module. The lock is held to join or leave the queue, never across a round.
pub struct Reads {
    raft: Arc<RaftHandle>,
    view: Arc<ViewCell>,
    leadership: watch::Receiver<Leadership>,
    gate: Mutex<Gate>,
    wake: Notify,
    timeout: Duration,
    tally: Arc<Tally>,
}

impl Reads {
    pub fn new(
        raft: Arc<RaftHandle>,
        view: Arc<ViewCell>,
        leadership: watch::Receiver<Leadership>,
        timeout: Duration,
        tally: Arc<Tally>,
    ) -> Arc<Self> {
        Arc::new(Self {
            raft,
            view,
            leadership,
            gate: Mutex::default(),
            wake: Notify::new(),
            timeout,
            tally,
        })
    }

    /// Returns once this member has applied all that was committed before the call.
    pub async fn barrier(&self) -> Result<(), Refusal> {
        let deadline = Instant::now() + self.timeout;
        let position = self.read_index().await?;
        self.applied(position, deadline).await
    }

    /// The position that a read which begins now must have seen.
    pub async fn read_index(&self) -> Answer {
        let joined = {
            let mut gate = self.gate.lock();
            if gate.running {
                let (sender, receiver) = oneshot::channel();
                gate.waiting.push(sender);
                Some(receiver)
            } else {
                gate.running = true;
                None
            }
        };
        match joined {
            // The pump answers all it takes, save when the replica goes down: those who queued
            // behind its last round are not told.
            Some(receiver) => match tokio::time::timeout(self.timeout, receiver).await {
                Ok(answer) => answer.unwrap_or(Err(Refusal::Stopped)),
                Err(_) => Err(Refusal::Timeout),
            },
            None => {
                let _turn = Turn(self);
                self.round().await
            }
        }
    }

    /// Waits until this member has applied `position`.
    pub async fn applied(&self, position: Position, deadline: Instant) -> Result<(), Refusal> {
        if self.view.load().applied.index >= position.index {
            return Ok(());
        }
        let mut applied = self.view.subscribe();
        let reached = applied.wait_for(|applied| applied.index >= position.index);
        match tokio::time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Refusal::Stopped),
            Err(_) => Err(Refusal::TimeoutWaitAppliedIndex),
        }
    }

    /// Runs rounds for those who queued behind one. Runs for as long as the replica does.
    pub async fn pump(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            loop {
                let waiting = {
                    let mut gate = self.gate.lock();
                    gate.waiting.retain(|sender| !sender.is_closed());
                    if gate.waiting.is_empty() {
                        gate.running = false;
                        break;
                    }
                    std::mem::take(&mut gate.waiting)
                };
                let answer = self.round().await;
                for sender in waiting {
                    // A reader that is gone needs no answer.
                    drop(sender.send(answer.clone()));
                }
                // When this member is busy, those who are about to ask come first and share the
                // next round; when it is not, this takes no time.
                for _ in 0..READ_ROUND_YIELDS {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// One round, counted when it brings nothing.
    async fn round(&self) -> Answer {
        let answer = self.ask_until_answered().await;
        match &answer {
            Err(Refusal::Timeout) => self.tally.read_indexes_slow.add(1),
            Err(Refusal::LeaderChanged) => self.tally.read_indexes_failed.add(1),
            _ => {}
        }
        answer
    }

    /// One round, as etcd does it: asked again while there is no answer, given up when another
    /// leader appears.
    ///
    /// etcd: server/etcdserver/v3_server.go, `requestCurrentIndex`.
    async fn ask_until_answered(&self) -> Answer {
        let deadline = Instant::now() + self.timeout;
        let mut leadership = self.leadership.clone();
        let began_with = *leadership.borrow_and_update();
        loop {
            let retry = (Instant::now() + Duration::from_millis(READ_RETRY_MS)).min(deadline);
            let asked = tokio::time::timeout_at(deadline, self.ask(began_with.leader));
            tokio::select! {
                answer = asked => match answer {
                    Ok(Some(answer)) => return answer,
                    Ok(None) => {}
                    Err(_) => return Err(Refusal::Timeout),
                },
                changed = another_leader(&mut leadership, began_with) => return Err(changed),
            }
            tokio::select! {
                () = tokio::time::sleep_until(retry) => {}
                changed = another_leader(&mut leadership, began_with) => return Err(changed),
            }
            if Instant::now() >= deadline {
                return Err(Refusal::Timeout);
            }
        }
    }

    /// Asks the leader once; none when there is nobody to ask or the answer did not come.
    async fn ask(&self, leader: u64) -> Option<Answer> {
        if leader == self.raft.member_id() {
            return match self.raft.read_index().await {
                Ok(position) => Some(Ok(position)),
                Err(NoReadIndex::Stopped) => Some(Err(Refusal::Stopped)),
                Err(NoReadIndex::NotLeader | NoReadIndex::NoQuorum) => None,
            };
        }
        let peer = self.raft.peer(leader)?;
        match self.raft.transport().read_index(&peer).await {
            Ok(answer) => {
                let position = answer.read_log_id?;
                Some(Ok(Position {
                    term: position.term,
                    index: position.index,
                }))
            }
            Err(error) => {
                tracing::debug!(%error, "no read index from the leader");
                None
            }
        }
    }
}

/// Waits until somebody else leads than at the beginning.
async fn another_leader(
    leadership: &mut watch::Receiver<Leadership>,
    began_with: Leadership,
) -> Refusal {
    let other = |now: &Leadership| now.leader != 0 && *now != began_with;
    match leadership.wait_for(other).await {
        Ok(_) => Refusal::LeaderChanged,
        Err(_) => Refusal::Stopped,
    }
}

/// The turn of the reader that runs a round by itself. When it ends, even half way, the pump sees
/// to those who queued behind it.
struct Turn<'a>(&'a Reads);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut gate = self.0.gate.lock();
        if gate.waiting.is_empty() {
            gate.running = false;
        } else {
            self.0.wake.notify_one();
        }
    }
}
