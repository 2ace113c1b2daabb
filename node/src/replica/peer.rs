//! What other members ask of this one beside raft itself: proposals, read indexes and leases on
//! behalf of their clients. The doors (`api/peer.rs`, the simulation's transport) call these.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, future, stream};
use quorate_proto::quorate::peer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Replica;
use crate::model::Refusal;
use crate::model::limits::{FOREIGN_SECTIONS_MAX, LEASES_PER_MESSAGE_MAX};
use crate::raft::codec::Malformed;
use crate::raft::receive::PeerRefusal;

fn refused(refusal: &Refusal) -> PeerRefusal {
    match refusal {
        Refusal::Stopped => PeerRefusal::Stopped,
        // The caller asks again where the leader is by then.
        _ => PeerRefusal::NotLeader,
    }
}

impl Replica {
    /// Proposes the sections of another member. What comes back was certainly not proposed; what
    /// was proposed is answered by that member's own apply.
    pub fn receive_forward(
        self: &Arc<Self>,
        sections: impl Stream<Item = peer::ForwardRequest> + Send + 'static,
    ) -> BoxStream<'static, peer::ForwardRefusal> {
        let (refusals, refused) = mpsc::channel(FOREIGN_SECTIONS_MAX);
        let replica = Arc::clone(self);
        let taken = sections.then(move |request| {
            let (replica, refusals) = (Arc::clone(&replica), refusals.clone());
            async move {
                if let Some(section) = request.section {
                    replica.proposer.submit_foreign(section, &refusals).await;
                }
            }
        });
        // Both halves live and die with the call: no task of its own.
        let taken = taken.map(|()| None).chain(stream::once(async { None }));
        let refused = ReceiverStream::new(refused).map(Some);
        stream::select(taken, refused)
            .filter_map(future::ready)
            .take_until(self.raft.closing().clone().cancelled_owned())
            .boxed()
    }

    /// The position that a read elsewhere must have seen, confirmed after this was called.
    pub async fn receive_read_index(&self) -> Result<peer::ReadIndexResponse, PeerRefusal> {
        // Only the leader answers: members that disagree on who leads must not ask in a circle.
        if self.raft.leadership().leader != self.member_id() {
            return Err(PeerRefusal::NotLeader);
        }
        let position = self.reads.read_index().await;
        let position = position.map_err(|refusal| refused(&refusal))?;
        Ok(peer::ReadIndexResponse {
            read_log_id: Some(peer::LogId {
                term: position.term,
                index: position.index,
                leader: self.member_id(),
            }),
        })
    }

    pub async fn receive_lease_renew(
        &self,
        request: peer::LeaseRenewRequest,
    ) -> Result<peer::LeaseRenewResponse, PeerRefusal> {
        if request.ids.len() > LEASES_PER_MESSAGE_MAX {
            return Err(Malformed("too many leases in one message").into());
        }
        let renewed = self.renew_many_here(&request.ids).await;
        let ttls = renewed.map_err(|refusal| refused(&refusal))?;
        Ok(peer::LeaseRenewResponse {
            ttl_seconds: ttls.ok_or(PeerRefusal::NotLeader)?,
        })
    }

    pub async fn receive_lease_times(
        &self,
        request: peer::LeaseTimesRequest,
    ) -> Result<peer::LeaseTimesResponse, PeerRefusal> {
        if request.ids.len() > LEASES_PER_MESSAGE_MAX {
            return Err(Malformed("too many leases in one message").into());
        }
        let times = self.times_here(&request.ids).await;
        let times = times.map_err(|refusal| refused(&refusal))?;
        let times = times.ok_or(PeerRefusal::NotLeader)?.into_iter();
        let ms = |left: std::time::Duration| i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
        Ok(peer::LeaseTimesResponse {
            remaining_ms: times.map(|left| left.map_or(-1, ms)).collect(),
        })
    }
}
