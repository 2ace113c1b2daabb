//! Fills the header of every answer.
//!
//! etcd: server/etcdserver/api/v3rpc/header.go.

use std::sync::Arc;

use crate::model::kv::ResponseHeader;
use crate::replica::Replica;

/// Knows what stands in a header.
#[derive(Clone)]
pub struct Headers {
    replica: Arc<Replica>,
}

impl Headers {
    pub fn new(replica: Arc<Replica>) -> Self {
        Self { replica }
    }

    /// A header at `revision`, which belongs to the data it stands above.
    pub fn at(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.replica.cluster_id(),
            member_id: self.replica.member_id(),
            revision,
            raft_term: self.replica.term(),
        }
    }

    /// A header at the current revision.
    pub fn now(&self) -> ResponseHeader {
        self.at(self.replica.view().revision)
    }

    /// Completes the header of a reply, which holds a revision or none.
    pub fn fill(&self, header: Option<ResponseHeader>) -> Option<ResponseHeader> {
        let revision = header.map_or(0, |header| header.revision);
        Some(if revision == 0 {
            self.now()
        } else {
            self.at(revision)
        })
    }
}
