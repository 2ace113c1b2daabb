//! The sidecar beside real members: each exit of its gate, hand-off under load, and whom its API
//! lets in.

use anyhow::{Context, Result, ensure};
use quorate_client::TlsConfig;
use quorate_e2e::authority::Subject;
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::{Cluster, Options, set_initial_cluster, specs};
use quorate_e2e::history::History;
use quorate_e2e::process::{Process, Spec};
use quorate_e2e::secure::{https_call, ready, url};
use quorate_e2e::sidecar::{Pods, Sidecar, gate, program};
use quorate_e2e::traffic::Traffic;
use quorate_e2e::{members, seed, verify};
use quorate_sidecar::wire::{Handoff, HandoffRequest, MemberReport, Problem, exit};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// A gate's flags for a member of `specs`, and where its last words go.
fn flags(spec: &Spec, words: &Path) -> Vec<String> {
    vec![
        format!("--initial-cluster={}", spec.initial_cluster),
        "--initial-cluster-token=e2e".to_owned(),
        format!("--termination-log={}", words.display()),
        "--resolve-timeout=500ms".to_owned(),
    ]
}

/// The gate must end with `code` and say `text`, in its log and as last words.
fn expect(output: &Output, code: i32, text: &str, words: &Path) -> Result<()> {
    let log = String::from_utf8_lossy(&output.stderr);
    let left = std::fs::read_to_string(words)?;
    ensure!(
        output.status.code() == Some(code),
        "{:?}: {log}",
        output.status
    );
    ensure!(log.contains(text), "no {text:?} in {log}");
    match code {
        0 => ensure!(left.is_empty(), "{left}"),
        _ => ensure!(left.contains(text) && left.lines().count() == 1, "{left}"),
    }
    std::fs::write(words, "")?;
    Ok(())
}

#[tokio::test]
async fn the_gate_lets_first_starts_pass_and_waits_for_names() -> Result<()> {
    let (mut specs, dir) = specs(&Options::new(Kind::Quorate, 2))?;
    let words = dir.path().join("words");
    std::fs::write(&words, "")?;
    let spec = &specs[0];
    expect(&gate(spec, &flags(spec, &words))?, 0, "may start", &words)?;
    let existing = "--initial-cluster-state=existing".to_owned();
    let mut joining = flags(spec, &words);
    joining.push(existing.clone());
    expect(&gate(spec, &joining)?, 0, "may start", &words)?;
    // Where nobody looks for last words there are none.
    let nowhere = dir.path().join("nowhere");
    let passed = gate(spec, &flags(spec, &nowhere))?;
    ensure!(passed.status.success() && !nowhere.exists(), "{passed:?}");

    let missing = "m2=http://m2.nowhere.invalid:2380";
    specs[0].initial_cluster = format!("m1=http://127.0.0.1:1,{missing}");
    let spec = &specs[0];
    let stopped = gate(spec, &flags(spec, &words))?;
    expect(
        &stopped,
        exit::PEERS_UNRESOLVED,
        "m2.nowhere.invalid",
        &words,
    )?;
    // A cluster that runs may have a member that is gone for good.
    let mut joining = flags(spec, &words);
    joining.extend([
        existing.clone(),
        format!("--initial-cluster=m1=http://127.0.0.1:1,{missing},m3=http://127.0.0.1:3"),
    ]);
    joining.remove(0);
    expect(&gate(spec, &joining)?, 0, "do not resolve", &words)?;
    let mut joining = flags(spec, &words);
    joining.push(existing);
    let stopped = gate(spec, &joining)?;
    expect(
        &stopped,
        exit::PEERS_UNRESOLVED,
        "m2.nowhere.invalid",
        &words,
    )
}

#[tokio::test]
async fn the_gate_tells_damage_and_foreign_data_apart() -> Result<()> {
    let (mut specs, dir) = specs(&Options::new(Kind::Quorate, 2))?;
    let words = dir.path().join("words");
    std::fs::write(&words, "")?;
    let other = specs.pop().context("two members")?;
    let mut alone = specs.pop().context("two members")?;
    set_initial_cluster(std::slice::from_mut(&mut alone));
    let mut member = Process::start(alone.clone())?;
    member.ready().await?;
    let in_use = gate(&alone, &flags(&alone, &words))?;
    expect(&in_use, 1, "in use by another process", &words)?;
    member.kill()?;
    expect(
        &gate(&alone, &flags(&alone, &words))?,
        0,
        "may start",
        &words,
    )?;

    // The same data under another name, and with another token.
    let renamed = Spec {
        name: other.name.clone(),
        initial_cluster: format!("{},m2=http://127.0.0.1:1", alone.initial_cluster),
        ..alone.clone()
    };
    let stopped = gate(&renamed, &flags(&renamed, &words))?;
    expect(&stopped, exit::WRONG_IDENTITY, "that is m1", &words)?;
    let mut foreign = flags(&alone, &words);
    foreign[1] = "--initial-cluster-token=another".to_owned();
    let stopped = gate(&alone, &foreign)?;
    expect(&stopped, exit::WRONG_IDENTITY, "another", &words)?;

    // What is damaged is not mended by a start, and the gate changes nothing.
    let data = &alone.data_dir;
    let segment = data.join("log").join("00000001.log");
    for (file, broken) in [
        (data.join("identity"), b"member x\n".as_slice()),
        (data.join("CURRENT"), b"state-77\n"),
        (segment, b"no segment at all"),
    ] {
        let whole = std::fs::read(&file)?;
        std::fs::write(&file, broken)?;
        let stopped = gate(&alone, &flags(&alone, &words))?;
        let name = file
            .file_name()
            .context("a name")?
            .to_string_lossy()
            .into_owned();
        let name = if name == "CURRENT" {
            "state-77".into()
        } else {
            name
        };
        expect(&stopped, exit::DATA_CORRUPT, &name, &words)?;
        ensure!(
            std::fs::read(&file)? == broken,
            "the gate wrote to {}",
            file.display()
        );
        std::fs::write(&file, whole)?;
    }
    expect(
        &gate(&alone, &flags(&alone, &words))?,
        0,
        "may start",
        &words,
    )?;
    member.restart()?;
    member.ready().await
}

#[tokio::test]
async fn the_gate_asks_the_cluster_who_was_removed() -> Result<()> {
    let mut pods = Pods::start(3).await?;
    let words = pods.cluster.dir().join("words");
    std::fs::write(&words, "")?;
    let removed = pods.cluster.members[2].spec.clone();
    let urls: Vec<String> = pods.cluster.members[..2]
        .iter()
        .map(|it| url(it, true))
        .collect();
    let id = pods.status(2).await?.header.context("a header")?.member_id;
    let mut asking = flags(&removed, &words);
    asking[0] = format!("--initial-cluster={}", pods.initial_cluster());
    asking.extend(pods.identity_flags());
    asking.push(format!("--cluster-endpoints={}", urls.join(",")));
    pods.cluster.members[2].terminate().await?;
    expect(&gate(&removed, &asking)?, 0, "may start", &words)?;
    // Data that were there and are gone are not those of a newcomer.
    let aside = removed.data_dir.with_extension("aside");
    std::fs::rename(&removed.data_dir, &aside)?;
    let stopped = gate(&removed, &asking)?;
    expect(&stopped, exit::DATA_CORRUPT, "are gone from", &words)?;

    let client = pods.client(0)?;
    members::once_healthy(async || {
        let request = quorate_client::proto::etcdserverpb::MemberRemoveRequest { id };
        client.cluster().member_remove(request).await
    })
    .await??;
    let mut joining = asking.clone();
    joining.push("--initial-cluster-state=existing".to_owned());
    let stopped = gate(&removed, &joining)?;
    expect(&stopped, exit::REMOVED, "has no member with", &words)?;
    std::fs::rename(&aside, &removed.data_dir)?;
    let stopped = gate(&removed, &asking)?;
    expect(&stopped, exit::REMOVED, "was removed", &words)?;

    // The data of a member of one cluster, where another cluster answers.
    let other = Pods::start(1).await?;
    let mut elsewhere = asking.clone();
    elsewhere.retain(|flag| !flag.starts_with("--c") && !flag.starts_with("--key"));
    elsewhere.extend(other.identity_flags());
    let there = url(&other.cluster.members[0], true);
    elsewhere.push(format!("--cluster-endpoints={there}"));
    let stopped = gate(&removed, &elsewhere)?;
    expect(
        &stopped,
        exit::WRONG_IDENTITY,
        "the cluster that runs is",
        &words,
    )?;

    // All may be starting: that nobody answers says nothing.
    for member in &mut pods.cluster.members[..2] {
        member.kill()?;
    }
    expect(&gate(&removed, &asking)?, 0, "no other member says", &words)
}

fn hand_off(port: u16, more: &[&str]) -> Result<(Duration, String)> {
    let started = Instant::now();
    let output = Command::new(program()?)
        .arg("handoff")
        .arg(format!("--endpoint=http://127.0.0.1:{port}"))
        .args(more)
        .stdin(Stdio::null())
        .output()?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{:?}: {log}", output.status);
    Ok((started.elapsed(), log))
}

#[tokio::test]
async fn a_leader_hands_over_under_load_and_nothing_is_lost() -> Result<()> {
    let seed = seed::from_environment("handoff")?;
    let cluster = Cluster::start(&Options::new(Kind::Quorate, 3)).await?;
    let history = Arc::new(History::default());
    let traffic = Traffic::start(&history, &cluster.ports(), 6, "handoff", seed)?;
    for _ in 0..4 {
        let leader = cluster.leader().await?;
        let port = cluster.members[leader].spec.client_port;
        // The one that is not the leader and does not leave is the only choice.
        let others: Vec<usize> = (0..3).filter(|other| *other != leader).collect();
        let leaving = format!("--leaving={}", cluster.members[others[0]].spec.name);
        hand_off(port, &[&leaving])?;
        let next = cluster.leader().await?;
        ensure!(
            next == others[1],
            "{next} leads after {leader}, not {}",
            others[1]
        );
        let (_, log) = hand_off(port, &[])?;
        ensure!(log.contains("\"was_leader\":false"), "{log}");
        ensure!(
            cluster.leader().await? == next,
            "a follower moved the leader"
        );
    }
    traffic.stop().await?;
    let judged = verify::all(&cluster, &history, Vec::new()).await?;
    ensure!(judged.acknowledged > 0, "{judged:?}");
    Ok(())
}

#[tokio::test]
async fn a_stop_is_never_held_up() -> Result<()> {
    let mut alone = Cluster::start(&Options::new(Kind::Quorate, 1)).await?;
    let port = alone.ports()[0];
    let (_, log) = hand_off(port, &[])?;
    ensure!(log.contains("\"was_leader\":true"), "{log}");
    // Stopped: it takes connections and says nothing.
    alone.members[0].signal(rustix::process::Signal::STOP)?;
    let (took, log) = hand_off(port, &["--timeout=1s"])?;
    ensure!(
        took < SOON && log.contains("not handed over"),
        "{took:?}: {log}"
    );
    alone.members[0].kill()?;
    let (took, log) = hand_off(port, &["--timeout=1s"])?;
    ensure!(
        took < SOON && log.contains("not handed over"),
        "{took:?}: {log}"
    );
    Ok(())
}

#[tokio::test]
async fn the_api_lets_the_operator_in_and_nobody_else() -> Result<()> {
    let mut pods = Pods::start(3).await?;
    let folder = tempfile::tempdir()?;
    let leader = pods.leader().await?;
    let mut sidecar = pods.sidecar(leader, folder.path()).await?;
    let report: MemberReport = sidecar.get("/v1/status").await?;
    ensure!(
        report.name == pods.cluster.members[leader].spec.name,
        "{report:?}"
    );
    ensure!(report.serving && report.disk_free_bytes > 0, "{report:?}");
    ensure!(report.disk_free_bytes <= report.disk_bytes, "{report:?}");

    refuses(&pods, &sidecar).await?;
    let (_, metrics) = sidecar.call("GET", "/metrics", "").await?;
    ensure!(
        metrics.contains("\nquorate_sidecar_member_serving 1\n"),
        "{metrics}"
    );

    let request = HandoffRequest::default();
    let handed: Handoff = sidecar.post("/v1/handoff", &request).await?;
    ensure!(handed.was_leader && handed.leader.is_some(), "{handed:?}");
    let again: Handoff = sidecar.post("/v1/handoff", &request).await?;
    ensure!(!again.was_leader, "{again:?}");

    // Certificates are looked at again before each handshake: the old operator's still work, and
    // a new one of the server is shown.
    pods.files
        .authority
        .issue("server", &Subject::here("server", 77))?;
    let report: MemberReport = sidecar.get("/v1/status").await?;
    ensure!(report.serving, "{report:?}");
    ensure!(
        std::fs::read_to_string(&sidecar.log)?.contains("were read again"),
        "the sidecar did not read its certificate again"
    );

    pods.cluster.members[leader].kill()?;
    let report: MemberReport = sidecar.get("/v1/status").await?;
    ensure!(!report.serving, "{report:?}");
    let (status, answer) = sidecar.call("POST", "/v1/handoff", "").await?;
    ensure!(
        status == 503 && answer.contains("MemberUnavailable"),
        "{status} {answer}"
    );
    pods.cluster.members[leader].restart()?;
    ready(
        &mut pods.cluster.members[leader],
        true,
        Some(pods.files.tls()),
    )
    .await?;
    sidecar.terminate().await
}

/// Strangers are turned away, and what is wrong is told.
async fn refuses(pods: &Pods, sidecar: &Sidecar) -> Result<()> {
    let strangers = [
        pods.files.tls(),
        TlsConfig {
            trusted_ca_file: Some(pods.files.authority.file.clone()),
            ..TlsConfig::default()
        },
    ];
    for stranger in &strangers {
        let refused = https_call(sidecar.port, stranger, "GET", "/v1/status", "").await;
        ensure!(refused.is_err(), "{stranger:?} was let in: {refused:?}");
    }
    let no_backup = r#"{"store":{},"key":"a"}"#;
    let no_store = r#"{"store":{},"key":"a.snap.zst"}"#;
    for (method, path, body, status, reason) in [
        ("GET", "/v1/nothing", "", 404, "NotFound"),
        ("GET", "/v1/backups/b", "", 404, "NotFound"),
        ("DELETE", "/v1/backups/b", "", 404, "NotFound"),
        ("POST", "/v1/backups", "{", 400, "BadRequest"),
        ("POST", "/v1/deletions", no_backup, 400, "BadRequest"),
        ("POST", "/v1/deletions", no_store, 400, "BadRequest"),
    ] {
        let (found, answer) = sidecar.call(method, path, body).await?;
        ensure!(found == status, "{method} {path}: {found} {answer}");
        let problem: Problem = serde_json::from_str(&answer)?;
        ensure!(problem.reason == reason, "{method} {path}: {problem:?}");
    }
    Ok(())
}
