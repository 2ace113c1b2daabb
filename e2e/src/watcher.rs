//! Watchers that resume on another member when their stream breaks, and remember what they got.

use crate::history::{WatchAnswer, Watched, WatchedStream};
use crate::rpc;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::Event;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic::transport::Channel;

/// How often a watcher asks how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How long a watcher may take to be told of everything once the faults are over.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(60);

/// A watcher in a task of its own.
#[derive(Debug)]
pub struct Watcher {
    /// Up to which revision it has to come before it ends; 0 while it goes on.
    through: watch::Sender<i64>,
    task: JoinHandle<Result<Watched>>,
}

impl Watcher {
    /// Starts a watcher of a range from revision 1 on; it goes through `ports` in turn.
    pub fn start(name: &str, ports: Vec<u16>, key: &str, range_end: &str) -> Self {
        let (through, receiver) = watch::channel(0);
        let watched = Watched {
            name: name.to_owned(),
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
            prev_kv: true,
            streams: Vec::new(),
        };
        let task = tokio::spawn(run(watched, ports, receiver));
        Self { through, task }
    }

    /// Waits until it was told everything up to `through`, and returns what it was told.
    ///
    /// # Errors
    /// When it does not come that far in time.
    pub async fn finish(self, through: i64) -> Result<Watched> {
        self.through.send(through)?;
        tokio::time::timeout(CATCH_UP_DEADLINE, self.task)
            .await
            .context("a watcher does not catch up")??
    }
}

async fn run(
    mut watched: Watched,
    ports: Vec<u16>,
    mut through: watch::Receiver<i64>,
) -> Result<Watched> {
    let mut next_revision = 1;
    for attempt in 0.. {
        let port = ports[attempt % ports.len()];
        let target = *through.borrow_and_update();
        if target > 0 && next_revision > target {
            break;
        }
        let Ok(stream) = Stream::open(port, create(&watched, next_revision)).await else {
            // The member is away; the next one may not be.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        watched.streams.push(WatchedStream {
            start_revision: next_revision,
            answers: Vec::new(),
        });
        let answers = &mut watched.streams.last_mut().context("just pushed")?.answers;
        next_revision = follow(stream, answers, next_revision, &mut through).await?;
    }
    Ok(watched)
}

fn create(watched: &Watched, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: watched.key.clone(),
        range_end: watched.range_end.clone(),
        start_revision,
        prev_kv: watched.prev_kv,
        ..Default::default()
    }
}

/// Reads until the stream breaks or the target is reached; returns where to resume.
async fn follow(
    mut stream: Stream,
    answers: &mut Vec<WatchAnswer>,
    start_revision: i64,
    through: &mut watch::Receiver<i64>,
) -> Result<i64> {
    let mut next_revision = start_revision;
    loop {
        let target = *through.borrow();
        if target > 0 && next_revision > target {
            return Ok(next_revision);
        }
        let answer = tokio::select! {
            answer = stream.answers.message() => answer,
            () = tokio::time::sleep(PROGRESS_EVERY) => {
                if stream.ask_progress().await.is_err() {
                    return Ok(next_revision);
                }
                continue;
            }
        };
        let Ok(Some(answer)) = answer else {
            return Ok(next_revision);
        };
        if answer.canceled {
            bail!("a watcher was cancelled: {answer:?}");
        }
        if answer.created {
            continue;
        }
        let answer = WatchAnswer::of(answer);
        match answer.events.last().and_then(|event| event.kv.as_ref()) {
            Some(kv) => next_revision = next_revision.max(kv.mod_revision + 1),
            None => next_revision = next_revision.max(answer.header_revision + 1),
        }
        answers.push(answer);
    }
}

/// One watch stream with its side for requests.
#[derive(Debug)]
pub struct Stream {
    pub requests: mpsc::Sender<pb::WatchRequest>,
    pub answers: Streaming<pb::WatchResponse>,
}

impl Stream {
    /// Opens a stream and asks for one watcher on it.
    ///
    /// # Errors
    /// When the member does not answer.
    pub async fn open(port: u16, create: pb::WatchCreateRequest) -> Result<Self> {
        Self::open_over(rpc::stream_channel(port)?, create).await
    }

    /// The same on a channel without a limit on the time of a call.
    ///
    /// # Errors
    /// When the member does not answer.
    pub async fn open_over(channel: Channel, create: pb::WatchCreateRequest) -> Result<Self> {
        let (requests, receiver) = mpsc::channel(128);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
        requests
            .send(request(pb::watch_request::RequestUnion::CreateRequest(
                create,
            )))
            .await?;
        let mut client = rpc::watch(channel);
        let opened = tokio::time::timeout(Duration::from_secs(2), client.watch(outgoing));
        let answers = opened.await??.into_inner();
        Ok(Self { requests, answers })
    }

    /// Asks for a progress report.
    ///
    /// # Errors
    /// When the stream has ended or takes no more.
    pub async fn ask_progress(&self) -> Result<()> {
        let progress = pb::WatchProgressRequest {};
        let union = pb::watch_request::RequestUnion::ProgressRequest(progress);
        self.requests.try_send(request(union))?;
        Ok(())
    }
}

/// Wraps a watch request.
pub fn request(union: pb::watch_request::RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest {
        request_union: Some(union),
    }
}

/// The full event log of one member, from revision 1 through `through`.
///
/// # Errors
/// When it does not come in time.
pub async fn full_log(port: u16, through: i64) -> Result<Vec<Event>> {
    full_log_over(rpc::stream_channel(port)?, through).await
}

/// The same on a channel without a limit on the time of a call.
///
/// # Errors
/// When it does not come in time.
pub async fn full_log_over(channel: Channel, through: i64) -> Result<Vec<Event>> {
    let everything = Bytes::from_static(&[0]);
    let create = pb::WatchCreateRequest {
        key: everything.clone(),
        range_end: everything,
        start_revision: 1,
        prev_kv: true,
        ..Default::default()
    };
    let mut stream = Stream::open_over(channel, create).await?;
    let mut events: Vec<Event> = Vec::new();
    let reached = |events: &[Event]| {
        let newest = events.last().and_then(|event| event.kv.as_ref());
        newest.map_or(1, |kv| kv.mod_revision) >= through
    };
    let read = async {
        while !reached(&events) {
            let answer = stream
                .answers
                .message()
                .await?
                .context("the stream ended")?;
            ensure!(!answer.canceled, "the log is not whole: {answer:?}");
            events.extend(answer.events);
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(CATCH_UP_DEADLINE, read)
        .await
        .context("the full event log does not come")??;
    Ok(events)
}
