//! The own authority's part of the plan: create, renew, rotate.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::authority::{Authority, Signer, judged};
use super::issue::{self, Error, Request};
use super::leaves::{Leaves, Purpose};
use super::{CertificatePlan, Held, ROTATE_ANNOTATION, Timing};
use crate::api::{OperatorAuthority, QuorateCluster};
use crate::objects::{Names, cluster_meta};

/// The annotation that says since when a Secret has its bundle.
const BUNDLE_SINCE: &str = "quorate.dev/bundle-since";
/// The annotation that says when a Secret's certificate was issued.
const ISSUED_AT: &str = "quorate.dev/issued-at";

/// One leaf of the own authority: what it is to be, and what there is.
struct Leaf<'a> {
    purpose: Purpose,
    secret: String,
    names: Vec<String>,
    settings: OperatorAuthority,
    held: Option<&'a Held>,
}

/// What is to be done about the own authority and its leaves.
pub fn plan(
    now: Timestamp,
    cluster: &QuorateCluster,
    leaves: &Leaves<'_>,
    timing: &Timing,
    existing: &BTreeMap<String, Held>,
) -> Result<CertificatePlan, Error> {
    let names = Names::new(cluster);
    let all = wanted(leaves, existing);
    let held: Vec<&Held> = all.iter().filter_map(|leaf| leaf.held).collect();
    let hours = all.iter().map(|leaf| leaf.settings.validity_hours).max();
    let hours = hours.unwrap_or_default();
    let asked = cluster.metadata.annotations.as_ref();
    let asked = asked.and_then(|all| all.get(ROTATE_ANNOTATION));
    let asked = asked.map_or("", String::as_str);

    let there = existing.get(&names.authority_secret());
    let mut authority = match Authority::read(there) {
        Some(authority) => authority,
        None => Authority::make(&names.cluster, now, hours, asked, &held)?,
    };
    let retirement = retirement(&authority, &all, now, timing);
    if retirement.is_some_and(|at| at <= now) {
        authority.retire_old();
    }
    authority.rotate(&names.cluster, now, hours, asked)?;
    let announcement = announcement(&authority, &held, timing);
    let is_announced = announcement.is_some_and(|at| at <= now);

    let mut plan = CertificatePlan {
        rotating: authority.is_rotating(),
        ..CertificatePlan::default()
    };
    plan.write(cluster, names.authority_secret(), there, authority.held());
    for leaf in &all {
        let new = leaf.visited(&authority, is_announced, now)?;
        plan.expect(leaf, &new, now);
        plan.write(cluster, leaf.secret.clone(), leaf.held, new);
    }
    for at in [announcement, retirement].into_iter().flatten() {
        plan.look_at(at, now);
    }
    if plan.rotating {
        let step = SignedDuration::from_secs(timing.propagation_seconds);
        plan.look_at(now + step, now);
    }
    Ok(plan)
}

fn wanted<'a>(leaves: &Leaves<'_>, existing: &'a BTreeMap<String, Held>) -> Vec<Leaf<'a>> {
    let own = Purpose::ALL.into_iter().filter_map(|purpose| {
        let (settings, secret) = (leaves.own(purpose)?, leaves.secret(purpose)?);
        Some(Leaf {
            purpose,
            names: leaves.subject_names(purpose),
            held: existing.get(&secret),
            secret,
            settings,
        })
    });
    own.collect()
}

/// When everybody trusts the newest authority; None while a Secret does not have it.
fn announcement(authority: &Authority, held: &[&Held], timing: &Timing) -> Option<Timestamp> {
    let newest = authority.signer.pair.certificate.trim();
    let mut at = Timestamp::MIN;
    for held in held {
        let bundle = String::from_utf8_lossy(held.get("ca.crt"));
        let since = held
            .time(BUNDLE_SINCE)
            .filter(|_| bundle.contains(newest))?;
        at = at.max(since + SignedDuration::from_secs(timing.propagation_seconds));
    }
    Some(at)
}

/// When nobody needs the old authority any more; None while a leaf is still of it, or there is
/// none to retire.
fn retirement(
    authority: &Authority,
    leaves: &[Leaf<'_>],
    now: Timestamp,
    timing: &Timing,
) -> Option<Timestamp> {
    if !authority.is_rotating() {
        return None;
    }
    let mut at = Timestamp::MIN;
    for leaf in leaves {
        let held = leaf
            .held
            .filter(|held| authority.signer.issued(held, now))?;
        let issued = held.time(ISSUED_AT)?;
        at = at.max(issued + SignedDuration::from_secs(timing.retirement_seconds));
    }
    Some(at)
}

impl Leaf<'_> {
    /// The Secret as it should be now.
    fn visited(
        &self,
        authority: &Authority,
        is_announced: bool,
        now: Timestamp,
    ) -> Result<Held, Error> {
        let bundle = authority.bundle();
        let mut new = self.held.cloned().unwrap_or_default();
        // Only what is ours stays: whatever else a hand put there is taken out again.
        new.data
            .retain(|key, _| ["tls.crt", "tls.key", "ca.crt"].contains(&key.as_str()));
        new.annotations
            .retain(|key, _| [BUNDLE_SINCE, ISSUED_AT].contains(&key.as_str()));
        if new.get("ca.crt") != bundle.as_bytes() || new.time(BUNDLE_SINCE).is_none() {
            new.data
                .insert("ca.crt".to_owned(), bundle.clone().into_bytes());
            new.annotations
                .insert(BUNDLE_SINCE.to_owned(), now.to_string());
        }
        if !self.is_good(&new, &bundle, now)
            || (is_announced && !authority.signer.issued(&new, now))
        {
            let signer = authority.signs(is_announced, now);
            self.issue(&mut new, signer, now)?;
        } else if new.time(ISSUED_AT).is_none() {
            new.annotations
                .insert(ISSUED_AT.to_owned(), now.to_string());
        }
        Ok(new)
    }

    fn issue(&self, new: &mut Held, signer: &Signer, now: Timestamp) -> Result<(), Error> {
        let until = now + SignedDuration::from_hours(self.settings.validity_hours);
        let request = Request {
            purpose: self.purpose,
            names: &self.names,
            until: until.min(signer.until),
        };
        let by = (signer.common_name.as_str(), signer.pair.key.as_str());
        let pair = issue::leaf(&request, by, now)?;
        new.data
            .insert("tls.crt".to_owned(), pair.certificate.into_bytes());
        new.data.insert("tls.key".to_owned(), pair.key.into_bytes());
        new.annotations
            .insert(ISSUED_AT.to_owned(), now.to_string());
        Ok(())
    }

    /// Whether what is there is what is wanted, trusted, and not about to end.
    fn is_good(&self, held: &Held, bundle: &str, now: Timestamp) -> bool {
        let Some(leaf) = judged(held, bundle.as_bytes(), now) else {
            return false;
        };
        let mut names = leaf.dns_names.clone();
        names.extend(leaf.addresses.iter().map(ToString::to_string));
        names.sort();
        let renewal = self.renewal(leaf.not_after, leaf.not_before);
        names == self.names
            && leaf.common_name.as_deref() == Some(self.purpose.common_name())
            && (leaf.may_serve, leaf.may_call) == (self.purpose.serves(), self.purpose.calls())
            && renewal.is_some_and(|at| now < at)
    }

    /// When it is to be renewed. One that was cut short by the end of its authority is renewed
    /// after two thirds at the latest, so that it is not renewed on every look.
    fn renewal(&self, not_after: i64, not_before: i64) -> Option<Timestamp> {
        let wanted = self.settings.renew_before_hours.saturating_mul(3_600);
        let third = (not_after - not_before) / 3;
        let whole = self.settings.validity_hours.saturating_mul(3_600);
        let before = match not_after - not_before < whole {
            true => wanted.min(third),
            false => wanted,
        };
        Timestamp::from_second(not_after - before).ok()
    }
}

impl CertificatePlan {
    fn expect(&mut self, leaf: &Leaf<'_>, new: &Held, now: Timestamp) {
        let read = quorate_tls::certificates(new.get("tls.crt")).ok();
        let Some(read) = read.and_then(|all| all.into_iter().next()) else {
            return;
        };
        if let Ok(end) = Timestamp::from_second(read.not_after) {
            self.expires.insert(leaf.secret.clone(), end);
        }
        if let Some(at) = leaf.renewal(read.not_after, read.not_before) {
            self.look_at(at, now);
        }
    }

    pub(super) fn look_at(&mut self, at: Timestamp, now: Timestamp) {
        if at > now {
            self.look_again = Some(self.look_again.map_or(at, |known| known.min(at)));
        }
    }

    fn write(&mut self, cluster: &QuorateCluster, name: String, there: Option<&Held>, new: Held) {
        // Annotations of others, and those that the API server's clients leave, are not ours.
        let same = there.is_some_and(|there| {
            let kept = |(key, value): (&String, &String)| there.annotations.get(key) == Some(value);
            there.data == new.data && new.annotations.iter().all(kept)
        });
        if same {
            return;
        }
        let mut metadata = cluster_meta(cluster, name);
        metadata.annotations = Some(new.annotations);
        let data = new
            .data
            .into_iter()
            .map(|(key, value)| (key, ByteString(value)));
        self.writes.push(Secret {
            metadata,
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data.collect()),
            ..Secret::default()
        });
    }
}
