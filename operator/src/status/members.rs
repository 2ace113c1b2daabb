//! The members, as a user reads them.

use crate::api::{MemberPhase, MemberRole, MemberStatus};
use crate::model::{AlarmKind, MemberView, Observed};
use crate::plan;

const MEBIBYTE: i64 = 1 << 20;

pub(super) fn members(seen: &Observed) -> Vec<MemberStatus> {
    let all = seen.members.iter();
    all.map(|(name, view)| member(seen, name, view)).collect()
}

/// Rounded up, so that it does not change with every write.
fn whole(bytes: i64) -> i64 {
    bytes.saturating_add(MEBIBYTE - 1).div_euclid(MEBIBYTE) * MEBIBYTE
}

/// The words for a size.
pub(super) fn mebibytes(bytes: i64) -> String {
    format!("{} MiB", bytes / MEBIBYTE)
}

fn member(seen: &Observed, name: &str, view: &MemberView) -> MemberStatus {
    let listed = seen.listed.as_ref();
    let listed = listed.and_then(|listed| listed.members.iter().find(|m| m.name == *name));
    let id = view.id.or_else(|| listed.map(|listed| listed.id));
    let pod = view.pod.as_ref();
    let size = seen.voices.get(name).map(|voice| voice.db_size_bytes);
    let current = pod.is_some_and(|pod| pod.revision == seen.cluster.revision);
    let alarm = alarm(seen, id);
    let message = message(seen, name, view).or(alarm);
    MemberStatus {
        name: name.to_owned(),
        id: id.map(|id| format!("{id:016x}")),
        role: match listed {
            Some(_) if plan::leader(seen) == Some(name) => MemberRole::Leader,
            Some(listed) if listed.learner => MemberRole::Learner,
            Some(_) => MemberRole::Voter,
            None => MemberRole::Unknown,
        },
        healthy: message.is_none() && plan::is_healthy(seen, name),
        current,
        node: pod.and_then(|pod| pod.node.clone()),
        zone: pod.and_then(|pod| pod.zone.clone()),
        db_size_bytes: size.map(whole),
        message,
    }
}

fn alarm(seen: &Observed, id: Option<u64>) -> Option<String> {
    let mut alarms = seen.alarms.iter();
    let (_, kind) = alarms.find(|(member, _)| Some(*member) == id)?;
    Some(match kind {
        AlarmKind::NoSpace => "alarm NOSPACE: its store is at the quota".to_owned(),
        AlarmKind::Corrupt => "alarm CORRUPT: its data differ from the others'".to_owned(),
    })
}

/// Why a member is not well.
fn message(seen: &Observed, name: &str, view: &MemberView) -> Option<String> {
    if view.phase == MemberPhase::Leaving {
        let why = view.leaving.map(|cause| cause.reason()).unwrap_or_default();
        return Some(format!("it leaves: {why}"));
    }
    if view.phase == MemberPhase::Pending {
        return Some("the cluster has not been told of it yet".to_owned());
    }
    let Some(pod) = &view.pod else {
        return Some("its Pod is not there".to_owned());
    };
    if pod.deleting {
        return Some("its Pod is being deleted".to_owned());
    }
    if pod.node_lost {
        return Some("its node is gone or does not answer".to_owned());
    }
    if let Some(code) = pod.gate_exit {
        return Some(format!("its container gate ended with exit code {code}"));
    }
    if let Some(waiting) = &pod.waiting {
        return Some(format!("its Pod waits: {waiting}"));
    }
    let lost = view.claim.as_ref().is_some_and(|claim| claim.lost);
    let lost = lost || (seen.cluster.storage.bytes > 0 && view.claim.is_none());
    if lost {
        return Some("its claim or volume is gone".to_owned());
    }
    let Some(voice) = seen.voices.get(name) else {
        return Some("it does not answer".to_owned());
    };
    if voice.leader == 0 {
        return Some("it knows no leader".to_owned());
    }
    (!plan::is_healthy(seen, name)).then(|| "it is not ready".to_owned())
}
