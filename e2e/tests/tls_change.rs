//! Certificates, authorities and lists that change under load, and clusters that change to TLS and
//! back.

use anyhow::{Context, Result, ensure};
use quorate_client::{Client, TlsConfig};
use quorate_e2e::authority::{Authority, Pair, Subject, replace};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::Cluster;
use quorate_e2e::secure::{self, Files, Sides, client, https_get, start, url};
use quorate_e2e::wait;
use quorate_proto::etcdserverpb::{MemberListRequest, MemberUpdateRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

const CLIENT: Sides = Sides::CLIENT;
const BOTH: Sides = Sides::BOTH;
const NONE: Sides = Sides::NONE;
const SOON: Duration = Duration::from_secs(10);

fn with(pair: &Pair, tls: &TlsConfig) -> TlsConfig {
    TlsConfig {
        cert_file: Some(pair.cert.clone()),
        key_file: Some(pair.key.clone()),
        ..tls.clone()
    }
}

/// Makes connections, one after another, until it is told to stop; none may fail.
struct Callers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Callers {
    fn start(port: u16, tls: &TlsConfig) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let call = |tls: TlsConfig| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    https_get(port, "/health", &tls).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let tasks = vec![call(tls.clone()), call(tls.clone())];
        Self { stop, done, tasks }
    }

    /// Waits for so many more calls.
    async fn more(&self, count: usize) -> Result<()> {
        let enough = self.done.load(Ordering::Relaxed) + count;
        wait::until("more connections", SOON, async || {
            let ended = self.tasks.iter().any(JoinHandle::is_finished);
            let done = self.done.load(Ordering::Relaxed);
            Ok((ended || done >= enough).then_some(()))
        })
        .await
    }

    async fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?.context("a connection during a change")?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn certificates_and_authorities_change_without_a_failed_connection() -> Result<()> {
    let files = Files::new()?;
    let flags = files.flags(CLIENT);
    let cluster = start(Kind::Quorate, 1, CLIENT, flags, Some(files.tls())).await?;
    let port = cluster.ports()[0];
    let callers = Callers::start(port, &files.tls());
    for serial in 100..110 {
        // Certificate and key are replaced one after another, as most tools do.
        files
            .authority
            .issue("server", &Subject::here("server", serial))?;
        callers.more(10).await?;
    }
    // A new authority: trusted beside the old one first.
    let new = Authority::new(files.dir(), "new")?;
    let both = format!("{}{}", files.authority.pem, new.pem);
    replace(&files.authority.file, both.as_bytes())?;
    callers.more(10).await?;
    let client = new.issue("client2", &Subject::here("client", 21))?;
    let second = Callers::start(port, &with(&client, &files.tls()));
    second.more(10).await?;
    new.issue("server", &Subject::here("server", 11))?;
    callers.more(10).await?;
    callers.stop().await?;
    // Then alone.
    replace(&files.authority.file, new.pem.as_bytes())?;
    second.more(10).await?;
    second.stop().await?;
    let only = TlsConfig {
        trusted_ca_file: Some(new.file.clone()),
        ..with(&client, &files.tls())
    };
    https_get(port, "/health", &only)
        .await
        .context("the new server by the new CA")?;
    let old = TlsConfig {
        trusted_ca_file: Some(new.file.clone()),
        ..files.tls()
    };
    let answer = https_get(port, "/health", &old).await;
    ensure!(
        answer.is_err(),
        "the old CA's client was let in: {answer:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_client_that_is_revoked_meanwhile_is_refused() -> Result<()> {
    let files = Files::new()?;
    let list = files.authority.revoke("list.crl", &[])?;
    let mut flags = files.flags(CLIENT);
    flags.push(format!("--client-crl-file={}", list.display()));
    let kind = Kind::under_test()?;
    let cluster = start(kind, 1, CLIENT, flags, Some(files.tls())).await?;
    let port = cluster.ports()[0];
    https_get(port, "/health", &files.tls()).await?;
    files.authority.revoke("list.crl", &[20])?;
    let answer = https_get(port, "/health", &files.tls()).await;
    ensure!(answer.is_err(), "{answer:?}");
    files.authority.revoke("list.crl", &[19])?;
    https_get(port, "/health", &files.tls()).await?;
    Ok(())
}

#[tokio::test]
async fn broken_files_leave_the_old_ones_in_use_and_are_told_once() -> Result<()> {
    let files = Files::new()?;
    let list = files.authority.revoke("list.crl", &[30])?;
    let mut flags = files.flags(CLIENT);
    flags.push(format!("--client-crl-file={}", list.display()));
    let cluster = start(Kind::Quorate, 1, CLIENT, flags, Some(files.tls())).await?;
    let port = cluster.ports()[0];
    let (ours, log) = (files.tls(), || cluster.members[0].log());
    let ca = TlsConfig {
        trusted_ca_file: Some(files.dir().join("kept.pem")),
        ..ours
    };
    std::fs::copy(&files.authority.file, files.dir().join("kept.pem"))?;
    let key = std::fs::read_to_string(&files.server.key)?;
    for path in [
        &files.server.cert,
        &files.server.key,
        &files.authority.file,
        &list,
    ] {
        let before = std::fs::read(path)?;
        let told = log()?.matches("cannot be used; the old ones stay").count();
        replace(path, b"no PEM, and a secret: hunter2")?;
        for _ in 0..5 {
            https_get(port, "/health", &ca).await?;
        }
        let now = log()?.matches("cannot be used; the old ones stay").count();
        ensure!(
            now == told + 1,
            "{}: told {} times",
            path.display(),
            now - told
        );
        std::fs::remove_file(path)?;
        https_get(port, "/health", &ca).await?;
        replace(path, &before)?;
        https_get(port, "/health", &ca).await?;
    }
    let secret = key.lines().nth(1).context("a line of the key")?;
    let log = log()?;
    ensure!(!log.contains("hunter2") && !log.contains(secret), "{log}");
    Ok(())
}

/// Writes one key after another as long as it may, and knows what was acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    task: JoinHandle<Vec<String>>,
}

impl Writer {
    fn start(name: &str, client: Client) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (name, stopped, counted) = (name.to_owned(), Arc::clone(&stop), Arc::clone(&done));
        let task = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{name}/{number}");
                // A member that restarts loses calls; those are not counted on.
                if client.put(&key, "v").await.is_ok() {
                    acknowledged.push(key);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            acknowledged
        });
        Self { stop, done, task }
    }

    /// Waits until it has written some more.
    async fn goes_on(&self) -> Result<()> {
        let enough = self.done.load(Ordering::Relaxed) + 20;
        wait::until("writes that go on", SOON * 2, async || {
            Ok((self.done.load(Ordering::Relaxed) >= enough).then_some(()))
        })
        .await
    }

    /// Stops, and checks that whatever was acknowledged can be read.
    async fn check(self, reader: &Client) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let acknowledged = self.task.await?;
        ensure!(!acknowledged.is_empty(), "nothing was written");
        for key in acknowledged {
            let found = reader.get(&key).await?;
            ensure!(found.count == 1, "{key} was acknowledged and is gone");
        }
        Ok(())
    }
}

/// Restarts one member after another with other flags and URLs to listen on.
async fn roll(
    cluster: &mut Cluster,
    flags: &[String],
    listen: Sides,
    tls: Option<&TlsConfig>,
    writers: &[&Writer],
) -> Result<()> {
    let scheme = |secure: bool| if secure { "https" } else { "http" };
    for member in &mut cluster.members {
        let (client, peer) = (member.spec.client_port, member.spec.peer_port);
        member.spec.extra_flags = flags.to_vec();
        member.spec.extra_flags.extend([
            format!(
                "--listen-client-urls={}://127.0.0.1:{client}",
                scheme(listen.client)
            ),
            format!(
                "--listen-peer-urls={}://127.0.0.1:{peer}",
                scheme(listen.peer)
            ),
        ]);
        let status = member.terminate().await?;
        ensure!(status.success(), "{status}: {}", member.log_tail()?);
        member.restart()?;
        secure::ready(member, tls.is_some(), tls.cloned()).await?;
        for writer in writers {
            writer.goes_on().await?;
        }
    }
    Ok(())
}

/// Has every member called under another scheme from now on.
async fn call_peers(client: &Client, scheme: &str) -> Result<()> {
    let mut cluster = client.cluster();
    let listed = cluster.member_list(MemberListRequest { linearizable: true });
    for member in listed.await?.into_inner().members {
        let urls = member
            .peer_ur_ls
            .iter()
            .map(|url| match url.split_once("://") {
                Some((_, place)) => format!("{scheme}://{place}"),
                None => url.clone(),
            });
        let request = MemberUpdateRequest {
            id: member.id,
            peer_ur_ls: urls.collect(),
        };
        cluster.member_update(request).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_live_cluster_changes_to_tls_and_back() -> Result<()> {
    let files = Files::new()?;
    let tls = files.tls();
    let mut cluster = start(Kind::Quorate, 3, NONE, Vec::new(), None).await?;
    let urls = |secure| -> Vec<String> {
        cluster
            .members
            .iter()
            .map(|member| url(member, secure))
            .collect()
    };
    let (http, https) = (urls(false), urls(true));
    let plain = Writer::start("plain", client(&http, None)?);
    plain.goes_on().await?;

    // Members that speak both, beside those that speak plaintext alone.
    let mut both = files.flags(BOTH);
    both.push("--quorate-tls-migration=client,peer".to_owned());
    roll(&mut cluster, &both, BOTH, Some(&tls), &[&plain]).await?;
    let secure = Writer::start("secure", client(&https, Some(tls.clone()))?);
    secure.goes_on().await?;
    // The first that restarted met plaintext; the last met TLS alone.
    let says = |member: usize| cluster.members[member].log();
    ensure!(says(0)?.contains("\"tls\":false"), "{}", says(0)?);
    ensure!(says(2)?.contains("\"tls\":true") && !says(2)?.contains("\"tls\":false"));
    plain.goes_on().await?;
    plain.check(&client(&https, Some(tls.clone()))?).await?;

    // TLS alone, on both sides.
    call_peers(&client(&https, Some(tls.clone()))?, "https").await?;
    let strict = files.flags(BOTH);
    roll(&mut cluster, &strict, BOTH, Some(&tls), &[&secure]).await?;
    let peer_url = format!("http://127.0.0.1:{}", cluster.members[0].spec.peer_port);
    let refused = client(&[peer_url], None)?.get("k").await;
    ensure!(refused.is_err(), "plaintext was taken: {refused:?}");
    let refused = client(&http, None)?.get("k").await;
    ensure!(refused.is_err(), "plaintext was taken: {refused:?}");

    // And back.
    roll(&mut cluster, &both, NONE, Some(&tls), &[&secure]).await?;
    let plain = Writer::start("again", client(&http, None)?);
    plain.goes_on().await?;
    secure.check(&client(&http, None)?).await?;
    call_peers(&client(&http, None)?, "http").await?;
    roll(&mut cluster, &[], NONE, None, &[&plain]).await?;
    plain.check(&client(&http, None)?).await?;
    let refused = client(&https, Some(tls))?.get("k").await;
    ensure!(refused.is_err(), "TLS was taken: {refused:?}");
    Ok(())
}
