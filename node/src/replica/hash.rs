//! Hashes of the keys, of this member and of the others, to find one whose store differs.
//!
//! etcd: server/etcdserver/corrupt.go (getPeerHashKVs, hashKVHandler).

use std::time::Instant;

use futures::future::join_all;
use quorate_proto::quorate::peer;
use quorate_proto::quorate::peer::hash_kv_response::Answer;

use super::Replica;
use crate::machine::view::ReadError;
use crate::model::Refusal;
use crate::raft::receive::PeerRefusal;

/// A hash of all keys at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    /// -1 before the first compaction.
    pub compacted: i64,
    /// The revision that was hashed.
    pub revision: i64,
    /// The newest revision of the member, when it was asked.
    pub newest: i64,
}

/// What another member answered; why not, if it did not.
#[derive(Debug, Clone)]
pub struct PeerHash {
    pub member: u64,
    pub answer: Result<KvHash, String>,
}

impl Replica {
    /// The hash of this member's own keys at `revision`, 0 for the newest.
    pub async fn hash_kv(&self, revision: i64) -> Result<KvHash, ReadError> {
        let view = self.view();
        let newest = view.revision;
        let started = Instant::now();
        let hashed = tokio::task::spawn_blocking(move || view.hash_kv(revision)).await;
        // It fails only when the runtime is going away.
        let (hash, compacted, revision) = hashed.map_err(|_| Refusal::Stopped)??;
        self.tally().revision_hashes.observe(started.elapsed());
        Ok(KvHash {
            hash,
            compacted,
            revision,
            newest,
        })
    }

    /// Asks every other member for its hash at `revision`, each for the time of a request.
    ///
    /// # Errors
    /// When the members cannot be read.
    pub async fn peer_hashes(&self, revision: i64) -> Result<Vec<PeerHash>, crate::storage::Error> {
        let members = self.view().members()?.into_iter();
        let others = members.filter(|member| member.id != self.member_id());
        let asked = others.map(|member| async move {
            let answer = self.peer_hash(member.id, revision).await;
            if let Err(reason) = &answer {
                let member = format!("{:x}", member.id);
                tracing::warn!(member, revision, reason, "failed hash kv request");
            }
            PeerHash {
                member: member.id,
                answer,
            }
        });
        Ok(join_all(asked).await)
    }

    async fn peer_hash(&self, member: u64, revision: i64) -> Result<KvHash, String> {
        let peer = self.raft.peer(member).ok_or("its address is not known")?;
        let request = peer::HashKvRequest { revision };
        let call = self.raft.transport().hash_kv(&peer, request);
        let answer = tokio::time::timeout(self.request_timeout(), call).await;
        let answer = answer.map_err(|_| Refusal::Timeout.to_string())?;
        match answer.map_err(|error| error.to_string())?.answer {
            Some(Answer::Hash(hash)) => Ok(KvHash {
                hash: hash.hash,
                compacted: hash.compacted,
                revision: hash.revision,
                newest: hash.newest,
            }),
            Some(Answer::Refusal(text)) => Err(text),
            None => Err("it answered nothing that this version knows".to_owned()),
        }
    }

    /// Answers another member that asks for a hash.
    pub async fn receive_hash_kv(
        &self,
        request: peer::HashKvRequest,
    ) -> Result<peer::HashKvResponse, PeerRefusal> {
        let answer = match self.hash_kv(request.revision).await {
            Ok(hash) => Answer::Hash(peer::KvHash {
                hash: hash.hash,
                compacted: hash.compacted,
                revision: hash.revision,
                newest: hash.newest,
            }),
            Err(ReadError::Refused(Refusal::Stopped)) => return Err(PeerRefusal::Stopped),
            Err(ReadError::Refused(refusal)) => Answer::Refusal(refusal.to_string()),
            Err(ReadError::Failed(error)) => {
                self.fail("hash", &error);
                return Err(PeerRefusal::Stopped);
            }
        };
        Ok(peer::HashKvResponse {
            answer: Some(answer),
        })
    }
}
