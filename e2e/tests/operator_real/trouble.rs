//! What only the operator can know, and what others do to its objects.

use anyhow::{Context, Result, ensure};
use quorate_e2e::kubernetes::real::Real;
use quorate_e2e::kubernetes::real::load::Load;
use quorate_e2e::kubernetes::real::space::{CONVERGE_DEADLINE, Space, condition};
use serde_json::{Value, json};

fn storage() -> Value {
    json!({"size": "1Gi", "reclaim": "Delete"})
}

/// A Secret that is missing stalls the cluster; once it is there, the cluster goes on by itself.
pub async fn a_missing_secret_stalls_until_it_is_there(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "trouble").await?;
    // The certificates of another cluster of the same name are good ones, for its names.
    let spec = json!({"replicas": 1, "storage": storage()});
    space.cluster("main", &spec).await?;
    space.settled("main", 1).await?;
    let given = space.get(&["secret", "main-peer-tls"]).await?;
    let data = given["data"].clone();
    space
        .kubectl(&["delete", "quoratecluster", "main", "--timeout=120s"])
        .await?;
    let tls = json!({"peer": {"secretName": "mine"}});
    let spec = json!({"replicas": 1, "storage": storage(), "tls": tls});
    space.cluster("main", &spec).await?;
    let args = ["quoratecluster", "main"];
    let stalled = |cluster: &Value| condition(cluster, "Stalled").0 == "True";
    let cluster = space
        .until("a cluster that stalls", CONVERGE_DEADLINE, &args, stalled)
        .await?;
    let (_, reason) = condition(&cluster, "Stalled");
    ensure!(!reason.is_empty(), "a reason is missing: {cluster:#}");
    let told = serde_json::to_string(&cluster["status"]["conditions"])?;
    ensure!(told.contains("mine"), "it says which Secret: {told}");
    let secret = json!({"type": "kubernetes.io/tls", "data": data});
    space.apply("Secret", "mine", &secret).await?;
    space.settled("main", 1).await?;
    space.remove().await
}

/// Owned objects that others delete or change are put right.
pub async fn hand_edits_are_put_right(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "edits").await?;
    let spec = json!({"replicas": 3, "storage": storage()});
    space.cluster("main", &spec).await?;
    space.settled("main", 3).await?;
    space.kubectl(&["delete", "service", "main-client"]).await?;
    let args = ["service", "main-client"];
    let there = |object: &Value| !object.is_null();
    space
        .until("the Service", CONVERGE_DEADLINE, &args, there)
        .await?;
    let patch = r#"{"spec": {"minAvailable": 0}}"#;
    space
        .kubectl(&["patch", "pdb", "main", "--type=merge", "-p", patch])
        .await?;
    let right = |budget: &Value| budget["spec"]["minAvailable"] == 2;
    space
        .until("the budget", CONVERGE_DEADLINE, &["pdb", "main"], right)
        .await?;
    let patch = r#"{"spec": {"selector": {"quorate.dev/role": "nobody"}}}"#;
    space
        .kubectl(&[
            "patch",
            "service",
            "main-client",
            "--type=merge",
            "-p",
            patch,
        ])
        .await?;
    let right = |service: &Value| service["spec"]["selector"]["quorate.dev/role"] == "voter";
    space
        .until("its selector", CONVERGE_DEADLINE, &args, right)
        .await?;
    space.remove().await
}

/// The spec that counts is the last one, whatever the operator was in the middle of.
pub async fn specs_change_in_the_middle(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "middle").await?;
    let spec = json!({"replicas": 3, "storage": storage()});
    space.cluster("main", &spec).await?;
    space.settled("main", 3).await?;
    let load = Load::start(&space, "main").await?;
    space.edit("main", &json!({"replicas": 5})).await?;
    let selector = ["pods", "-l", "quorate.dev/cluster=main"];
    let more = |list: &Value| list["items"].as_array().is_some_and(|all| all.len() > 3);
    space
        .until("a fourth", CONVERGE_DEADLINE, &selector, more)
        .await?;
    let spec = json!({"replicas": 1, "pod": {"labels": {"example.com/team": "a"}}});
    space.edit("main", &spec).await?;
    space.settled("main", 1).await?;
    let pods = space.pods("main").await?;
    let pod = pods.first().context("a Pod")?;
    ensure!(
        pod["metadata"]["labels"]["example.com/team"] == "a",
        "{pod:#}"
    );
    let writes = load.finish().await?;
    eprintln!("3, 5, no: 1: {writes} acknowledged writes are there");
    space.remove().await
}
