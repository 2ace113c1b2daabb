//! What a cluster lives through, under load: nothing acknowledged is ever lost.

use crate::operator_pods;
use anyhow::{Context, Result, ensure};
use quorate_e2e::kubernetes::real::load::Load;
use quorate_e2e::kubernetes::real::space::{CONVERGE_DEADLINE, Space};
use quorate_e2e::kubernetes::real::{Own, Real};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// A cluster that is quick to heal.
fn spec(replicas: usize) -> Value {
    json!({
        "replicas": replicas,
        "storage": {"size": "1Gi", "reclaim": "Delete"},
        "healing": {"replaceUnhealthyAfterSeconds": 20, "maxReplacementsPerHour": 20},
    })
}

/// The members that the store itself tells of, and whether they all vote.
async fn voters(space: &Space, cluster: &str) -> Result<BTreeSet<String>> {
    let words = ["quoratectl", "member", "list", "-w", "json"];
    let answer: Value = serde_json::from_str(&space.ctl(cluster, &words).await?)?;
    let members = answer["members"].as_array().context("members")?;
    let mut names = BTreeSet::new();
    for member in members {
        ensure!(member["isLearner"] != true, "a learner is left: {answer}");
        names.insert(member["name"].as_str().context("a name")?.to_owned());
    }
    Ok(names)
}

pub async fn replicas_follow_the_spec(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "scale").await?;
    space.cluster("main", &spec(1)).await?;
    space.settled("main", 1).await?;
    let load = Load::start(&space, "main").await?;
    for replicas in [3, 5, 3, 1] {
        let scale = format!("--replicas={replicas}");
        space
            .kubectl(&["scale", "quoratecluster/main", &scale])
            .await?;
        space.settled("main", replicas).await?;
        let names = space.members("main").await?;
        ensure!(names.len() == replicas, "{replicas} Pods: {names:?}");
        ensure!(voters(&space, "main").await? == names, "members are Pods");
        load.more().await?;
    }
    let writes = load.finish().await?;
    eprintln!("1, 3, 5, 3, 1 members: {writes} acknowledged writes are there");
    // Claims of members that left go with them, as `reclaim: Delete` says.
    space
        .until("one claim", CONVERGE_DEADLINE, &["pvc"], |list| {
            list["items"].as_array().is_some_and(|all| all.len() == 1)
        })
        .await?;
    space.remove().await
}

/// A Pod that is deleted comes back under its name; with its claim it is another member.
pub async fn pods_and_volumes_come_back(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "delete").await?;
    space.cluster("main", &spec(3)).await?;
    space.settled("main", 3).await?;
    let load = Load::start(&space, "main").await?;
    let before = space.pods("main").await?;
    let victim = before[0]["metadata"]["name"].as_str().context("a name")?;
    space.kubectl(&["delete", "pod", victim]).await?;
    let old = before[0]["metadata"]["uid"].clone();
    let anew = |pod: &Value| !pod.is_null() && pod["metadata"]["uid"] != old;
    let args = ["pod", victim];
    space
        .until("the Pod again", CONVERGE_DEADLINE, &args, anew)
        .await?;
    space.settled("main", 3).await?;
    ensure!(space.members("main").await?.contains(victim));
    let claim = format!("pvc/{victim}-data");
    space.kubectl(&["delete", &claim, "--wait=false"]).await?;
    space
        .kubectl(&["delete", "pod", victim, "--wait=false"])
        .await?;
    space
        .until("another member", CONVERGE_DEADLINE, &["pods"], |list| {
            let all = list["items"].as_array();
            all.is_some_and(|all| all.iter().all(|pod| pod["metadata"]["name"] != victim))
        })
        .await?;
    space.settled("main", 3).await?;
    let names = space.members("main").await?;
    ensure!(
        !names.contains(victim),
        "names are not used again: {names:?}"
    );
    ensure!(voters(&space, "main").await? == names);
    let writes = load.finish().await?;
    eprintln!("a Pod, and a Pod with its volume: {writes} acknowledged writes are there");
    space.remove().await
}

fn own(real: &Real) -> Result<&Own> {
    real.own.as_ref().context("a node of our own")
}

/// Kills the first process of a container.
async fn kill(own: &Own, container: &Value) -> Result<()> {
    let id = container["containerID"]
        .as_str()
        .context("a container's ID")?;
    let id = id.trim_start_matches("containerd://");
    let args = ["task", "kill", "--signal", "SIGKILL", id];
    own.node.ctr(&own.sandbox, &args).await?;
    Ok(())
}

pub async fn containers_may_be_killed(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "kill").await?;
    space.cluster("main", &spec(3)).await?;
    space.settled("main", 3).await?;
    let load = Load::start(&space, "main").await?;
    let before = space.members("main").await?;
    for container in ["quorate", "sidecar"] {
        for name in &before {
            let pod = space.get(&["pod", name]).await?;
            let found = status(&pod, container).context("the container")?;
            let restarts = found["restartCount"].as_u64().context("a number")?;
            kill(own(real)?, found).await?;
            let args = ["pod", name.as_str()];
            space
                .until("a restart", Duration::from_secs(60), &args, |pod| {
                    status(pod, container).is_some_and(|now| {
                        now["restartCount"].as_u64() > Some(restarts) && now["ready"] == true
                    })
                })
                .await?;
            space.settled("main", 3).await?;
            load.more().await?;
        }
    }
    ensure!(
        space.members("main").await? == before,
        "nobody was replaced"
    );
    let writes = load.finish().await?;
    eprintln!("kill -9 of each container: {writes} acknowledged writes are there");
    space.remove().await
}

fn status<'p>(pod: &'p Value, container: &str) -> Option<&'p Value> {
    let all = pod["status"]["containerStatuses"].as_array()?;
    all.iter().find(|one| one["name"] == container)
}

/// The image of the container `quorate` of each Pod, and its arguments.
async fn programs(space: &Space) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for pod in space.pods("main").await? {
        let all = pod["spec"]["containers"].as_array().context("containers")?;
        let one = all.iter().find(|one| one["name"] == "quorate");
        let one = one.context("the container quorate")?;
        let image = one["image"].as_str().context("an image")?.to_owned();
        found.push((image, format!("{}{}", one["args"], one["command"])));
    }
    Ok(found)
}

pub async fn an_image_and_a_field_roll(real: &Real) -> Result<()> {
    let own = own(real)?;
    let space = Space::new(&real.kube, "roll").await?;
    space.cluster("main", &spec(3)).await?;
    space.settled("main", 3).await?;
    let load = Load::start(&space, "main").await?;
    let before = space.members("main").await?;
    let programs_before = programs(&space).await?;
    let (image, _) = programs_before.first().context("a member")?;
    let (repository, _) = image.rsplit_once(':').context("a tag")?;
    let next = format!("{repository}:next");
    let tag = ["images", "tag", "--force", image, &next];
    own.node.ctr(&own.sandbox, &tag).await?;
    space
        .edit("main", &json!({"image": {"tag": "next"}}))
        .await?;
    space.settled("main", 3).await?;
    for (image, _) in programs(&space).await? {
        ensure!(image == next, "{image} still runs");
    }
    space
        .edit(
            "main",
            &json!({"engine": {"heartbeatMs": 120, "electionMs": 1200}}),
        )
        .await?;
    space.settled("main", 3).await?;
    for (_, args) in programs(&space).await? {
        ensure!(args.contains("1200"), "it was not told: {args}");
    }
    space
        .edit(
            "main",
            &json!({"pod": {"labels": {"example.com/team": "a"}}}),
        )
        .await?;
    space.settled("main", 3).await?;
    for pod in space.pods("main").await? {
        ensure!(
            pod["metadata"]["labels"]["example.com/team"] == "a",
            "{pod:#}"
        );
    }
    ensure!(
        space.members("main").await? == before,
        "members keep their names"
    );
    let writes = load.finish().await?;
    eprintln!("image, flags and labels rolled: {writes} acknowledged writes are there");
    space.remove().await
}

pub async fn the_operator_may_be_killed(real: &Real) -> Result<()> {
    let own = own(real)?;
    let space = Space::new(&real.kube, "killed").await?;
    space.cluster("main", &spec(1)).await?;
    space.settled("main", 1).await?;
    let load = Load::start(&space, "main").await?;
    space.edit("main", &json!({"replicas": 3})).await?;
    // At the first sign of another member, and again at the second.
    for count in [2, 3] {
        space
            .until(
                "a member on its way",
                CONVERGE_DEADLINE,
                &["pods", "-l", "quorate.dev/cluster=main"],
                |list| {
                    list["items"]
                        .as_array()
                        .is_some_and(|all| all.len() >= count)
                },
            )
            .await?;
        for pod in &operator_pods(real).await? {
            let container = status(pod, "operator").context("the operator")?;
            if container["state"]["running"].is_object() {
                kill(own, container).await?;
            }
        }
    }
    space.settled("main", 3).await?;
    ensure!(voters(&space, "main").await? == space.members("main").await?);
    let writes = load.finish().await?;
    eprintln!("the operator killed twice: {writes} acknowledged writes are there");
    space.remove().await
}

pub async fn clusters_hibernate(real: &Real) -> Result<()> {
    let space = Space::new(&real.kube, "sleep").await?;
    space.cluster("main", &spec(3)).await?;
    space.settled("main", 3).await?;
    space.ctl("main", &["quoratectl", "put", "a", "b"]).await?;
    let before = space.members("main").await?;
    space
        .edit("main", &json!({"lifecycle": "Hibernated"}))
        .await?;
    let pods = ["-n", space.name.as_str(), "pods"];
    real.kube.until_gone(CONVERGE_DEADLINE, &pods).await?;
    space.edit("main", &json!({"lifecycle": "Running"})).await?;
    space.settled("main", 3).await?;
    ensure!(space.members("main").await? == before, "the same members");
    let said = space.ctl("main", &["quoratectl", "get", "a"]).await?;
    ensure!(said == "a\nb\n", "{said}");
    space.remove().await
}
