//! A watcher that resumes after every lost member sees every change once, in order.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate::model::KeyRange;
use quorate::watch::{Body, WatchSpec};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::sim::PATIENCE;
use crate::sim::cluster::{Cluster, History};

const WATCHERS: usize = 3;
/// How often a watcher looks whether its member still lives.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// What one watcher saw, and the revisions that were compacted before it came to them.
#[derive(Default)]
struct Seen {
    events: History,
    missed: Vec<RangeInclusive<i64>>,
}

/// Watchers of all keys that move between members.
pub struct Watchers {
    tasks: Vec<JoinHandle<Seen>>,
    /// The revision up to which to watch.
    last: watch::Sender<i64>,
}

impl Watchers {
    pub fn start(cluster: &Arc<Cluster>, random: &mut StdRng, end: CancellationToken) -> Self {
        let last = watch::channel(i64::MAX).0;
        let tasks = (0..WATCHERS).map(|_| {
            let watcher = Watcher {
                cluster: Arc::clone(cluster),
                random: StdRng::seed_from_u64(random.random()),
                last: last.subscribe(),
                end: end.clone(),
                next: 1,
                seen: Seen::default(),
            };
            tokio::spawn(watcher.run())
        });
        Self {
            tasks: tasks.collect(),
            last,
        }
    }

    /// Waits until the watchers have seen all of `history` and compares.
    pub async fn check(self, history: &History) {
        let last = history.last().map_or(0, |(revision, _)| *revision);
        self.last.send_replace(last);
        for task in self.tasks {
            let seen = tokio::time::timeout(PATIENCE, task)
                .await
                .expect("the watcher never sees the end")
                .expect("a watcher");
            let missed = |at: &i64| seen.missed.iter().any(|range| range.contains(at));
            let due: Vec<_> = history.iter().filter(|(at, _)| !missed(at)).collect();
            for (seen, happened) in seen.events.iter().zip(&due) {
                assert_eq!(seen, *happened, "the watcher saw something else");
            }
            assert_eq!(seen.events.len(), due.len(), "the watcher missed the end");
        }
    }
}

struct Watcher {
    cluster: Arc<Cluster>,
    random: StdRng,
    last: watch::Receiver<i64>,
    end: CancellationToken,
    next: i64,
    seen: Seen,
}

impl Watcher {
    async fn run(mut self) -> Seen {
        let mut pause = tokio::time::interval(LOOK_EVERY);
        while self.next <= *self.last.borrow() {
            let at = self.random.random_range(0..self.cluster.members.len());
            self.watch(self.cluster.members[at]).await;
            pause.tick().await;
        }
        self.seen
    }

    /// Watches one member until its life ends, or at a whim.
    async fn watch(&mut self, member: u64) {
        let Some((life, replica)) = self.cluster.replica(member) else {
            return;
        };
        let mut stream = replica.hub().subscribe();
        let everything = KeyRange::From(Bytes::from_static(b"\0"));
        stream
            .create(WatchSpec::new(everything, self.next))
            .expect("a watcher");
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let mut delivery = Box::pin(stream.next());
            let delivery = loop {
                tokio::select! {
                    delivery = &mut delivery => break delivery,
                    _ = look.tick() => {
                        let lives = self.cluster.replica(member).map(|(life, _)| life);
                        let whim = !self.end.is_cancelled() && self.random.random_bool(0.02);
                        if whim || lives != Some(life) || self.next > *self.last.borrow() {
                            return;
                        }
                    }
                }
            };
            let Ok(delivery) = delivery else { return };
            match delivery.body {
                Body::Events { events, .. } => {
                    for event in events {
                        assert!(event.revision() >= self.next, "seen twice or out of order");
                        self.seen
                            .events
                            .push((event.revision(), event.event().clone()));
                    }
                    // A delivery holds whole revisions.
                    let newest = self.seen.events.last().map_or(0, |(revision, _)| *revision);
                    self.next = self.next.max(newest + 1);
                }
                Body::Progress => {}
                Body::Compacted(revision) => {
                    assert!(revision >= self.next, "{revision} was seen");
                    self.seen.missed.push(self.next..=revision);
                    self.next = revision + 1;
                    return;
                }
            }
        }
    }
}
