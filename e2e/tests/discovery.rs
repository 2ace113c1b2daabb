//! Service discovery as people do it: real processes register, some are killed, a gateway follows.

use anyhow::{Context, Result, ensure};
use quorate_client::discovery::{
    Instances, LeastConnections, Picker, Random, Resolver, RoundRobin,
};
use quorate_client::{Client, ClientConfig};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options};
use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const SERVICE: &str = "/my-service/web";

/// Short, so that the test need not wait long for the dead.
const TTL_SECONDS: &str = "3";

const DEADLINE: Duration = Duration::from_secs(60);

async fn start(cluster: &Cluster, address: &str) -> Result<Child> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_quorate-e2e-service"))
        .args([&cluster.endpoints(), SERVICE, address, TTL_SECONDS])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    let said = tokio::time::timeout(DEADLINE, lines.next_line());
    let said = said.await.context("a service that registers")??;
    ensure!(
        said == Some(format!("registered {address}")),
        "it said {said:?}"
    );
    Ok(child)
}

fn addresses(list: &[quorate_client::discovery::Instance]) -> BTreeSet<String> {
    list.iter()
        .map(|instance| instance.address.clone())
        .collect()
}

/// Follows the list until it is as expected.
async fn until(instances: &mut Instances, expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(|&address| address.into()).collect();
    let follow = async {
        while addresses(&instances.now()) != expected {
            instances.changed().await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let followed = tokio::time::timeout(DEADLINE, follow).await;
    followed.with_context(|| format!("the list never became {expected:?}"))?
}

/// Every picker gives only addresses of the list, and in time each of them.
fn picks_all(instances: &Instances, expected: &[&str]) -> Result<()> {
    let pickers: [Box<dyn Picker>; 3] = [
        Box::new(RoundRobin::new(instances.clone())),
        Box::new(Random::new(instances.clone())),
        Box::new(LeastConnections::new(instances.clone())),
    ];
    let expected: BTreeSet<String> = expected.iter().map(|&address| address.into()).collect();
    for picker in &pickers {
        // Held, so that the one with the fewest connections changes.
        let picks: Vec<_> = (0..100).filter_map(|_| picker.pick()).collect();
        let picked: BTreeSet<String> = picks.iter().map(|p| p.address().to_owned()).collect();
        ensure!(picked == expected, "{picked:?} instead of {expected:?}");
    }
    Ok(())
}

async fn follows_services(size: usize) -> Result<()> {
    let mut cluster = Cluster::start(&Options::new(Kind::under_test()?, size)).await?;
    let endpoints = cluster.endpoints();
    let client = Client::connect(ClientConfig::new(endpoints.split(','))).await?;
    let resolver = Resolver::start(&client, SERVICE).await?;
    let mut instances = resolver.instances();
    ensure!(instances.now().is_empty(), "nobody is registered");

    let mut first = start(&cluster, "10.0.0.1:80").await?;
    let mut second = start(&cluster, "10.0.0.2:80").await?;
    let _third = start(&cluster, "10.0.0.3:80").await?;
    let all = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
    until(&mut instances, &all).await?;
    picks_all(&instances, &all)?;

    first.kill().await?;
    let rest = ["10.0.0.2:80", "10.0.0.3:80"];
    until(&mut instances, &rest).await?;
    picks_all(&instances, &rest)?;

    // The store itself is killed and comes back: those who live stay, the next dead one goes.
    let leader = cluster.leader().await?;
    cluster.members[leader].kill()?;
    cluster.members[leader].restart()?;
    cluster.ready().await?;
    let _fourth = start(&cluster, "10.0.0.4:80").await?;
    until(
        &mut instances,
        &["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"],
    )
    .await?;
    second.kill().await?;
    until(&mut instances, &["10.0.0.3:80", "10.0.0.4:80"]).await?;
    picks_all(&instances, &["10.0.0.3:80", "10.0.0.4:80"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_follows_services_on_one_member() -> Result<()> {
    follows_services(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_follows_services_on_three_members() -> Result<()> {
    follows_services(3).await
}
