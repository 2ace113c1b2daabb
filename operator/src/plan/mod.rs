//! What to do next: a pure function of what was seen.
//!
//! A ladder of rungs, one file each. The first that decides ends the look; one that cannot go on
//! notes why and lets those below it try. Every rule takes what it needs from the look at hand, so
//! that it makes no difference where an earlier pass was interrupted.

mod births;
mod bootstrap;
mod deletion;
mod faults;
mod healing;
mod hibernation;
mod identity;
mod leaving;
mod look;
mod pods;
mod quorum;
mod rolling;
mod scaling;
mod space;
mod step;
mod volumes;
mod waiting;

use std::time::Duration;

use crate::api::Lifecycle;
use crate::model::{Observed, Plan};

use look::Look;
use step::{Notes, Step};

/// When to look again after something was done.
const AFTER_ACTION: Duration = Duration::from_secs(1);
/// When to look again while something is waited for.
const WHILE_WAITING: Duration = Duration::from_secs(2);
/// When to look again while someone has to act first.
const WHILE_STALLED: Duration = Duration::from_secs(10);
/// When to look again while all is well.
const WHILE_SETTLED: Duration = Duration::from_secs(15);
/// When to look again while nothing may be done.
const WHILE_RESTING: Duration = Duration::from_secs(30);

type Rung = fn(&Look<'_>, &mut Notes) -> Option<Step>;

/// The rungs, the most urgent first.
const LADDER: &[Rung] = &[
    identity::rung,
    hibernation::rung,
    bootstrap::rung,
    pods::rung,
    quorum::rung,
    leaving::rung,
    births::rung,
    healing::rung,
    space::rung,
    volumes::rung,
    scaling::out_of_the_danger_zone,
    rolling::rung,
    scaling::inwards,
    scaling::outwards,
    waiting::rung,
];

/// What to do next for a cluster. The first rule that applies decides; one action a look.
#[must_use]
pub fn plan(observed: &Observed) -> Plan {
    let look = Look::new(observed);
    if observed.cluster.deleting {
        let step = deletion::rung(&look);
        return finish(&look, Notes::default(), Some(step));
    }
    let mut notes = Notes::default();
    let step = LADDER.iter().find_map(|rung| rung(&look, &mut notes));
    let mut plan = finish(&look, notes, step);
    if observed.cluster.lifecycle == Lifecycle::Paused {
        plan.action = None;
        plan.look_again = WHILE_RESTING;
        if plan.operation.is_some() {
            plan.blocked_by = Some(
                "spec.lifecycle is Paused: set it to Running to let the operator go on".to_owned(),
            );
        }
    }
    plan
}

/// Whether a member answers, knows a leader and is fit to be relied on. What `unhealthy_since`
/// follows.
#[must_use]
pub fn is_healthy(observed: &Observed, name: &str) -> bool {
    Look::new(observed).healthy(name)
}

/// The name of the member that leads, if one says so.
#[must_use]
pub fn leader(observed: &Observed) -> Option<&str> {
    Look::new(observed).leader_name()
}

fn finish(look: &Look<'_>, notes: Notes, step: Option<Step>) -> Plan {
    let Notes { waiting, stalled } = notes;
    let step = step.or(waiting).unwrap_or_default();
    let resting = look.cluster().lifecycle == Lifecycle::Hibernated;
    let look_again = match (&step.action, &stalled, &step.operation) {
        (Some(_), _, _) => AFTER_ACTION,
        (None, Some(_), _) => WHILE_STALLED,
        (None, None, Some(_)) => WHILE_WAITING,
        (None, None, None) if resting => WHILE_RESTING,
        (None, None, None) => WHILE_SETTLED,
    };
    Plan {
        action: step.action,
        operation: step.operation,
        blocked_by: step.blocked_by,
        stalled,
        look_again,
    }
}

#[cfg(test)]
mod plan_test;
