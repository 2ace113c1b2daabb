//! Two clusters where one should be: nothing is touched, since nobody can know which one is right.

use crate::model::Observed;

use super::look::Look;
use super::step::{Notes, Step, refusal};

pub(super) fn rung(look: &Look<'_>, notes: &mut Notes) -> Option<Step> {
    let message = split(look.seen())?;
    notes.stall(&refusal("SplitBrain", message));
    Some(Step::default())
}

/// What is wrong with the cluster's ID, if members disagree about it.
fn split(seen: &Observed) -> Option<String> {
    let mut ids: Vec<(u64, String)> = Vec::new();
    if let Some(id) = seen.cluster.cluster_id {
        ids.push((id, "the status".to_owned()));
    }
    if let Some(listed) = &seen.listed {
        ids.push((listed.cluster_id, "the members' list".to_owned()));
    }
    let voices = seen.voices.iter();
    ids.extend(voices.map(|(name, voice)| (voice.cluster_id, name.clone())));
    let (first, one) = ids.first()?;
    let (other, two) = ids.iter().find(|(id, _)| id != first)?;
    Some(format!(
        "cluster ID {first:016x} in {one}, but {other:016x} in {two}: two clusters answer under \
         one name. Find out which one holds the data, take a snapshot of it, and delete the Pods \
         and claims of the other"
    ))
}
