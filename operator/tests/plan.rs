//! The planner in a model world with random faults: what must hold of every action, and that it
//! gets there when the faults stop.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use world::{Blind, World};

/// How many looks it may take to get there.
const LOOKS_MAX: usize = 1500;

fn config(cases: u32) -> Config {
    Config {
        cases,
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..Config::default()
    }
}

/// Runs with the last lines of the world's log in what a failure prints.
fn run(world: &mut World, body: impl FnOnce(&mut World)) {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(world)));
    if let Err(panic) = caught {
        let from = world.log.len().saturating_sub(30);
        eprintln!("{}", world.log[from..].join("\n"));
        std::panic::resume_unwind(panic);
    }
}

fn settle(world: &mut World) {
    for _ in 0..LOOKS_MAX {
        let plan = world.step();
        let rest = plan.action.is_none() && plan.operation.is_none() && plan.stalled.is_none();
        if rest {
            assert!(world.converged(), "at rest, but not there");
            return;
        }
    }
    panic!("{LOOKS_MAX} looks were not enough");
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn converges_when_faults_stop(
        setting in world::setting(),
        script in prop::collection::vec(world::fault(), 0..50),
    ) {
        let mut world = World::new(&setting);
        run(&mut world, |world| {
            settle(world);
            script.iter().for_each(|fault| world.suffer(fault, false));
            world.heal();
            settle(world);
        });
    }
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn holds_the_rules_whatever_happens(
        setting in world::setting(),
        script in prop::collection::vec(world::fault(), 0..50),
    ) {
        let mut world = World::new(&setting);
        run(&mut world, |world| {
            script.iter().for_each(|fault| world.suffer(fault, true));
            world.wanted.deleting = true;
            for _ in 0..50 {
                drop(world.step());
            }
            assert!(world.wanted.released && world.objects.is_empty());
        });
    }
}

/// The rules above are worth something only if they find out planners that break them.
#[test]
fn a_planner_that_overlooks_something_is_caught() {
    for blind in [
        Blind::Health,
        Blind::Data,
        Blind::Objects,
        Blind::Begun,
        Blind::Learners,
        Blind::Leader,
    ] {
        let mut runner = TestRunner::deterministic();
        let scripts = (
            world::setting(),
            prop::collection::vec(world::fault(), 0..50),
        );
        let caught = (0..200).any(|_| {
            let (setting, script) = scripts.new_tree(&mut runner).unwrap().current();
            let mut world = World::new(&setting);
            let all = std::panic::AssertUnwindSafe(|| {
                settle(&mut world);
                world.blind = Some(blind);
                script.iter().for_each(|fault| world.suffer(fault, false));
                world.heal();
                settle(&mut world);
            });
            std::panic::catch_unwind(all).is_err()
        });
        assert!(caught, "nothing notices a planner that overlooks {blind:?}");
    }
}
