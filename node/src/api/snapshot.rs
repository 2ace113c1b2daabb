//! `Maintenance.Snapshot`: one revision as etcd's snapshot file, while writes go on.
//!
//! ```text
//! pinned view ── scan ──> plan ── scan ──> writer ── chunks ──> bounded channel ──> client
//! ```
//! Memory is a few chunks a call, whatever the size of the store: the file is written from front
//! to back by a thread that waits for the client. A client that goes away ends it.
//!
//! etcd: server/etcdserver/api/v3rpc/maintenance.go (Snapshot).

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quorate_proto::etcdserverpb::SnapshotResponse;
use quorate_snapshot::{Entries, Error, Plan, Writer};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::status::{failure, status};
use crate::machine::view::View;
use crate::model::Refusal;

/// Bytes of one message.
const CHUNK_BYTES: usize = 64 * 1024;
/// Messages that wait for a client that is slower than the disk.
const CHUNKS_MAX: usize = 16;
/// Snapshots that are sent at one time. Each holds a thread, and what the store deletes meanwhile.
const SNAPSHOTS_MAX: usize = 4;

type Chunk = Result<SnapshotResponse, Status>;

/// The messages of one call.
pub type SnapshotStream = ReceiverStream<Chunk>;

/// All snapshots of this member.
pub struct Snapshots {
    places: Arc<Semaphore>,
}

impl Snapshots {
    pub fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
        }
    }

    /// Begins to send `view`.
    ///
    /// # Errors
    /// [`Refusal::TooManyRequests`] while too many others are under way.
    pub fn send(&self, view: Arc<View>, version: String) -> Result<SnapshotStream, Status> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| status(Refusal::TooManyRequests))?;
        let (sender, receiver): (Sender<Chunk>, Receiver<Chunk>) = channel(CHUNKS_MAX);
        // It ends with the file, or when the receiver is gone.
        tokio::task::spawn_blocking(move || produce(&view, &version, &sender, place));
        Ok(ReceiverStream::new(receiver))
    }
}

/// The client has gone away: nobody is left to be told.
#[derive(Debug, thiserror::Error)]
#[error("the client has gone away")]
struct Gone;

fn produce(view: &View, version: &str, sender: &Sender<Chunk>, _place: OwnedSemaphorePermit) {
    let started = Instant::now();
    let revision = view.revision;
    match write(view, version, sender) {
        Ok(total_bytes) => {
            let took = started.elapsed();
            tracing::info!(revision, total_bytes, ?took, "sent a snapshot to a client");
        }
        Err(_) if sender.is_closed() => {
            tracing::info!(revision, "a client left before it had its snapshot");
        }
        Err(error) => {
            if sender.blocking_send(Err(failure(&error))).is_err() {
                tracing::debug!("a client left before it heard that its snapshot failed");
            }
        }
    }
}

/// Sends the file and its hash; the size of the file.
fn write(view: &View, version: &str, sender: &Sender<Chunk>) -> Result<u64, Error> {
    let mut count = Heard {
        plan: Plan::new(),
        sender,
    };
    view.export(version, &mut count)?;
    let plan = count.plan;
    let total_bytes = plan.total_bytes();
    let mut chunks = Chunks {
        sender,
        version,
        remaining_bytes: total_bytes,
        chunk: BytesMut::with_capacity(CHUNK_BYTES),
    };
    let mut writer = Writer::new(plan, &mut chunks)?;
    view.export(version, &mut writer)?;
    let (digest, chunks) = writer.finish()?;
    chunks.send_all().map_err(Error::sink)?;
    chunks
        .send(Bytes::copy_from_slice(&digest))
        .map_err(Error::sink)?;
    Ok(total_bytes)
}

/// The first pass, which ends early when nobody waits for the second any more.
struct Heard<'a> {
    plan: Plan,
    sender: &'a Sender<Chunk>,
}

impl Entries for Heard<'_> {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.plan.bucket(name)
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if self.sender.is_closed() {
            return Err(Error::sink(Gone));
        }
        self.plan.entry(key, value)
    }
}

/// Cuts the file into messages.
struct Chunks<'a> {
    sender: &'a Sender<Chunk>,
    version: &'a str,
    remaining_bytes: u64,
    chunk: BytesMut,
}

impl Chunks<'_> {
    fn send_all(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let blob = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK_BYTES));
        self.remaining_bytes -= blob.len() as u64;
        self.send(blob.freeze())
    }

    fn send(&self, blob: Bytes) -> io::Result<()> {
        let message = SnapshotResponse {
            // etcd sends none with it.
            header: None,
            remaining_bytes: self.remaining_bytes,
            blob,
            version: self.version.to_owned(),
        };
        let sent = self.sender.blocking_send(Ok(message));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, Gone))
    }
}

impl io::Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.send_all()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_all()
    }
}
