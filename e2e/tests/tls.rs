//! TLS on real binaries: who is let in and who is not, for clients and for peers.

use anyhow::{Context, Result, ensure};
use quorate_client::TlsConfig;
use quorate_e2e::authority::{Authority, Pair, Subject};
use quorate_e2e::binaries::Kind;
use quorate_e2e::cluster::Cluster;
use quorate_e2e::secure::{self, Files, Sides, client, ctl, ctl_flags, https_get, start, url};
use quorate_e2e::wait;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BOTH: Sides = Sides::BOTH;
const CLIENT: Sides = Sides::CLIENT;
const PEER: Sides = Sides::PEER;

/// What is refused must be refused at once, and not by a time limit.
const AT_ONCE: Duration = Duration::from_secs(5);

const TOOLS: [Kind; 2] = [Kind::Etcd, Kind::Quorate];

fn urls(cluster: &Cluster) -> String {
    let urls = cluster.members.iter().map(|member| url(member, true));
    urls.collect::<Vec<_>>().join(",")
}

/// Runs a tool with certificates; gives back what it printed, all in one.
async fn run(tool: Kind, flags: &[String], words: &[&str]) -> Result<(bool, String)> {
    let mut args: Vec<&str> = flags.iter().map(String::as_str).collect();
    args.extend(words);
    let output = ctl(tool, &args).await?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((output.status.success(), text))
}

async fn works(tool: Kind, flags: &[String], words: &[&str], says: &str) -> Result<()> {
    let (fine, text) = run(tool, flags, words).await?;
    ensure!(fine && text.contains(says), "{tool:?} {words:?}: {text}");
    Ok(())
}

/// Both tools are turned away, soon.
async fn refused(flags: &[String]) -> Result<()> {
    for tool in TOOLS {
        let mut flags = flags.to_vec();
        flags.push("--command-timeout=2s".to_owned());
        let (fine, text) = run(tool, &flags, &["get", "k"]).await?;
        ensure!(!fine, "{tool:?} was let in with {flags:?}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn one_member_speaks_tls_with_all_who_show_a_certificate() -> Result<()> {
    let files = Files::new()?;
    let kind = Kind::under_test()?;
    let cluster = start(kind, 1, BOTH, files.flags(BOTH), Some(files.tls())).await?;
    let flags = ctl_flags(&urls(&cluster), &files.authority.file, Some(&files.client));
    for tool in TOOLS {
        works(tool, &flags, &["put", "k", "v"], "OK").await?;
        works(tool, &flags, &["get", "k"], "k\nv").await?;
        works(tool, &flags, &["endpoint", "health"], "is healthy").await?;
        works(tool, &flags, &["member", "list"], "https://127.0.0.1:").await?;
        // Without a scheme, the certificates make it TLS.
        let bare = format!("--endpoints=127.0.0.1:{}", cluster.ports()[0]);
        let bare = [&[bare], &flags[1..]].concat();
        works(tool, &bare, &["get", "k"], "k\nv").await?;
    }
    let port = cluster.ports()[0];
    let health = https_get(port, "/health", &files.tls()).await?;
    ensure!(health.contains("{\"health\":\"true\""), "{health}");
    let metrics = https_get(port, "/metrics", &files.tls()).await?;
    ensure!(metrics.contains("etcd_server_has_leader 1"), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn three_members_speak_tls_among_each_other_and_survive_one() -> Result<()> {
    let files = Files::new()?;
    let kind = Kind::under_test()?;
    let mut cluster = start(kind, 3, BOTH, files.flags(BOTH), Some(files.tls())).await?;
    let flags = ctl_flags(&urls(&cluster), &files.authority.file, Some(&files.client));
    for tool in TOOLS {
        works(tool, &flags, &["put", "a", "1"], "OK").await?;
        let words = ["endpoint", "health", "--cluster"];
        works(tool, &flags, &words, "is healthy").await?;
    }
    cluster.members[0].kill()?;
    let left: Vec<String> = cluster.members[1..].iter().map(|m| url(m, true)).collect();
    let writer = client(&left, Some(files.tls()))?;
    wait::until(
        "two of three that serve",
        Duration::from_secs(30),
        async || Ok(writer.put("a", "2").await.ok()),
    )
    .await?;
    cluster.members[0].restart()?;
    secure::ready(&mut cluster.members[0], true, Some(files.tls())).await?;
    let first = client(&[url(&cluster.members[0], true)], Some(files.tls()))?;
    let read = first.get("a").await?;
    ensure!(read.kvs[0].value.as_ref() == b"2", "{read:?}");
    Ok(())
}

#[tokio::test]
async fn strangers_are_turned_away_and_the_member_serves_on() -> Result<()> {
    let files = Files::new()?;
    let other = Authority::new(files.dir(), "other")?;
    let authority = &files.authority;
    let stranger = other.issue("stranger", &Subject::here("stranger", 1))?;
    let old = authority.issue("old", &Subject::here("old", 2).expired())?;
    let revoked = authority.issue("revoked", &Subject::here("revoked", 3))?;
    let list = authority.revoke("list.crl", &[3, 4])?;
    let mut given = files.flags(CLIENT);
    given.push(format!("--client-crl-file={}", list.display()));
    let metrics = quorate_e2e::process::free_port()?;
    given.push(format!("--listen-metrics-urls=https://127.0.0.1:{metrics}"));
    let cluster = start(Kind::under_test()?, 1, CLIENT, given, Some(files.tls())).await?;
    let urls = urls(&cluster);
    for pair in [None, Some(&stranger), Some(&revoked)] {
        refused(&ctl_flags(&urls, &authority.file, pair)).await?;
    }
    // quoratectl looks at its own certificate; etcdctl is told by the server.
    refused(&ctl_flags(&urls, &authority.file, Some(&old))).await?;
    // A client does not believe a server of an unknown CA.
    refused(&ctl_flags(&urls, &other.file, Some(&files.client))).await?;
    let port = cluster.ports()[0];
    for pair in [&stranger, &revoked] {
        for port in [port, metrics] {
            let tls = TlsConfig {
                cert_file: Some(pair.cert.clone()),
                key_file: Some(pair.key.clone()),
                ..files.tls()
            };
            let answer = https_get(port, "/health", &tls).await;
            ensure!(answer.is_err(), "{pair:?} at {port}: {answer:?}");
        }
    }
    https_get(metrics, "/health", &files.tls()).await?;
    let flags = ctl_flags(&urls, &authority.file, Some(&files.client));
    works(Kind::Etcd, &flags, &["put", "k", "v"], "OK").await
}

/// What the other end says to some bytes until it hangs up.
async fn said_to(port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(AT_ONCE, stream.read_to_end(&mut answer));
    // It may also break the connection off.
    read.await.context("it hangs")?.ok();
    Ok(answer)
}

#[tokio::test]
async fn plaintext_and_tls_are_not_taken_for_each_other() -> Result<()> {
    let files = Files::new()?;
    let kind = Kind::under_test()?;
    let http = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let secure = start(kind, 1, BOTH, files.flags(BOTH), Some(files.tls())).await?;
    let spec = &secure.members[0].spec;
    for port in [spec.client_port, spec.peer_port] {
        for bytes in [&http[..], &preface[..]] {
            let answer = said_to(port, bytes).await?;
            let text = String::from_utf8_lossy(&answer);
            ensure!(!text.contains("health"), "{text}");
        }
    }
    let plain = start(kind, 1, PEER, files.flags(PEER), None).await?;
    let begun = Instant::now();
    let answer = https_get(plain.ports()[0], "/health", &files.tls()).await;
    ensure!(answer.is_err() && begun.elapsed() < AT_ONCE, "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_handshake_that_hangs_is_in_nobodys_way() -> Result<()> {
    let files = Files::new()?;
    let kind = Kind::under_test()?;
    let cluster = start(kind, 1, CLIENT, files.flags(CLIENT), Some(files.tls())).await?;
    let port = cluster.ports()[0];
    let mut hanging = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        if number % 2 == 0 {
            // The head of a record whose rest never comes.
            stream.write_all(&[0x16, 3, 1, 2, 0]).await?;
        }
        hanging.push(stream);
    }
    let begun = Instant::now();
    for _ in 0..20 {
        https_get(port, "/health", &files.tls()).await?;
    }
    ensure!(begun.elapsed() < AT_ONCE, "took {:?}", begun.elapsed());
    // They are not kept for ever either: the server hangs up.
    let mut first = hanging.swap_remove(0);
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), first.read_to_end(&mut rest));
    read.await.context("a handshake without an end")?.ok();
    Ok(())
}

#[tokio::test]
async fn only_allowed_names_are_let_in() -> Result<()> {
    let files = Files::new()?;
    let authority = &files.authority;
    let friend = authority.issue("friend", &Subject::at("friend", 5, &["a.friend.test"]))?;
    let mut given = files.flags(BOTH);
    given.push("--client-cert-allowed-hostname=b.test,a.friend.test".to_owned());
    // The members show each other the certificate of `server`.
    given.push("--peer-cert-allowed-cn=nobody,server".to_owned());
    let friendly = TlsConfig {
        cert_file: Some(friend.cert.clone()),
        key_file: Some(friend.key.clone()),
        ..files.tls()
    };
    let kind = Kind::under_test()?;
    // etcd's gateway calls itself with its own certificate, which would need the name.
    given.push("--enable-grpc-gateway=false".to_owned());
    let cluster = start(kind, 3, BOTH, given, Some(friendly)).await?;
    let urls = urls(&cluster);
    let flags = ctl_flags(&urls, &authority.file, Some(&friend));
    works(Kind::Etcd, &flags, &["put", "k", "v"], "OK").await?;
    refused(&ctl_flags(&urls, &authority.file, Some(&files.client))).await
}

/// One member whose peers' TLS is `theirs`, beside two that have `ours`.
async fn is_left_alone(flags: Vec<String>, wrong: Vec<String>, says: &str) -> Result<()> {
    let kind = Kind::under_test()?;
    let mut options = quorate_e2e::cluster::Options::new(kind, 3);
    options.extra_flags = flags;
    let (mut specs, dir) = quorate_e2e::cluster::specs(&options)?;
    secure::set_urls(&mut specs, PEER);
    specs[2].extra_flags.extend(wrong);
    let members = specs.into_iter().map(quorate_e2e::process::Process::start);
    let mut cluster = Cluster::from_parts(members.collect::<Result<_>>()?, dir);
    let (two, third) = cluster.members.split_at_mut(2);
    for member in &mut *two {
        member.ready().await?;
    }
    wait::until("a word on the stranger", AT_ONCE * 4, async || {
        let logs = [two[0].log()?, two[1].log()?];
        let told = logs.iter().any(|log| log.contains(says));
        Ok(told.then_some(()))
    })
    .await
    .with_context(|| two[0].log_tail().unwrap_or_default())?;
    let ready = third[0].log()?.contains(quorate_e2e::process::READY_LINE);
    // A member of etcd also learns through the connections that others make to it.
    ensure!(kind == Kind::Etcd || !ready, "the stranger serves");
    Ok(())
}

#[tokio::test]
async fn a_peer_of_another_authority_is_left_alone() -> Result<()> {
    let files = Files::new()?;
    let other = Authority::new(files.dir(), "other")?;
    let stranger = other.issue("stranger", &Subject::here("stranger", 1))?;
    let wrong = vec![
        format!("--peer-cert-file={}", stranger.cert.display()),
        format!("--peer-key-file={}", stranger.key.display()),
    ];
    let says = "rejected connection on peer endpoint";
    is_left_alone(files.flags(PEER), wrong, says).await
}

#[tokio::test]
async fn a_peer_from_elsewhere_is_left_alone() -> Result<()> {
    let files = Files::new()?;
    let away = Subject::at("away", 7, &["127.0.0.99"]);
    let away = files.authority.issue("away", &away)?;
    // It serves with a certificate that is valid here, and calls with one that is not.
    let wrong = vec![
        format!("--peer-client-cert-file={}", away.cert.display()),
        format!("--peer-client-key-file={}", away.key.display()),
    ];
    let says = "certificate is valid for 127.0.0.99, not 127.0.0.1";
    is_left_alone(files.flags(PEER), wrong, says).await
}

#[tokio::test]
async fn a_revoked_peer_is_left_alone() -> Result<()> {
    let files = Files::new()?;
    let revoked = files.authority.issue("gone", &Subject::here("gone", 9))?;
    let list = files.authority.revoke("peers.crl", &[9])?;
    let mut flags = files.flags(PEER);
    flags.push(format!("--peer-crl-file={}", list.display()));
    let wrong = vec![
        format!("--peer-client-cert-file={}", revoked.cert.display()),
        format!("--peer-client-key-file={}", revoked.key.display()),
    ];
    let says = "rejected connection on peer endpoint";
    is_left_alone(flags, wrong, says).await
}

#[tokio::test]
async fn members_make_their_own_certificates() -> Result<()> {
    // Those of etcd are P-521, which our client cannot read.
    let kind = Kind::Quorate;
    let flags = vec!["--auto-tls".to_owned(), "--peer-auto-tls".to_owned()];
    let unseen = TlsConfig {
        insecure_skip_verify: true,
        ..TlsConfig::default()
    };
    let cluster = start(kind, 3, BOTH, flags, Some(unseen)).await?;
    let mut flags = vec![format!("--endpoints={}", urls(&cluster))];
    flags.push("--insecure-skip-tls-verify".to_owned());
    for tool in TOOLS {
        works(tool, &flags, &["put", "k", "v"], "OK").await?;
    }
    for member in &cluster.members {
        for side in ["client", "peer"] {
            let dir = member.spec.data_dir.join("fixtures").join(side);
            ensure!(mode(&dir)? == 0o700, "{}: {:o}", dir.display(), mode(&dir)?);
            let key = dir.join("key.pem");
            ensure!(mode(&key)? == 0o600, "{}: {:o}", key.display(), mode(&key)?);
        }
    }
    // Whoever trusts that one certificate needs to skip nothing.
    let made = cluster.members[0]
        .spec
        .data_dir
        .join("fixtures/client/cert.pem");
    let flags = ctl_flags(&url(&cluster.members[0], true), &made, None);
    for tool in TOOLS {
        works(tool, &flags, &["get", "k"], "k\nv").await?;
    }
    Ok(())
}

fn mode(path: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o777)
}

#[tokio::test]
async fn one_address_under_both_schemes_takes_both() -> Result<()> {
    let files = Files::new()?;
    let kind = Kind::under_test()?;
    let mut options = quorate_e2e::cluster::Options::new(kind, 1);
    options.extra_flags = files.flags(CLIENT);
    let hosts = "--host-whitelist=somebody.test".to_owned();
    options.extra_flags.push(hosts);
    let (mut specs, dir) = quorate_e2e::cluster::specs(&options)?;
    let port = specs[0].client_port;
    specs[0].extra_flags.push(format!(
        "--listen-client-urls=http://127.0.0.1:{port},https://127.0.0.1:{port}"
    ));
    let members = specs.into_iter().map(quorate_e2e::process::Process::start);
    let mut cluster = Cluster::from_parts(members.collect::<Result<_>>()?, dir);
    cluster.ready().await?;
    // Over TLS, the certificate vouches for the host; in plaintext, the list of hosts counts.
    let health = https_get(port, "/health", &files.tls()).await?;
    ensure!(health.contains("\"health\":\"true\""), "{health}");
    let plain = TcpStream::connect(("127.0.0.1", port)).await?;
    let health = secure::get(plain, "/health").await?;
    ensure!(health.starts_with("HTTP/1.1 421 "), "{health}");
    refused(&ctl_flags(&urls(&cluster), &files.authority.file, None)).await?;
    Ok(())
}

#[tokio::test]
async fn versions_and_suites_are_chosen() -> Result<()> {
    let files = Files::new()?;
    let kind = Kind::under_test()?;
    let with = |suite: &str| {
        let mut flags = files.flags(CLIENT);
        flags.push("--tls-max-version=TLS1.2".to_owned());
        flags.push(format!("--cipher-suites={suite}"));
        flags
    };
    let fits = with("TLS_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    let cluster = start(kind, 1, CLIENT, fits, Some(files.tls())).await?;
    let flags = ctl_flags(&urls(&cluster), &files.authority.file, Some(&files.client));
    for tool in TOOLS {
        works(tool, &flags, &["put", "k", "v"], "OK").await?;
    }
    // The certificate is ECDSA, and this suite is for RSA: nothing can be agreed on.
    let mut options = quorate_e2e::cluster::Options::new(kind, 1);
    options.extra_flags = with("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
    let (mut specs, dir) = quorate_e2e::cluster::specs(&options)?;
    secure::set_urls(&mut specs, CLIENT);
    let port = specs[0].client_port;
    let members = specs.into_iter().map(quorate_e2e::process::Process::start);
    let cluster = Cluster::from_parts(members.collect::<Result<_>>()?, dir);
    wait::until("a member that is up", Duration::from_secs(30), async || {
        let ready = cluster.members[0]
            .log()?
            .contains("serving client traffic securely");
        Ok(ready.then_some(()))
    })
    .await?;
    let error = https_get(port, "/health", &files.tls()).await.err();
    let text = format!("{:#}", error.context("a handshake that fails")?);
    ensure!(text.contains("handshake failure"), "{text}");
    Ok(())
}

#[tokio::test]
async fn sockets_of_the_file_system_speak_tls_too() -> Result<()> {
    let files = Files::new()?;
    let kind = Kind::under_test()?;
    let socket = files.dir().join("localhost");
    let url = format!("unixs://{}", socket.display());
    let mut options = quorate_e2e::cluster::Options::new(kind, 1);
    options.extra_flags = files.flags(CLIENT);
    options
        .extra_flags
        .push(format!("--listen-client-urls={url}"));
    let (specs, dir) = quorate_e2e::cluster::specs(&options)?;
    let members = specs.into_iter().map(quorate_e2e::process::Process::start);
    let cluster = Cluster::from_parts(members.collect::<Result<_>>()?, dir);
    let caller = client(std::slice::from_ref(&url), Some(files.tls()))?;
    wait::until(
        "a member that serves",
        Duration::from_secs(30),
        async || Ok(caller.get("k").await.ok()),
    )
    .await
    .with_context(|| cluster.members[0].log_tail().unwrap_or_default())?;
    let flags = ctl_flags(&url, &files.authority.file, Some(&files.client));
    for tool in TOOLS {
        works(tool, &flags, &["put", "k", "v"], "OK").await?;
    }
    Ok(())
}

/// A pair whose files are those of two others.
fn mixed(cert: &Pair, key: &Pair) -> Pair {
    Pair {
        cert: cert.cert.clone(),
        key: key.key.clone(),
    }
}

/// Starts a member that must end with exit code 1 and these words.
async fn fails_to_start(flags: Vec<String>, says: &str) -> Result<()> {
    let mut options = quorate_e2e::cluster::Options::new(Kind::Quorate, 1);
    options.extra_flags = flags;
    let (mut specs, _dir) = quorate_e2e::cluster::specs(&options)?;
    secure::set_urls(&mut specs, CLIENT);
    let spec = specs.pop().context("one member")?;
    let mut process = quorate_e2e::process::Process::start(spec)?;
    let status = process.ended(Duration::from_secs(20)).await?;
    let log = process.log()?;
    ensure!(status.code() == Some(1), "{says}: {status}: {log}");
    let log = log.replace('\\', "");
    ensure!(log.contains(says), "{says:?} is not told: {log}");
    Ok(())
}

#[tokio::test]
async fn a_start_with_wrong_files_fails_and_names_them() -> Result<()> {
    let files = Files::new()?;
    let authority = &files.authority;
    let other = Authority::new(files.dir(), "other")?;
    let old = authority.issue("old", &Subject::here("old", 2).expired())?;
    let foreign = other.revoke("foreign.crl", &[1])?;
    let swapped = Pair {
        cert: files.server.key.clone(),
        key: files.server.cert.clone(),
    };
    let absent = Pair {
        cert: files.dir().join("absent.pem"),
        key: files.server.key.clone(),
    };
    let pair = |pair: &Pair| {
        vec![
            format!("--cert-file={}", pair.cert.display()),
            format!("--key-file={}", pair.key.display()),
        ]
    };
    let also = |flag: String| [pair(&files.server), vec![flag]].concat();
    let alone = vec![format!("--cert-file={}", files.server.cert.display())];
    let ca = format!("--trusted-ca-file={}", authority.file.display());
    let crl = format!("--client-crl-file={}", foreign.display());
    for (flags, says) in [
        (
            vec![],
            "TLS key/cert (--cert-file, --key-file) must be provided for client url",
        ),
        (alone, "KeyFile and CertFile must both be present"),
        (pair(&absent), "absent.pem: no such file or directory"),
        (
            pair(&mixed(&files.server, &files.client)),
            "client.key: tls: private key does not match",
        ),
        (
            pair(&swapped),
            "server.key: tls: failed to find certificate PEM data",
        ),
        (pair(&old), "old.pem: x509: certificate has expired"),
        (
            also("--cipher-suites=TLS_NOPE".to_owned()),
            "unexpected TLS cipher suite \"TLS_NOPE\"",
        ),
        (
            also("--tls-min-version=TLS1.1".to_owned()),
            "unexpected TLS version \"TLS1.1\"",
        ),
        (
            also("--tls-max-version=TLS1.2".to_owned())
                .into_iter()
                .chain(["--tls-min-version=TLS1.3".to_owned()])
                .collect(),
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            also(ca).into_iter().chain([crl]).collect(),
            "foreign.crl: the revocation list was issued by",
        ),
    ] {
        fails_to_start(flags, says).await?;
    }
    Ok(())
}
