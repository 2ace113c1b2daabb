//! From nothing to a cluster in use, and back.

use crate::{SYSTEM, chart, operator_pods};
use anyhow::{Context, Result, bail, ensure};
use quorate_e2e::binaries::{helm_program, prometheus_definitions};
use quorate_e2e::kubernetes::real::Real;
use quorate_e2e::kubernetes::real::node::is_ready;
use quorate_e2e::kubernetes::real::space::{CONVERGE_DEADLINE, Space, condition};
use serde_json::{Value, json};
use std::path::Path;
use tokio::process::Command;

/// What the documentation shows as a first cluster.
const FIRST: &str = "\
apiVersion: quorate.dev/v1alpha1
kind: QuorateCluster
metadata:
  name: demo
  namespace: first
spec:
  replicas: 3
  storage:
    size: 1Gi
";

/// What a user adds to helm's arguments on a cluster of their own.
fn helm_args() -> Vec<String> {
    let args = std::env::var("QUORATE_E2E_HELM_ARGS").unwrap_or_default();
    args.split_whitespace().map(str::to_owned).collect()
}

async fn helm(real: &Real, verb: &str) -> Result<String> {
    let chart = chart("quorate")?;
    let extra = helm_args();
    let mut args = vec![
        verb,
        "quorate",
        &chart,
        "--namespace",
        SYSTEM,
        "--create-namespace",
        "--wait",
        "--timeout=4m",
    ];
    args.extend(extra.iter().map(String::as_str));
    real.kube.helm(&args).await
}

pub async fn helm_installs_the_operator(real: &Real) -> Result<()> {
    for file in prometheus_definitions()? {
        real.kube.apply(&std::fs::read_to_string(file)?).await?;
    }
    let notes = helm(real, "install").await?;
    ensure!(notes.contains("kind: QuorateCluster"), "{notes}");
    let pods = operator_pods(real).await?;
    ensure!(pods.len() == 2 && pods.iter().all(is_ready), "{pods:#?}");
    let args = ["servicemonitor", "-n", SYSTEM, "quorate-operator"];
    ensure!(real.kube.get(&args).await?.is_some(), "no ServiceMonitor");
    for field in ["replicas", "storage.size", "tls.client", "backup.schedule"] {
        let path = format!("quoratecluster.spec.{field}");
        let told = real.kube.kubectl(&["explain", &path], "").await?;
        ensure!(told.contains("DESCRIPTION"), "{told}");
    }
    Ok(())
}

/// What is committed for `kubectl apply` is what the chart says.
pub async fn manifests_are_fresh(real: &Real) -> Result<()> {
    let made = real.dir().join("install.yaml");
    let root = Path::new(&chart("quorate")?).join("../..");
    let output = Command::new(root.join("scripts/manifests.sh"))
        .arg(&made)
        .env("HELM", helm_program()?)
        .output()
        .await?;
    ensure!(output.status.success(), "{output:?}");
    let committed = std::fs::read_to_string(root.join("manifests/install.yaml"))?;
    let same = committed == std::fs::read_to_string(made)?;
    ensure!(same, "manifests/install.yaml is stale: `make manifests`");
    Ok(())
}

pub async fn ten_lines_make_a_cluster(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "first").await?;
    real.kube.kubectl(&["apply", "-f", "-"], FIRST).await?;
    let wait = [
        "wait",
        "quoratecluster/demo",
        "--for=condition=Ready",
        "--timeout=5m",
    ];
    space.kubectl(&wait).await?;
    let cluster = space.settled("demo", 3).await?;
    for kind in ["QuorumHealthy", "TLSReady", "ClusterIDConsistent"] {
        ensure!(condition(&cluster, kind).0 == "True", "{kind}: {cluster:#}");
    }
    let pods = space.pods("demo").await?;
    ensure!(pods.len() == 3 && pods.iter().all(is_ready), "{pods:#?}");
    for pod in &pods {
        let is_root = pod["spec"]["securityContext"]["runAsNonRoot"] != true;
        ensure!(!is_root, "it may run as root: {pod:#}");
    }
    let budget = space.get(&["pdb", "-o", "json"]).await?;
    let allowed = &budget["items"][0]["status"]["disruptionsAllowed"];
    ensure!(*allowed == 1, "of three voters one may go: {budget:#}");
    for service in ["demo-client", "demo-peer"] {
        ensure!(
            !space.get(&["service", service]).await?.is_null(),
            "no {service}"
        );
    }
    let columns = space.kubectl(&["get", "quoratecluster"]).await?;
    ensure!(columns.contains("3/3"), "{columns}");
    eprintln!("{columns}");
    space.remove().await
}

pub async fn bad_specs_are_refused(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "refused").await?;
    let cases = [
        (json!({"replicas": 2}), "replicas must be 1, 3, 5 or 7"),
        (json!({"replicas": "three"}), "expected numeric"),
        (
            json!({"replicas": 1, "storage": {"medium": "Memory"}}),
            "needs at least 3 replicas",
        ),
        (
            json!({"engine": {"heartbeatMs": 100, "electionMs": 200}}),
            "electionMs must be at least 5 times heartbeatMs",
        ),
        (
            json!({"engine": {"extraArgs": {"data-dir": "/elsewhere"}}}),
            "may not name one that the operator sets",
        ),
        (
            json!({"tls": {"client": {"disabled": true, "secretName": "x"}}}),
            "certificates come from one place",
        ),
        (json!({"backup": {"store": {}}}), "exactly one of"),
    ];
    for (spec, reason) in cases {
        match space.cluster("bad", &spec).await {
            Ok(()) => bail!("{spec} was taken"),
            Err(error) => ensure!(format!("{error:#}").contains(reason), "{spec}: {error:#}"),
        }
    }
    ensure!(space.get(&["quoratecluster", "bad"]).await?.is_null());
    space.remove().await
}

pub async fn ctl_needs_no_flags(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "ctl").await?;
    space.cluster("main", &json!({"replicas": 3})).await?;
    space.settled("main", 3).await?;
    let said = space.ctl("main", &["quoratectl", "put", "a", "b"]).await?;
    ensure!(said == "OK\n", "{said}");
    let said = space.ctl("main", &["etcdctl", "get", "a"]).await?;
    ensure!(said == "a\nb\n", "{said}");
    let words = [
        "quoratectl",
        "endpoint",
        "status",
        "--cluster",
        "-w",
        "table",
    ];
    let table = space.ctl("main", &words).await?;
    for member in space.members("main").await? {
        let url = format!("https://{member}.main-peer.ctl.svc:2379");
        ensure!(table.contains(&url), "{url} is missing:\n{table}");
    }
    eprintln!("{table}");
    // Both in one Pod: the file lies in its own /tmp.
    let pods = space.members("main").await?;
    let pod = pods.first().context("a member")?;
    let exec = ["exec", pod.as_str(), "-c", "quorate", "--"];
    let save = ["quoratectl", "snapshot", "save", "/tmp/x.db"];
    space.kubectl(&[&exec[..], &save[..]].concat()).await?;
    let status = ["etcdutl", "snapshot", "status", "/tmp/x.db", "-w", "json"];
    let status = space.kubectl(&[&exec[..], &status[..]].concat()).await?;
    let status: Value = serde_json::from_str(&status)?;
    ensure!(status["revision"] == 2, "{status}");
    space.remove().await
}

pub async fn helm_test_passes(real: &Real) -> Result<()> {
    let args = ["test", "quorate", "--namespace", SYSTEM, "--timeout=5m"];
    let said = real.kube.helm(&args).await?;
    ensure!(said.contains("Succeeded"), "{said}");
    let left = ["quoratecluster,pvc", "-n", SYSTEM];
    real.kube.until_gone(CONVERGE_DEADLINE, &left).await
}

pub async fn upgrade_and_uninstall_leave_clusters(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "kept").await?;
    space.cluster("main", &json!({"replicas": 1})).await?;
    space.settled("main", 1).await?;
    space.ctl("main", &["quoratectl", "put", "a", "b"]).await?;
    let before = space.members("main").await?;
    helm(real, "upgrade").await?;
    let uninstall = ["uninstall", "quorate", "--namespace", SYSTEM, "--wait"];
    real.kube.helm(&uninstall).await?;
    let gone = ["deployment", "-n", SYSTEM, "quorate-operator"];
    real.kube.until_gone(CONVERGE_DEADLINE, &gone).await?;
    let said = space.ctl("main", &["quoratectl", "get", "a"]).await?;
    ensure!(said == "a\nb\n", "{said}");
    // What is installed again finds the cluster and goes on with it.
    helm(real, "install").await?;
    space.edit("main", &json!({"replicas": 3})).await?;
    space.settled("main", 3).await?;
    ensure!(space.members("main").await?.is_superset(&before));
    // A namespace that goes takes its clusters along, finalizers and all.
    space.remove().await?;
    real.kube.helm(&uninstall).await?;
    Ok(())
}
