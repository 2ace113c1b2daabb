//! A snapshot of the own member as it comes, with what must be known of it before its first byte.

use std::time::Duration;

use bytes::Bytes;
use quorate_client::Client;
use quorate_client::proto::etcdserverpb as pb;
use quorate_client::proto::{SNAPSHOT_COMPACT_REVISION, SNAPSHOT_REVISION};
use tonic::{Code, Streaming};

use super::unavailable_status;
use crate::failure::{Failure, Reason};

/// The member reads all of its store before the first byte, and for the hash.
const READ_LIMIT: Duration = Duration::from_secs(600);
/// How long the stream may be silent once it has begun.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// A compaction between snapshot and hash is rare; twice in a row is somebody who always compacts.
const ATTEMPTS_MAX: u32 = 3;

/// A snapshot that is being sent.
pub struct Snapshot {
    stream: Streaming<pb::SnapshotResponse>,
    has_begun: bool,
    pub revision: i64,
    /// Up to which revision its history is compacted, -1 for none.
    pub compacted: i64,
    /// HashKV at its revision, with its compaction.
    pub hash: u32,
}

/// A piece of the file.
pub struct Piece {
    pub bytes: Bytes,
    /// What is still to come, its hash not counted.
    pub remaining_bytes: u64,
}

impl Snapshot {
    /// Begins a snapshot, and has the member hash the same revision.
    ///
    /// The hash depends on where history is compacted. When that moved on in between, both are
    /// taken anew.
    ///
    /// # Errors
    /// The member refuses, does not answer, or is compacted again and again.
    pub async fn begin(client: &Client) -> Result<Self, Failure> {
        for attempt in 1..=ATTEMPTS_MAX {
            let (stream, revision, compacted) = open(client).await?;
            let request = pb::HashKvRequest { revision };
            let mut maintenance = client.maintenance();
            let answer = match limited(maintenance.hash_kv(request)).await? {
                Ok(answer) => answer.into_inner(),
                // It was compacted beyond the revision.
                Err(status) if status.code() == Code::OutOfRange => {
                    tracing::info!(
                        attempt,
                        revision,
                        "compacted during the snapshot; once more"
                    );
                    continue;
                }
                Err(status) => return Err(unavailable_status(&status)),
            };
            if answer.compact_revision == compacted {
                return Ok(Self {
                    stream,
                    has_begun: false,
                    revision,
                    compacted,
                    hash: answer.hash,
                });
            }
            tracing::info!(
                attempt,
                revision,
                "compacted during the snapshot; once more"
            );
        }
        let text = "the member was compacted during each of several attempts";
        Err(Failure::new(Reason::MemberUnavailable, text))
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// The member failed, or says nothing.
    pub async fn next(&mut self) -> Result<Option<Piece>, Failure> {
        let limit = match self.has_begun {
            true => SILENCE_LIMIT,
            false => READ_LIMIT,
        };
        let message = tokio::time::timeout(limit, self.stream.message()).await;
        let message = message.map_err(|_| silent(limit))?;
        let message = message.map_err(|status| unavailable_status(&status))?;
        self.has_begun = true;
        Ok(message.map(|message| Piece {
            bytes: message.blob,
            remaining_bytes: message.remaining_bytes,
        }))
    }
}

fn silent(limit: Duration) -> Failure {
    let text = format!("the member said nothing for {limit:?}");
    Failure::new(Reason::MemberUnavailable, text)
}

async fn limited<T>(call: impl Future<Output = T>) -> Result<T, Failure> {
    let answer = tokio::time::timeout(READ_LIMIT, call).await;
    answer.map_err(|_| silent(READ_LIMIT))
}

/// The stream, its revision and up to where it is compacted.
async fn open(client: &Client) -> Result<(Streaming<pb::SnapshotResponse>, i64, i64), Failure> {
    let answer = limited(client.maintenance().snapshot(pb::SnapshotRequest {})).await?;
    let answer = answer.map_err(|status| unavailable_status(&status))?;
    let number = |name: &str| {
        let value = answer.metadata().get(name)?;
        value.to_str().ok()?.parse::<i64>().ok()
    };
    match (number(SNAPSHOT_REVISION), number(SNAPSHOT_COMPACT_REVISION)) {
        (Some(revision), Some(compacted)) => Ok((answer.into_inner(), revision, compacted)),
        _ => Err(Failure::internal(
            "the member does not say which revision its snapshot has: it is of another version",
        )),
    }
}
