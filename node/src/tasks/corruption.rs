//! Finds a member whose keys differ from the others', and raises the alarm CORRUPT for it.
//!
//! etcd: server/etcdserver/corrupt.go.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::MissedTickBehavior;

use crate::machine::view::ReadError;
use crate::model::Refusal;
use crate::model::kv::alarm_request::AlarmAction;
use crate::model::kv::{AlarmRequest, AlarmType, Command, command};
use crate::replica::Replica;
use crate::replica::hash::{KvHash, PeerHash};

/// Compares this member's keys with those of the members that answer, before it serves anybody.
///
/// # Errors
/// When another member has other keys at the same revision and compaction, in etcd's words.
pub async fn initial_check(replica: &Replica) -> Result<(), String> {
    let me = format!("{:x}", replica.member_id());
    tracing::info!(member = me, "starting initial corruption check");
    let failed = |error: &dyn std::fmt::Display| format!("{me} failed to fetch hash ({error})");
    let own = replica.hash_kv(0).await.map_err(|error| failed(&error))?;
    let peers = replica.peer_hashes(own.revision).await;
    let mut differ = false;
    for peer in peers.map_err(|error| failed(&error))? {
        let Ok(hash) = peer.answer else { continue };
        if hash.hash == own.hash {
            continue;
        }
        let member = format!("{:x}", peer.member);
        if hash.compacted == own.compacted {
            tracing::warn!(
                member,
                ?own,
                ?hash,
                "found different hash values from remote peer"
            );
            differ = true;
        } else {
            let what = "found different compact revision values from remote peer";
            tracing::warn!(member, ?own, ?hash, "{what}");
        }
    }
    if differ {
        return Err(format!("{me} found data inconsistency with peers"));
    }
    tracing::info!("initial corruption checking passed; no corruption");
    Ok(())
}

/// `--corrupt-check-time`: the leader compares the newest state.
pub async fn run_periodic(replica: Arc<Replica>) {
    let Some(period) = replica.config().corrupt_check else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !replica.leads() {
            continue;
        }
        match periodic_check(&replica).await {
            Ok(None) => {}
            Ok(Some(member)) => raise(&replica, member).await,
            Err(error) => tracing::warn!(%error, "failed to check hash KV"),
        }
    }
}

async fn periodic_check(replica: &Replica) -> Result<Option<u64>, ReadError> {
    let before = replica.hash_kv(0).await?;
    let peers = replica.peer_hashes(before.revision).await?;
    replica.barrier().await?;
    let after = replica.hash_kv(0).await?;
    let checked = peers.iter().filter(|peer| peer.answer.is_ok()).count();
    let corrupt = judge_newest(replica.member_id(), before, after, &peers);
    tracing::info!(checked, "finished peer corruption check");
    Ok(corrupt)
}

/// The first member that cannot be right: `before` and `after` are the leader's own hashes before
/// and after it has asked its peers.
fn judge_newest(me: u64, before: KvHash, after: KvHash, peers: &[PeerHash]) -> Option<u64> {
    let same_state = (after.revision, after.compacted) == (before.revision, before.compacted);
    if same_state && after.hash != before.hash {
        tracing::warn!(?before, ?after, "found hash mismatch");
        return Some(me);
    }
    for peer in peers {
        let Ok(hash) = &peer.answer else { continue };
        let wrong = if hash.newest > after.newest {
            "revision from follower must be less than or equal to leader's"
        } else if hash.compacted > after.compacted {
            "compact revision from follower must be less than or equal to leader's"
        } else if hash.compacted == before.compacted && hash.hash != before.hash {
            "same compact revision then hashes must match"
        } else {
            continue;
        };
        let member = format!("{:x}", peer.member);
        tracing::warn!(member, ?before, ?after, ?hash, "{wrong}");
        return Some(peer.member);
    }
    None
}

/// The gate `CompactHashCheck`: the leader compares the state at the newest compaction, once for
/// each compaction.
pub async fn run_compacted(replica: Arc<Replica>) {
    let Some(period) = replica.config().compact_hash_check else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checked = 0;
    loop {
        ticks.tick().await;
        let compacted = replica.view().compacted;
        if !replica.leads() || compacted <= checked {
            continue;
        }
        match compacted_check(&replica, compacted).await {
            Ok(Verdict::Unknown) => {}
            Ok(Verdict::Equal) => checked = compacted,
            Ok(Verdict::Corrupt(members)) => {
                for member in members {
                    raise(&replica, member).await;
                }
            }
            Err(error) => tracing::warn!(%error, "failed compact hash check"),
        }
    }
}

/// What the hashes of all members say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Not everybody answered, and those who did agree.
    Unknown,
    Equal,
    /// These members differ from the majority; member 0 when there is none.
    Corrupt(Vec<u64>),
}

async fn compacted_check(replica: &Replica, compacted: i64) -> Result<Verdict, ReadError> {
    let own = replica.hash_kv(compacted).await?;
    let peers = replica.peer_hashes(compacted).await?;
    let verdict = judge_compacted(replica.member_id(), own, &peers);
    tracing::info!(compacted, ?verdict, "finished compaction hash check");
    Ok(verdict)
}

fn judge_compacted(me: u64, own: KvHash, peers: &[PeerHash]) -> Verdict {
    let mut members: BTreeMap<u32, Vec<u64>> = BTreeMap::from([(own.hash, vec![me])]);
    let mut answered = 0;
    for peer in peers {
        match &peer.answer {
            Ok(hash) if hash.compacted == own.compacted => {
                answered += 1;
                members.entry(hash.hash).or_default().push(peer.member);
            }
            Ok(_) | Err(_) => {
                let member = format!("{:x}", peer.member);
                tracing::warn!(member, answer = ?peer.answer, "Skipped peer's hash");
            }
        }
    }
    if members.len() == 1 {
        return match answered == peers.len() {
            true => Verdict::Equal,
            false => Verdict::Unknown,
        };
    }
    let quorum = peers.len().div_ceil(2) + 1;
    let majority = members.values().position(|ids| ids.len() >= quorum);
    tracing::error!(?members, quorum, "Detected compaction hash mismatch");
    let Some(majority) = majority else {
        return Verdict::Corrupt(vec![0]);
    };
    let others = members.into_values().enumerate();
    let others = others.filter(|(index, _)| *index != majority);
    Verdict::Corrupt(others.flat_map(|(_, ids)| ids).collect())
}

async fn raise(replica: &Replica, member_id: u64) {
    if replica
        .view()
        .conditions
        .has_of(member_id, AlarmType::Corrupt)
    {
        return;
    }
    let alarm = AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id,
        alarm: AlarmType::Corrupt.into(),
    };
    let command = Command {
        kind: Some(command::Kind::Alarm(alarm)),
    };
    match replica.propose_as_leader(command).await {
        Ok(_) => tracing::error!(
            member = format!("{member_id:x}"),
            "raised the alarm CORRUPT"
        ),
        // The next look raises it, if another member leads then.
        Err(Refusal::NotLeader) => {}
        Err(refusal) => tracing::error!(%refusal, "cannot raise the alarm CORRUPT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(hash: u32, compacted: i64, newest: i64) -> KvHash {
        KvHash {
            hash,
            compacted,
            revision: newest,
            newest,
        }
    }

    fn peers(hashes: &[Option<KvHash>]) -> Vec<PeerHash> {
        let hashes = hashes.iter().zip(2..);
        let peer = |(hash, member): (&Option<KvHash>, u64)| PeerHash {
            member,
            answer: hash.ok_or_else(|| "silent".to_owned()),
        };
        hashes.map(peer).collect()
    }

    #[test]
    fn the_newest_state_is_judged_as_in_etcd() {
        let own = hash(7, 3, 10);
        let judge =
            |after, answers: &[Option<KvHash>]| judge_newest(1, own, after, &peers(answers));
        assert_eq!(judge(own, &[Some(own), None]), None);
        assert_eq!(judge(hash(8, 3, 10), &[]), Some(1));
        // More was written, so the second hash may differ.
        assert_eq!(judge(hash(8, 3, 11), &[Some(hash(7, 3, 11))]), None);
        assert_eq!(judge(own, &[None, Some(hash(8, 3, 10))]), Some(3));
        assert_eq!(judge(own, &[Some(hash(7, 3, 11))]), Some(2));
        assert_eq!(judge(own, &[Some(hash(9, 4, 10))]), Some(2));
        // One that has compacted less cannot be compared.
        assert_eq!(judge(own, &[Some(hash(9, 2, 10))]), None);
    }

    #[test]
    fn compacted_states_are_judged_by_the_majority() {
        let own = hash(7, 3, 3);
        let judge = |answers: &[Option<KvHash>]| judge_compacted(1, own, &peers(answers));
        let (same, other) = (Some(own), Some(hash(8, 3, 3)));
        assert_eq!(judge(&[]), Verdict::Equal);
        assert_eq!(judge(&[same, same]), Verdict::Equal);
        assert_eq!(judge(&[same, None]), Verdict::Unknown);
        assert_eq!(judge(&[same, Some(hash(8, 4, 4))]), Verdict::Unknown);
        assert_eq!(judge(&[same, other]), Verdict::Corrupt(vec![3]));
        // This member itself.
        assert_eq!(judge(&[other, other]), Verdict::Corrupt(vec![1]));
        assert_eq!(judge(&[other]), Verdict::Corrupt(vec![0]));
        assert_eq!(judge(&[None, other]), Verdict::Corrupt(vec![0]));
        assert_eq!(judge(&[same, other, other]), Verdict::Corrupt(vec![0]));
        assert_eq!(
            judge(&[same, same, other, other]),
            Verdict::Corrupt(vec![4, 5])
        );
    }
}
