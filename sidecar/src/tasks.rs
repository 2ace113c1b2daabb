//! Tasks by name: asked for twice, they run once. One of a kind runs at a time; the last ones are
//! remembered for whoever asks.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::{Failure, Reason};

/// Tasks that are remembered.
const TASKS_MAX: usize = 64;

/// What a task tells of itself.
pub trait State: Clone + Send + Sync + 'static {
    /// Whether it goes on.
    fn is_running(&self) -> bool;
    /// The state of a task that failed.
    fn failed(self, failure: Failure) -> Self;
}

/// All tasks of one kind.
pub struct Tasks<S> {
    /// The newest last. For the length of a look.
    known: Mutex<VecDeque<Known<S>>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

struct Known<S> {
    name: String,
    state: watch::Receiver<S>,
    cancel: CancellationToken,
}

/// A task's own side.
pub struct Running<S> {
    state: Arc<watch::Sender<S>>,
    /// It is to end soon, and leave nothing.
    pub cancel: CancellationToken,
}

impl<S: State> Running<S> {
    /// Changes what is told of the task.
    pub fn update(&self, change: impl FnOnce(&mut S)) {
        self.state.send_modify(change);
    }
}

impl<S: State> Tasks<S> {
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            known: Mutex::default(),
            tracker: TaskTracker::new(),
            stop,
        }
    }

    /// Begins the task `name`, unless it is known already; its state.
    ///
    /// # Errors
    /// [`Reason::Busy`] while another one runs.
    pub fn begin<F>(
        &self,
        name: &str,
        first: S,
        work: impl FnOnce(Running<S>) -> F,
    ) -> Result<S, Failure>
    where
        F: Future<Output = Result<S, Failure>> + Send + 'static,
    {
        let mut known = self.known.lock();
        if let Some(same) = known.iter().find(|task| task.name == name) {
            return Ok(same.state.borrow().clone());
        }
        if let Some(other) = known.iter().find(|task| task.state.borrow().is_running()) {
            let text = format!("{} is under way; one runs at a time", other.name);
            return Err(Failure::new(Reason::Busy, text));
        }
        if self.stop.is_cancelled() {
            let text = "the sidecar is stopping; ask again once it has started";
            return Err(Failure::new(Reason::Busy, text));
        }
        let (sender, state) = watch::channel(first.clone());
        let sender = Arc::new(sender);
        let cancel = self.stop.child_token();
        let running = Running {
            state: Arc::clone(&sender),
            cancel: cancel.clone(),
        };
        let work = AssertUnwindSafe(work(running)).catch_unwind();
        self.tracker.spawn(async move {
            let ended = work.await;
            let ended = ended.unwrap_or_else(|_| Err(Failure::internal("the task broke")));
            sender.send_modify(|state| match ended {
                Ok(done) => *state = done,
                Err(failure) => *state = state.clone().failed(failure),
            });
        });
        if known.len() == TASKS_MAX {
            known.pop_front();
        }
        known.push_back(Known {
            name: name.to_owned(),
            state,
            cancel,
        });
        Ok(first)
    }

    /// What is known of a task.
    ///
    /// # Errors
    /// [`Reason::NotFound`] when nothing is, as after a restart.
    pub fn get(&self, name: &str) -> Result<S, Failure> {
        Ok(self.find(name)?.0.borrow().clone())
    }

    fn find(&self, name: &str) -> Result<(watch::Receiver<S>, CancellationToken), Failure> {
        let known = self.known.lock();
        let task = known.iter().find(|task| task.name == name);
        let task = task.map(|task| (task.state.clone(), task.cancel.clone()));
        task.ok_or_else(|| {
            let text = format!("no task {name} is known here since this sidecar was started");
            Failure::new(Reason::NotFound, text)
        })
    }

    /// Ends a task, if it runs still, and waits until it is over.
    ///
    /// # Errors
    /// [`Reason::NotFound`].
    pub async fn cancel(&self, name: &str) -> Result<(), Failure> {
        let (mut state, cancel) = self.find(name)?;
        cancel.cancel();
        // Without a sender it is over too.
        let ended = state.wait_for(|state| !state.is_running()).await;
        ended
            .map(drop)
            .map_err(|_| Failure::internal("the task is gone"))
    }

    /// Waits for the end of all tasks, once they were told to stop.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Told {
        Running,
        Done,
        Failed(Reason),
    }

    impl State for Told {
        fn is_running(&self) -> bool {
            *self == Self::Running
        }

        fn failed(self, failure: Failure) -> Self {
            Self::Failed(failure.reason)
        }
    }

    async fn until_cancelled(running: Running<Told>) -> Result<Told, Failure> {
        running.cancel.cancelled().await;
        Err(Failure::new(Reason::Cancelled, "it was cancelled"))
    }

    #[tokio::test]
    async fn one_runs_at_a_time_and_asking_twice_is_as_once() {
        let tasks = Tasks::new(CancellationToken::new());
        let begin = |name| tasks.begin(name, Told::Running, until_cancelled);
        assert_eq!(begin("a"), Ok(Told::Running));
        assert_eq!(begin("a"), Ok(Told::Running));
        assert_eq!(begin("b").unwrap_err().reason, Reason::Busy);
        assert_eq!(tasks.get("b").unwrap_err().reason, Reason::NotFound);
        tasks.cancel("a").await.unwrap();
        assert_eq!(begin("a"), Ok(Told::Failed(Reason::Cancelled)));
        let done = tasks.begin("b", Told::Running, |_| async { Ok(Told::Done) });
        assert_eq!(done, Ok(Told::Running));
        tasks.cancel("b").await.unwrap();
        assert_eq!(tasks.get("b"), Ok(Told::Done));
    }

    #[tokio::test]
    async fn a_stop_ends_what_runs_and_what_breaks_has_failed() {
        let stop = CancellationToken::new();
        let tasks = Tasks::new(stop.clone());
        let broken = tasks.begin("x", Told::Running, |_| async { panic!("on purpose") });
        assert_eq!(broken, Ok(Told::Running));
        tasks.cancel("x").await.unwrap();
        assert_eq!(tasks.get("x"), Ok(Told::Failed(Reason::Internal)));
        tasks.begin("y", Told::Running, until_cancelled).unwrap();
        stop.cancel();
        tasks.ended().await;
        assert_eq!(tasks.get("y"), Ok(Told::Failed(Reason::Cancelled)));
        let late = tasks.begin("z", Told::Running, until_cancelled);
        assert_eq!(late.unwrap_err().reason, Reason::Busy);
    }
}
