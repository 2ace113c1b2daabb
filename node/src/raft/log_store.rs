//! openraft's log storage on our log: translates, waits where openraft wants it, and never blocks
//! openraft's core on a file.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::vote::RaftLeaderId;
use prost::Message;
use quorate_proto::quorate::peer;
use tokio::sync::oneshot;

use super::codec::{membership_from_wire, membership_to_wire};
use super::types::{Batch, Entry, LogId, Payload, TypeConfig, Vote, log_id, term_of};
use crate::storage::Error;
use crate::storage::log::{self, Log, LogPosition, Options};

/// Bytes of entries that one message to a follower takes, unless a single entry is larger.
const REPLICATE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of entries read at once to apply them.
const APPLY_READ_BYTES_MAX: usize = 2 * 1024 * 1024;

// What the payload of an entry in the log is. Append-only: an old log must stay readable.
const BLANK: u8 = 0;
const BATCH: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The log as openraft sees it. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<Log>,
}

impl LogStore {
    /// Opens or creates the log in `path`.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let (log, recovered) = Log::open(path, options)?;
        tracing::info!(
            first = recovered.entries.start,
            next = recovered.entries.end,
            torn_bytes = recovered.torn_bytes,
            "opened the raft log"
        );
        Ok(Self { log: Arc::new(log) })
    }

    /// The log itself.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let entries = if range.is_empty() || self.log.is_cached(range.start) {
            self.log.read(range, bytes_max)
        } else {
            let log = Arc::clone(&self.log);
            tokio::task::spawn_blocking(move || log.read(range, bytes_max))
                .await
                .map_err(io::Error::other)?
        };
        entries.map_err(failed)?.into_iter().map(decode).collect()
    }

    /// Returns once the queue to the disk has room. The writer's thread alone makes room, so this
    /// waits for nobody who could wait for us.
    async fn until_writable(&self) {
        let (sender, receiver) = oneshot::channel();
        self.log.when_writable(Box::new(move || {
            if sender.send(()).is_err() {
                tracing::debug!("nobody waits for room in the log's queue any more");
            }
        }));
        if receiver.await.is_err() {
            tracing::debug!("the log ended while its queue was full");
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(half_open(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, REPLICATE_BYTES_MAX).await
    }

    /// In slices, so that a long log is never in memory as a whole.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let state = (
            self.clone(),
            half_open(&range),
            Vec::<Entry>::new().into_iter(),
        );
        let stream =
            futures::stream::try_unfold(state, |(store, mut left, mut slice)| async move {
                if let Some(entry) = slice.next() {
                    return Ok(Some((entry, (store, left, slice))));
                }
                let mut slice = store
                    .read(left.clone(), APPLY_READ_BYTES_MAX)
                    .await?
                    .into_iter();
                left.start += slice.len() as u64;
                Ok(slice.next().map(|entry| (entry, (store, left, slice))))
            });
        Box::pin(stream)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.vote().map(|vote| {
            if vote.committed {
                Vote::new_committed(vote.term, vote.leader)
            } else {
                Vote::new(vote.term, vote.leader)
            }
        }))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        Ok(LogState {
            last_purged_log_id: self.log.purged().map(to_log_id),
            last_log_id: self.log.last().map(to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        let vote = log::Vote {
            term: vote.leader_id().term(),
            leader: *vote.leader_id().node_id(),
            committed: vote.is_committed(),
        };
        let done = move |result| {
            if sender.send(result).is_err() {
                tracing::debug!("nobody waits for the saved vote any more");
            }
        };
        self.log.save_vote(vote, Box::new(done)).map_err(failed)?;
        match receiver.await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(io::Error::other("the raft log's writer died")),
        }
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) => self.log.save_committed(position(&id)).map_err(failed),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.log.committed().map(to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(encode).collect();
        let done = move |result: Result<(), Error>| callback.io_completed(result.map_err(failed));
        self.log.append(entries, Box::new(done)).map_err(failed)?;
        self.until_writable().await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log
            .truncate_after(last.map(|id| id.index()))
            .map_err(failed)
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        self.log.purge(position(&id)).map_err(failed)
    }
}

pub(super) fn encode(entry: Entry) -> log::Entry {
    let (kind, payload) = match entry.payload {
        Payload::Blank => (BLANK, Bytes::new()),
        Payload::Normal(batch) => (BATCH, batch.0),
        Payload::Membership(membership) => {
            let bytes = membership_to_wire(&membership).encode_to_vec();
            (MEMBERSHIP, Bytes::from(bytes))
        }
    };
    log::Entry {
        term: term_of(&entry.log_id),
        index: entry.log_id.index(),
        kind,
        payload,
    }
}

pub(super) fn decode(entry: log::Entry) -> io::Result<Entry> {
    let broken = |what: String| {
        let text = format!("raft log entry {}: {what}", entry.index);
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    let payload = match entry.kind {
        BLANK => Payload::Blank,
        BATCH => Payload::Normal(Batch(entry.payload)),
        MEMBERSHIP => {
            let wire =
                peer::Membership::decode(entry.payload).map_err(|e| broken(e.to_string()))?;
            let membership = membership_from_wire(&wire).map_err(|e| broken(e.to_string()))?;
            Payload::Membership(membership)
        }
        kind => return Err(broken(format!("unknown kind {kind}"))),
    };
    Ok(Entry {
        log_id: log_id(entry.term, entry.index),
        payload,
    })
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: term_of(id),
        index: id.index(),
    }
}

fn to_log_id(position: LogPosition) -> LogId {
    log_id(position.term, position.index)
}

fn failed(error: Error) -> io::Error {
    io::Error::other(error)
}
