//! A real Kubernetes API server and controller manager on three members, one of which is killed.

use anyhow::{Context, Result, ensure};
use quorate_e2e::binaries::Kind;
use quorate_e2e::check;
use quorate_e2e::cluster::Cluster;
use quorate_e2e::history::MemberHash;
use quorate_e2e::kubernetes::objects::{Writers, Written, object};
use quorate_e2e::kubernetes::rest::{Answer, Rest};
use quorate_e2e::kubernetes::watching::{self, Seen, listed, replay, revision};
use quorate_e2e::kubernetes::{COMPACTION_INTERVAL, ControlPlane, UNCACHED};
use quorate_e2e::secure::{self, Files, Sides, client, url};
use quorate_e2e::wait;
use quorate_proto::etcdserverpb as pb;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const BOTH: Sides = Sides::BOTH;

/// Where the writers write.
const BUSY: &str = "/api/v1/namespaces/busy";

const WRITERS: usize = 8;

/// Objects that each writer makes at least, in each of two collections.
const EACH: usize = 250;

/// Collections with a cache in the API server, and without.
const COLLECTIONS: [&str; 2] = ["configmaps", UNCACHED];

const NAMESPACES: &str = "/api/v1/namespaces";

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn is_gone(answer: &Answer) -> bool {
    answer.status == 404
}

fn count(answer: &Answer) -> usize {
    answer.body["items"].as_array().map_or(0, Vec::len)
}

/// A namespace goes only when its objects went, and those only when their finalizers let them.
async fn namespaces_come_and_go(rest: &Rest) -> Result<()> {
    rest.create(NAMESPACES, &named("passing")).await?;
    let path = format!("{NAMESPACES}/passing");
    let maps = format!("{path}/configmaps");
    let held =
        json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}, "data": {}});
    rest.create(&maps, &held).await?;
    rest.create(&maps, &named("free")).await?;
    let account = format!("{path}/serviceaccounts/default");
    rest.until("a service account", &account, |a| a.status == 200)
        .await?;
    rest.delete(&path).await?;
    rest.until("a free object that goes", &format!("{maps}/free"), is_gone)
        .await?;
    let namespace = rest.get(&path).await?;
    ensure!(namespace["status"]["phase"] == "Terminating", "{namespace}");
    let marked = rest.get(&format!("{maps}/held")).await?;
    ensure!(
        marked["metadata"]["deletionTimestamp"].is_string(),
        "{marked}"
    );
    let refused = rest.create(&maps, &named("late")).await;
    ensure!(refused.is_err(), "a terminating namespace takes objects");
    let patch = json!({"metadata": {"finalizers": null}});
    rest.merge(&format!("{maps}/held"), &patch).await?;
    rest.until("a namespace that goes", &path, is_gone).await?;
    Ok(())
}

/// A Deployment makes ReplicaSets and those make Pods; what is owned goes with its owner.
async fn deployments_make_pods(plane: &ControlPlane) -> Result<()> {
    let rest = &plane.rest;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "example.com/web:1"}]},
            },
        },
    });
    plane
        .kubectl(
            &["apply", "--server-side", "-f", "-"],
            &deployment.to_string(),
        )
        .await?;
    let pods = "/api/v1/namespaces/default/pods?labelSelector=app%3Dweb";
    let three = rest.until("three pods", pods, |a| count(a) == 3).await?;
    ensure!(
        three["items"][0]["status"]["phase"] == "Pending",
        "nobody schedules: {three}"
    );
    plane
        .kubectl(&["scale", "deployment/web", "--replicas=5"], "")
        .await?;
    rest.until("five pods", pods, |a| count(a) == 5).await?;
    let sets = "/apis/apps/v1/namespaces/default/replicasets?labelSelector=app%3Dweb";
    plane
        .kubectl(
            &["set", "image", "deployment/web", "web=example.com/web:2"],
            "",
        )
        .await?;
    rest.until("a second replica set", sets, |a| count(a) == 2)
        .await?;
    plane
        .kubectl(
            &[
                "delete",
                "deployment/web",
                "--cascade=foreground",
                "--timeout=60s",
            ],
            "",
        )
        .await?;
    rest.until("pods that go", pods, |a| count(a) == 0).await?;
    rest.until("replica sets that go", sets, |a| count(a) == 0)
        .await?;
    let maps = "/api/v1/namespaces/default/configmaps";
    let owner = rest.create(maps, &named("owner")).await?;
    let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
        "uid": owner["metadata"]["uid"]});
    let owned = json!({"metadata": {"name": "owned", "ownerReferences": [reference]}});
    rest.create(maps, &owned).await?;
    rest.delete(&format!("{maps}/owner")).await?;
    let owned = format!("{maps}/owned");
    rest.until("garbage that is collected", &owned, is_gone)
        .await?;
    Ok(())
}

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}},
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.test.example.com"},
        "spec": {
            "group": "test.example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

/// A resource of our own: its definition, objects, their status, and the end of all of them.
async fn custom_resources_work(rest: &Rest) -> Result<()> {
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    rest.create(definitions, &definition()).await?;
    let widgets = "/apis/test.example.com/v1/namespaces/default/widgets";
    let listed = |answer: &Answer| answer.status == 200;
    rest.until("an established resource", widgets, listed)
        .await?;
    for number in 1..=20 {
        let widget = json!({"apiVersion": "test.example.com/v1", "kind": "Widget",
            "metadata": {"name": format!("w{number}")}, "spec": {"size": number}});
        rest.create(widgets, &widget).await?;
    }
    let first = format!("{widgets}/w1");
    let refused = rest.merge(&first, &json!({"spec": {"size": 0}})).await;
    ensure!(refused.is_err(), "the schema forbids a size of 0");
    let path = format!("{first}/status");
    let ready = rest
        .merge(&path, &json!({"status": {"ready": true}}))
        .await?;
    ensure!(
        ready["status"]["ready"] == true && ready["spec"]["size"] == 1,
        "{ready}"
    );
    let page = rest.get(&format!("{widgets}?limit=7")).await?;
    ensure!(page["metadata"]["remainingItemCount"] == 13, "{page}");
    let path = format!("{definitions}/widgets.test.example.com");
    rest.delete(&path).await?;
    rest.until("a definition that goes", &path, is_gone).await?;
    rest.until("a resource that goes", widgets, is_gone).await?;
    Ok(())
}

/// Two managers of one field: the second is refused until it insists.
async fn server_side_apply_tells_conflicts(rest: &Rest) -> Result<()> {
    let path = "/api/v1/namespaces/default/configmaps/applied";
    let version = |value: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"},
            "data": {"color": value}})
    };
    let by = |manager: &str| format!("{path}?fieldManager={manager}");
    let made = rest.apply(&by("one"), &version("red")).await?.ok()?;
    let same = rest.apply(&by("one"), &version("red")).await?.ok()?;
    ensure!(
        revision(&made)? == revision(&same)?,
        "nothing changed, so nothing is written"
    );
    let refused = rest.apply(&by("two"), &version("blue")).await?;
    ensure!(
        refused.status == 409 && refused.reason() == "Conflict",
        "{refused:?}"
    );
    let forced = format!("{}&force=true", by("two"));
    let forced = rest.apply(&forced, &version("blue")).await?.ok()?;
    ensure!(forced["data"]["color"] == "blue", "{forced}");
    rest.delete(path).await
}

/// The leases of the API server and the controller manager are renewed again and again.
async fn leases_are_renewed(rest: &Rest) -> Result<()> {
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let manager = format!("{path}/kube-controller-manager");
    let held = rest
        .until("a lease", &manager, |answer| {
            answer.body["spec"]["holderIdentity"].is_string()
        })
        .await?;
    rest.until("a renewed lease", &manager, |answer| {
        answer.body["spec"]["renewTime"].as_str() > held["spec"]["renewTime"].as_str()
    })
    .await?;
    let leases = rest.get(path).await?;
    let text = leases.to_string();
    ensure!(text.contains("apiserver-"), "no identity: {text}");
    Ok(())
}

/// An event goes by itself when its lease in the store ends, and watchers are told.
async fn events_expire(rest: &Rest) -> Result<()> {
    let events = "/api/v1/namespaces/default/events";
    let since = revision(&rest.get(events).await?)?;
    let short = json!({"metadata": {"name": "short"}, "reason": "Test",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "none"}});
    rest.create(events, &short).await?;
    let path = format!("{events}/short");
    rest.until("an event that expires", &path, is_gone).await?;
    rest.create(
        events,
        &json!({"metadata": {"name": "end"}, "reason": "Test",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "none"}}),
    )
    .await?;
    let seen = watching::follow(rest, events, since, "end").await?;
    let kinds = seen.events.iter().filter(|event| event.name == "short");
    let kinds: Vec<&str> = kinds.map(|event| event.kind.as_str()).collect();
    ensure!(kinds == ["ADDED", "DELETED"], "{kinds:?}");
    Ok(())
}

/// Pages of one list belong to one revision, whatever is written between them.
async fn pages_are_of_one_revision(rest: &Rest, collection: &str) -> Result<usize> {
    let mut path = format!("{collection}?limit=300");
    let mut names = Vec::new();
    let (mut total, mut at) = (None, None);
    loop {
        let page = rest.get(&path).await?;
        let here = revision(&page)?;
        ensure!(*at.get_or_insert(here) == here, "a page at {here}: {at:?}");
        names.extend(listed(&page)?.into_keys());
        let remaining = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
        let sum = names.len() + usize::try_from(remaining)?;
        ensure!(
            *total.get_or_insert(sum) == sum,
            "{} and {remaining} are not {total:?}",
            names.len()
        );
        let Some(next) = page["metadata"]["continue"]
            .as_str()
            .filter(|n| !n.is_empty())
        else {
            break;
        };
        path = format!("{collection}?limit=300&continue={next}");
        let between = format!("zz-{}", names.len());
        rest.create(collection, &object(&between, "none", 0))
            .await?;
        rest.delete(&format!("{collection}/{between}")).await?;
        let late = format!("zz-late-{}", names.len());
        rest.create(collection, &object(&late, "late", 0)).await?;
    }
    let at = at.context("a page")?;
    let exact = format!("{collection}?resourceVersion={at}&resourceVersionMatch=Exact");
    let whole: Vec<String> = listed(&rest.get(&exact).await?)?.into_keys().collect();
    ensure!(
        names == whole,
        "{} in pages, {} at once",
        names.len(),
        whole.len()
    );
    rest.delete(&format!("{collection}?labelSelector=part%3Dlate"))
        .await?;
    Ok(names.len())
}

/// A list shows what was acknowledged just before, also when it comes from the cache: that asks the
/// store for its revision, and for a progress notification on its watch.
async fn lists_are_fresh(rest: &Rest, collection: &str) -> Result<Duration> {
    let start = Instant::now();
    for number in 0..20 {
        let name = format!("fresh-{number}");
        rest.create(collection, &object(&name, "fresh", 0)).await?;
        let list = rest
            .get(&format!("{collection}?labelSelector=part%3Dfresh"))
            .await?;
        ensure!(
            listed(&list)?.contains_key(&name),
            "{collection}: {name} is missing"
        );
    }
    rest.delete(&format!("{collection}?labelSelector=part%3Dfresh"))
        .await?;
    Ok(start.elapsed() / 20)
}

/// What watchers saw is what writers were told, and leads to what is there now.
fn nothing_is_missed(seen: &Seen, written: &Written, list: &Value, last: &str) -> Result<()> {
    let events: BTreeSet<(&str, u64)> = seen
        .events
        .iter()
        .map(|event| (event.name.as_str(), event.revision))
        .collect();
    for (name, revision) in &written.acknowledged {
        ensure!(
            events.contains(&(name.as_str(), *revision)),
            "{name} at {revision} was acknowledged, and no watcher saw it"
        );
    }
    let mut there = listed(list)?;
    ensure!(replay(&seen.events)? == there, "events and list differ");
    there.remove(last).context("the last object")?;
    // The controller manager puts one in each namespace.
    there.remove("kube-root-ca.crt");
    ensure!(there == written.objects, "writers and list differ");
    Ok(())
}

/// Kills the leader under load and takes it back.
async fn kill_the_leader(cluster: &mut Cluster, files: &Files, load: &[Writers]) -> Result<()> {
    for writers in load {
        writers.more(100).await?;
    }
    let leader = leader(cluster, files).await?;
    cluster.members[leader].kill()?;
    for writers in load {
        writers.more(100).await?;
    }
    cluster.members[leader].restart()?;
    secure::ready(&mut cluster.members[leader], true, Some(files.tls())).await?;
    for writers in load {
        writers.more(100).await?;
    }
    Ok(())
}

async fn leader(cluster: &Cluster, files: &Files) -> Result<usize> {
    for (index, member) in cluster.members.iter().enumerate() {
        let client = client(&[url(member, true)], Some(files.tls()))?;
        let status = client.maintenance().status(pb::StatusRequest {}).await?;
        let status = status.into_inner();
        if status.header.context("a header")?.member_id == status.leader {
            return Ok(index);
        }
    }
    anyhow::bail!("no member leads")
}

/// Every member's hash at one revision, and what is compacted.
async fn hashes(cluster: &Cluster, files: &Files) -> Result<Vec<MemberHash>> {
    let first = client(&[url(&cluster.members[0], true)], Some(files.tls()))?;
    let header = first.get("any").await?.header;
    let revision = header.context("a header")?.revision;
    let mut hashes = Vec::new();
    for member in &cluster.members {
        let client = client(&[url(member, true)], Some(files.tls()))?;
        // After a linearizable read the member has applied what is hashed.
        client.get("any").await?;
        let request = pb::HashKvRequest { revision };
        let answer = client.maintenance().hash_kv(request).await?.into_inner();
        hashes.push(MemberHash::of(&member.spec.name, &answer));
    }
    Ok(hashes)
}

/// The sum of the samples whose line holds all words.
fn sample(metrics: &str, words: &[&str]) -> f64 {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.filter(|line| words.iter().all(|word| line.contains(word)));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// What the API server itself says of its store.
async fn the_api_server_is_content(plane: &ControlPlane) -> Result<()> {
    for path in ["/readyz?verbose", "/livez?verbose"] {
        let ready = plane.rest.get(path).await?;
        let text = ready.as_str().context("a text")?;
        ensure!(text.contains("[+]etcd ok"), "{text}");
    }
    let ready = plane.rest.get("/readyz/etcd-readiness").await?;
    ensure!(ready == "ok", "{ready}");
    let metrics = plane.rest.get("/metrics").await?;
    let metrics = metrics.as_str().context("a text")?;
    let consistent = "apiserver_watch_cache_consistent_read_total";
    let fresh = sample(metrics, &[consistent, "success=\"true\""]);
    ensure!(fresh > 0.0, "no consistent read came from the cache");
    let sizes = sample(metrics, &["apiserver_storage_size_bytes"]);
    ensure!(sizes > 0.0, "the size of the store is not known");
    let requests = sample(metrics, &["etcd_requests_total"]);
    let failed = sample(metrics, &["etcd_request_errors_total"]);
    eprintln!(
        "consistent reads from the cache {fresh}, not from it {}; requests to the store \
         {requests}, failed {failed}",
        sample(metrics, &[consistent, "success=\"false\""])
    );
    let log = plane.api_server.log()?;
    for word in [
        "panic",
        "RequestWatchProgress feature is not supported",
        "DATA RACE",
    ] {
        ensure!(!log.contains(word), "the API server's log holds {word:?}");
    }
    Ok(())
}

/// What was there before the last compaction but one is gone, and is said to be gone.
async fn old_revisions_go(rest: &Rest, since: u64, token: &str) -> Result<()> {
    let secrets = format!("{BUSY}/{UNCACHED}");
    let old = format!("{secrets}?limit=1&resourceVersion={since}&resourceVersionMatch=Exact");
    let deadline = COMPACTION_INTERVAL * 4;
    let gone = wait::until("a compaction", deadline, async || {
        let answer = rest.raw("GET", &old, None).await?;
        Ok((answer.status == 410).then_some(answer))
    })
    .await?;
    ensure!(gone.reason() == "Expired", "{gone:?}");
    // A collection with a cache may go on from what the cache still holds.
    let watch = watching::follow(rest, &secrets, since, "none").await;
    let text = format!("{:?}", watch.err().context("a watch that ends")?);
    ensure!(text.contains("410"), "{text}");
    let path = format!("{secrets}?limit=1&continue={token}");
    wait::until("an expired token", deadline, async || {
        let answer = rest.raw("GET", &path, None).await?;
        Ok((answer.status == 410 && answer.reason() == "Expired").then_some(()))
    })
    .await
}

/// Half of each collection at once, and then the namespace with all that is left.
async fn collections_are_deleted(rest: &Rest) -> Result<()> {
    for collection in COLLECTIONS {
        let path = format!("{BUSY}/{collection}");
        let part = |part: &str| format!("{path}?labelSelector=part%3D{part}");
        let odd = listed(&rest.get(&part("odd")).await?)?.len();
        ensure!(odd >= WRITERS * EACH / 2, "{odd} odd ones");
        rest.delete(&part("even")).await?;
        let even = listed(&rest.get(&part("even")).await?)?;
        ensure!(even.is_empty(), "{} even ones are left", even.len());
        let left = listed(&rest.get(&part("odd")).await?)?.len();
        ensure!(left == odd, "{left} of {odd} odd ones are left");
    }
    rest.delete(BUSY).await?;
    rest.until("a full namespace that goes", BUSY, is_gone)
        .await?;
    Ok(())
}

/// The three members, as kubeadm starts one.
async fn start_store(kind: Kind, files: &Files) -> Result<Cluster> {
    let mut flags = files.flags(BOTH);
    flags.extend([
        "--watch-progress-notify-interval=5s".to_owned(),
        "--snapshot-count=10000".to_owned(),
        "--feature-gates=InitialCorruptCheck=true".to_owned(),
    ]);
    secure::start(kind, 3, BOTH, flags, Some(files.tls())).await
}

/// Watchers, writers and everything else while the leader is killed, and what they must agree on.
async fn a_busy_time(plane: &ControlPlane, cluster: &mut Cluster, files: &Files) -> Result<()> {
    let rest = &plane.rest;
    let (mut watchers, mut writers) = (Vec::new(), Vec::new());
    for collection in COLLECTIONS {
        let since = revision(&rest.get(&format!("/api/v1/{collection}")).await?)?;
        let (rest, path) = (rest.clone(), format!("{BUSY}/{collection}"));
        watchers.push(tokio::spawn(async move {
            watching::follow(&rest, &path, since, "zzz").await
        }));
    }
    rest.create(NAMESPACES, &named("busy")).await?;
    for collection in COLLECTIONS {
        let path = format!("{BUSY}/{collection}");
        writers.push(Writers::start(rest, &path, WRITERS, EACH).await?);
    }
    tokio::try_join!(
        kill_the_leader(cluster, files, &writers),
        namespaces_come_and_go(rest),
        deployments_make_pods(plane),
        custom_resources_work(rest),
        server_side_apply_tells_conflicts(rest),
        leases_are_renewed(rest),
        events_expire(rest),
    )?;
    let since = revision(&rest.get(NAMESPACES).await?)?;
    for ((collection, writers), watcher) in COLLECTIONS.iter().zip(writers).zip(watchers) {
        let path = format!("{BUSY}/{collection}");
        let written = writers.finish().await?;
        rest.create(&path, &object("zzz", "last", 0)).await?;
        let list = rest.get(&path).await?;
        let seen = watcher.await??;
        nothing_is_missed(&seen, &written, &list, "zzz").context(path.clone())?;
        let again = watching::follow(rest, &path, since, "zzz").await?;
        let late = seen.events.iter().filter(|event| event.revision > since);
        ensure!(
            late.eq(again.events.iter()),
            "a watch from the past shows others than a watch at that time"
        );
        eprintln!(
            "{collection}: {} acknowledged, {} conflicts, {} events, {} from the past, {} \
             bookmarks, watch opened again {} times",
            written.acknowledged.len(),
            written.conflicts,
            seen.events.len(),
            again.events.len(),
            seen.bookmarks,
            seen.reopened
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_lives_on_three_members_of_which_one_is_killed() -> Result<()> {
    let kind = Kind::under_test()?;
    let files = Files::new()?;
    let mut cluster = start_store(kind, &files).await?;
    let urls: Vec<String> = cluster.members.iter().map(|m| url(m, true)).collect();
    let mut plane = Box::pin(ControlPlane::start(&urls.join(","), &files)).await?;
    eprintln!("{}: ready after {:?}", kind.name(), plane.started_in);
    let rest = plane.rest.clone();
    let start = Instant::now();
    Box::pin(a_busy_time(&plane, &mut cluster, &files)).await?;
    eprintln!("busy for {:?}", start.elapsed());
    let first = rest.get(&format!("{BUSY}/{UNCACHED}?limit=1")).await?;
    let (since, token) = (revision(&first)?, &first["metadata"]["continue"]);
    for collection in COLLECTIONS {
        let path = format!("{BUSY}/{collection}");
        let objects = pages_are_of_one_revision(&rest, &path).await?;
        let fresh = lists_are_fresh(&rest, &path).await?;
        eprintln!("{collection}: {objects} in pages; write and fresh list in {fresh:?}");
    }
    old_revisions_go(&rest, since, token.as_str().context("a token")?).await?;
    collections_are_deleted(&rest).await?;
    the_api_server_is_content(&plane).await?;
    plane.api_server.is_running()?;
    plane.controller_manager.is_running()?;
    let hashes = hashes(&cluster, &files).await?;
    ensure!(hashes[0].compact_revision > 0, "{hashes:?}");
    check::hashes(&hashes).into_result()?;
    eprintln!("at the end: {:?}", hashes[0]);
    for member in &cluster.members {
        eprintln!("{}: {:?}", member.spec.name, member.usage()?);
    }
    eprintln!("API server: {:?}", plane.api_server.usage()?);
    eprintln!("all in {:?}", start.elapsed());
    Ok(())
}
