//! Giving up leadership before a stop, so that no write waits for an election.
//!
//! It is a courtesy: whatever fails here, the member may stop, and the others elect.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use quorate_client::proto::etcdserverpb as pb;
use quorate_sidecar::wire::Handoff;

use super::{Members, list, status};
use crate::failure::{Failure, Reason};

/// How long another voter may take to say how far it is.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// A voter that could lead.
struct Candidate {
    id: u64,
    name: String,
    applied_index: u64,
}

/// Hands leadership, if the own member leads, to the voter that is furthest on and not `leaving`.
///
/// # Errors
/// The own member does not answer within `limit`, or nobody took over.
pub async fn hand_off(
    members: &Members,
    leaving: &BTreeSet<String>,
    limit: Duration,
) -> Result<Handoff, Failure> {
    let handed = tokio::time::timeout(limit, try_hand_off(members, leaving)).await;
    handed.unwrap_or_else(|_| {
        let text = format!("leadership was not handed over within {limit:?}");
        Err(Failure::new(Reason::MemberUnavailable, text))
    })
}

async fn try_hand_off(members: &Members, leaving: &BTreeSet<String>) -> Result<Handoff, Failure> {
    let client = members.own()?;
    let own = status(&client).await?;
    let own_id = own.header.as_ref().map_or(0, |header| header.member_id);
    if own.leader != own_id {
        return Ok(Handoff {
            was_leader: false,
            leader: (own.leader != 0).then(|| format!("{:016x}", own.leader)),
        });
    }
    let others = list(&client, false).await?.members;
    let others = others.into_iter();
    let others =
        others.filter(|it| it.id != own_id && !it.is_learner && !leaving.contains(&it.name));
    let asked = join_all(others.map(|other| ask(members, other))).await;
    let mut candidates: Vec<Candidate> = asked.into_iter().flatten().collect();
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.applied_index));
    let mut last = None;
    for candidate in candidates {
        let request = pb::MoveLeaderRequest {
            target_id: candidate.id,
        };
        match client.maintenance().move_leader(request).await {
            Ok(_) => {
                tracing::info!(to = candidate.name, "handed leadership over");
                return Ok(Handoff {
                    was_leader: true,
                    leader: Some(format!("{:016x}", candidate.id)),
                });
            }
            Err(error) => {
                tracing::warn!(
                    to = candidate.name,
                    error = error.message(),
                    "it did not lead"
                );
                last = Some(super::unavailable_status(&error));
            }
        }
    }
    match last {
        Some(failure) => Err(failure),
        // Alone, or none of the others answers: nobody can be handed to.
        None => Ok(Handoff {
            was_leader: true,
            leader: None,
        }),
    }
}

/// How far another voter is; none when it does not say in time.
async fn ask(members: &Members, other: pb::Member) -> Option<Candidate> {
    let asked = async {
        for url in &other.client_ur_ls {
            let answer = match members.at(url) {
                Ok(client) => status(&client).await,
                Err(failure) => Err(failure),
            };
            match answer {
                Ok(status) => return Some(status),
                Err(failure) => {
                    tracing::debug!(member = other.name, %failure, "a voter did not answer");
                }
            }
        }
        None
    };
    let status = tokio::time::timeout(ASK_LIMIT, asked).await.ok()??;
    Some(Candidate {
        id: other.id,
        name: other.name,
        applied_index: status.raft_applied_index,
    })
}
