//! The operator on a real Kubernetes whose store is Quorate: installed by helm, used by kubectl.
//!
//! Scenarios run one after the other on one cluster, each in a namespace of its own, and the next
//! one runs whatever became of the one before. `QUORATE_E2E_SCENARIO=a,b` runs some of them;
//! `KUBECONFIG` names a cluster of one's own, `QUORATE_E2E_HELM_ARGS` what helm must be told there.

mod backup;
mod install;
mod life;
mod monitoring;
mod trouble;

use anyhow::{Context, Result, ensure};
use quorate_e2e::kubernetes::real::Real;
use serde_json::Value;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Instant;

type Run<'r> = Pin<Box<dyn Future<Output = Result<()>> + 'r>>;

/// One story with its name.
struct Scenario {
    name: &'static str,
    run: for<'r> fn(&'r Real) -> Run<'r>,
    /// It reaches below Kubernetes, so that it needs a node of our own.
    is_inside: bool,
}

/// Names a function as a scenario.
macro_rules! scenario {
    ($module:ident :: $name:ident, inside: $inside:literal) => {
        Scenario {
            name: stringify!($name),
            run: |real| Box::pin($module::$name(real)),
            is_inside: $inside,
        }
    };
}

/// In their order: the first installs what all others use, the last removes it.
const SCENARIOS: &[Scenario] = &[
    scenario!(install::helm_installs_the_operator, inside: false),
    scenario!(install::manifests_are_fresh, inside: false),
    scenario!(install::ten_lines_make_a_cluster, inside: false),
    scenario!(install::bad_specs_are_refused, inside: false),
    scenario!(install::ctl_needs_no_flags, inside: false),
    scenario!(life::replicas_follow_the_spec, inside: false),
    scenario!(life::pods_and_volumes_come_back, inside: false),
    scenario!(life::containers_may_be_killed, inside: true),
    scenario!(life::an_image_and_a_field_roll, inside: true),
    scenario!(life::the_operator_may_be_killed, inside: true),
    scenario!(life::clusters_hibernate, inside: false),
    scenario!(trouble::specs_change_in_the_middle, inside: false),
    scenario!(trouble::hand_edits_are_put_right, inside: false),
    scenario!(trouble::a_missing_secret_stalls_until_it_is_there, inside: false),
    scenario!(backup::backups_each_minute_start_new_clusters, inside: false),
    scenario!(monitoring::prometheus_sees_members, inside: true),
    scenario!(install::helm_test_passes, inside: false),
    scenario!(install::upgrade_and_uninstall_leave_clusters, inside: false),
];

/// Where the chart lies; at run time, since checkouts may share this program.
fn chart(name: &str) -> Result<String> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| "e2e".into());
    let chart = PathBuf::from(package).join("../charts").join(name);
    ensure!(chart.is_dir(), "no chart at {}", chart.display());
    Ok(chart.display().to_string())
}

/// The release's namespace.
const SYSTEM: &str = "quorate-system";

/// The Pods of the operator.
async fn operator_pods(real: &Real) -> Result<Vec<Value>> {
    let selector = "app.kubernetes.io/name=quorate-operator";
    let args = ["pods", "-n", SYSTEM, "-l", selector];
    let list = real.kube.get(&args).await?.context("a list")?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// The scenarios that were asked for, and the first, without which there is nothing.
fn chosen() -> Result<Vec<&'static Scenario>> {
    let Ok(names) = std::env::var("QUORATE_E2E_SCENARIO") else {
        return Ok(SCENARIOS.iter().collect());
    };
    let names: Vec<&str> = names.split(',').collect();
    for name in &names {
        let known = SCENARIOS.iter().any(|scenario| scenario.name == *name);
        ensure!(known, "there is no scenario {name}");
    }
    let wanted = SCENARIOS.iter().enumerate();
    let wanted = wanted.filter(|(at, one)| *at == 0 || names.contains(&one.name));
    Ok(wanted.map(|(_, scenario)| scenario).collect())
}

#[tokio::test]
async fn the_operator_on_a_real_kubernetes() -> Result<()> {
    let scenarios = chosen()?;
    let started = Instant::now();
    let real = Real::start().await?;
    eprintln!("Kubernetes is up after {:.1?}", started.elapsed());
    let mut failed = Vec::new();
    for scenario in scenarios {
        let name = scenario.name;
        if scenario.is_inside && real.own.is_none() {
            eprintln!("{name}: left out: it needs a node of the harness's own");
            continue;
        }
        let started = Instant::now();
        let result = (scenario.run)(&real).await;
        let took = started.elapsed();
        match result {
            Ok(()) => eprintln!("{name}: passed in {took:.1?}"),
            Err(error) => {
                let error = real.explain(error).await;
                eprintln!("{name}: FAILED after {took:.1?}: {error:#}");
                failed.push(name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
