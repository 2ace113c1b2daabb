//! Services that come and go, one by one and all at once, and the gateway that follows them.

mod common;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use common::{Cluster, client_of, eventually, soon};
use quorate_client::discovery::{
    Instances, LeastConnections, Picker, Random, Resolver, RoundRobin, register,
};

const SERVICE: &str = "/my-service/web";

fn addresses(instances: &Instances) -> Vec<String> {
    let now = instances.now();
    let mut all: Vec<String> = now
        .iter()
        .map(|instance| instance.address.clone())
        .collect();
    all.sort();
    all
}

async fn until(instances: &Instances, expected: &[&str]) {
    let mut instances = instances.clone();
    while addresses(&instances) != expected {
        let changed = soon(instances.changed()).await;
        changed.expect("the resolver goes on");
    }
}

/// The example's service as a process that can be killed. Cargo builds it with the tests.
fn service_process(endpoint: &str, address: &str) -> Child {
    let this = std::env::current_exe().expect("the test's own path");
    let profile = this.ancestors().nth(2).expect("target/PROFILE/deps/test");
    Command::new(profile.join("examples/discovery"))
        .args(["--endpoints", endpoint, "--name", SERVICE])
        .args(["service", address, "--ttl", "2"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the service starts")
}

#[tokio::test]
async fn killed_services_leave_when_their_lease_ends() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let resolver = Resolver::start(&client, SERVICE).await.unwrap();
    let instances = resolver.instances();
    let endpoint = &cluster.members[0].endpoint;
    let mut processes: Vec<Child> = ["a:1", "b:1", "c:1", "d:1"]
        .iter()
        .map(|address| service_process(endpoint, address))
        .collect();
    until(&instances, &["a:1", "b:1", "c:1", "d:1"]).await;
    let keys = client.get(SERVICE).prefix().await.unwrap().kvs;
    for kv in &keys {
        assert_eq!(kv.key, format!("{SERVICE}/{:x}", kv.lease));
    }
    for (killed, left) in [(0, &["b:1", "c:1", "d:1"][..]), (2, &["b:1", "d:1"])] {
        processes[killed].kill().unwrap();
        processes[killed].wait().unwrap();
        until(&instances, left).await;
    }
    // The rest is alive well beyond its TTL, and one more comes.
    let lease = keys.iter().find(|kv| kv.value == "b:1").unwrap().lease;
    let alive = client.lease_time_to_live(lease, false).await.unwrap();
    assert!(alive.ttl >= 0, "{alive:?}");
    processes.push(service_process(endpoint, "e:1"));
    until(&instances, &["b:1", "d:1", "e:1"]).await;
    for mut process in processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    until(&instances, &[]).await;
}

#[tokio::test]
async fn the_list_survives_restarts_and_compaction() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client();
    let resolver = Resolver::start(&client, SERVICE).await.unwrap();
    let instances = resolver.instances();
    let stays = register(&client, SERVICE, "stays:1", 60).await.unwrap();
    let goes = register(&client, SERVICE, "goes:1", 60).await.unwrap();
    until(&instances, &["goes:1", "stays:1"]).await;
    let gone_key = goes.key();

    // While the resolver is cut off (only the socket is open), a service goes and the history
    // of it is compacted away.
    cluster.members[0].kill();
    cluster.members[0].start_on_socket_alone();
    let by_socket = client_of(vec![cluster.members[0].socket.clone()]);
    eventually(async || {
        let deleted = by_socket.delete(&gone_key).await.ok()?;
        let revision = deleted.header?.revision;
        by_socket.put("other", "v").await.ok()?;
        by_socket.compact(revision + 1, true).await.ok()
    })
    .await;
    assert_eq!(addresses(&instances), ["goes:1", "stays:1"]);
    cluster.members[0].kill();
    cluster.members[0].start();
    until(&instances, &["stays:1"]).await;

    // A lease that was taken away is replaced, under another key.
    let mut stays = stays;
    let before = stays.key();
    let text = std::str::from_utf8(&before).unwrap();
    let lease = i64::from_str_radix(text.rsplit('/').next().unwrap(), 16).unwrap();
    client.revoke_lease(lease).await.unwrap();
    assert_ne!(soon(stays.registered_anew()).await.unwrap(), before);
    until(&instances, &["stays:1"]).await;
    stays.deregister().await.unwrap();
    until(&instances, &[]).await;
    drop(goes);
    drop(resolver);
    let mut instances = instances;
    while soon(instances.changed()).await.is_ok() {}
}

#[tokio::test]
async fn pickers_spread_as_they_say() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let resolver = Resolver::start(&client, SERVICE).await.unwrap();
    let instances = resolver.instances();
    let round_robin = RoundRobin::new(instances.clone());
    let random = Random::new(instances.clone());
    let least = LeastConnections::new(instances.clone());
    assert!(round_robin.pick().is_none() && random.pick().is_none() && least.pick().is_none());
    let mut registrations = Vec::new();
    for address in ["a:1", "b:1", "c:1"] {
        registrations.push(register(&client, SERVICE, address, 60).await.unwrap());
    }
    until(&instances, &["a:1", "b:1", "c:1"]).await;

    let count = |picker: &dyn Picker, times: usize| {
        let mut counts = BTreeMap::new();
        for _ in 0..times {
            let picked = picker.pick().unwrap();
            *counts.entry(picked.address().to_owned()).or_insert(0) += 1;
        }
        counts
    };
    assert!(count(&round_robin, 30).values().all(|&times| times == 10));
    let by_chance = count(&random, 3000);
    assert!(
        by_chance.len() == 3 && by_chance.values().all(|&times| times > 800),
        "{by_chance:?}"
    );

    let mut open: Vec<_> = (0..9).map(|_| least.pick().unwrap()).collect();
    let busy = open[0].instance().clone();
    assert_eq!(least.open_connections(&busy.key), 3);
    open.retain(|picked| picked.instance() != &busy);
    assert_eq!(least.open_connections(&busy.key), 0);
    for _ in 0..3 {
        let picked = least.pick().unwrap();
        assert_eq!(picked.instance(), &busy, "it has the fewest");
        open.push(picked);
    }
}
