//! What a control plane and its nodes do all the time: place Pods, make volumes, start and end
//! Pods, keep nodes alive.

use super::pod::Worker;
use super::{Shared, claims, node, scheduler};
use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(50);

/// A Pod on its node.
struct Handle {
    node: String,
    tell: watch::Sender<Arc<Pod>>,
    task: AbortHandle,
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut handles = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut renewed = Instant::now();
    loop {
        dispatch(&shared, &mut handles, &mut tasks);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                shared.say(&format!("a Pod's task: {error}"));
            }
        }
        note(&shared, "scheduler", scheduler::pass(&shared).await);
        note(&shared, "volumes", claims::pass(&shared).await);
        if renewed.elapsed() > node::HEARTBEAT {
            renewed = Instant::now();
            let alive = shared.alive.lock().clone();
            for name in alive {
                note(&shared, &name, node::renew(&shared, &name).await);
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

fn note(shared: &Shared, who: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        shared.say(&format!("{who}: {error:#}"));
    }
}

fn dispatch(shared: &Arc<Shared>, handles: &mut BTreeMap<String, Handle>, tasks: &mut JoinSet<()>) {
    let alive = shared.alive.lock().clone();
    let mut seen = BTreeSet::new();
    for pod in shared.pods.state() {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let (Some(uid), Some(node)) = (pod.metadata.uid.clone(), node) else {
            continue;
        };
        if !alive.contains(&node) {
            continue;
        }
        seen.insert(uid.clone());
        if let Some(handle) = handles.get(&uid) {
            handle.tell.send_if_modified(|known| {
                let is_new = known.metadata.resource_version != pod.metadata.resource_version;
                if is_new {
                    *known = pod.clone();
                }
                is_new
            });
            continue;
        }
        let worker = match Worker::new(shared, &pod) {
            Ok(worker) => worker,
            Err(error) => {
                shared.say(&format!("{}: {error:#}", super::Place::of(&pod)));
                continue;
            }
        };
        let (tell, told) = watch::channel(pod);
        let task = tasks.spawn(worker.run(told));
        handles.insert(uid, Handle { node, tell, task });
    }
    handles.retain(|uid, handle| {
        if !alive.contains(&handle.node) {
            // As when the power fails: nothing is ended in peace.
            handle.task.abort();
        }
        seen.contains(uid)
    });
}
