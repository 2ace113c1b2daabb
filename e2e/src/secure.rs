//! Clusters that speak TLS, and what talks to them.

use crate::authority::{Authority, Pair, Subject};
use crate::binaries::Kind;
use crate::cluster::{self, Cluster, Options};
use crate::process::{Process, READY_LINE, START_DEADLINE, Spec};
use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use quorate_client::{Client, ClientConfig, TlsConfig};
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// How long a tool may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where clients and peers of a member speak TLS.
#[derive(Clone, Copy, Debug)]
pub struct Sides {
    pub client: bool,
    pub peer: bool,
}

impl Sides {
    pub const NONE: Self = Self::of(false, false);
    pub const CLIENT: Self = Self::of(true, false);
    pub const PEER: Self = Self::of(false, true);
    pub const BOTH: Self = Self::of(true, true);

    const fn of(client: bool, peer: bool) -> Self {
        Self { client, peer }
    }
}

/// Files of an authority in a directory that goes with it: a certificate of a server, which peers
/// show each other too, and one of a client.
#[derive(Debug)]
pub struct Files {
    pub authority: Authority,
    pub server: Pair,
    pub client: Pair,
    dir: TempDir,
}

impl Files {
    /// Makes them.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("quorate-tls-").tempdir()?;
        let authority = Authority::new(dir.path(), "ca")?;
        Ok(Self {
            server: authority.issue("server", &Subject::here("server", 10))?,
            client: authority.issue("client", &Subject::here("client", 20))?,
            authority,
            dir,
        })
    }

    /// Where they lie.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The flags that name them, with certificates asked of callers.
    pub fn flags(&self, sides: Sides) -> Vec<String> {
        let mut flags = Vec::new();
        let prefixes = [("", sides.client), ("peer-", sides.peer)];
        for (prefix, _) in prefixes.into_iter().filter(|(_, asked)| *asked) {
            flags.extend([
                format!("--{prefix}cert-file={}", self.server.cert.display()),
                format!("--{prefix}key-file={}", self.server.key.display()),
                format!(
                    "--{prefix}trusted-ca-file={}",
                    self.authority.file.display()
                ),
                format!("--{prefix}client-cert-auth"),
            ]);
        }
        flags
    }

    /// What the client needs.
    pub fn tls(&self) -> TlsConfig {
        TlsConfig {
            trusted_ca_file: Some(self.authority.file.clone()),
            cert_file: Some(self.client.cert.clone()),
            key_file: Some(self.client.key.clone()),
            ..TlsConfig::default()
        }
    }
}

/// Adds the flags that make a member's URLs those of `sides`; the last flag of a name counts.
pub fn set_urls(specs: &mut [Spec], sides: Sides) {
    let scheme = |secure: bool| if secure { "https" } else { "http" };
    let (client, peer) = (scheme(sides.client), scheme(sides.peer));
    let members = specs
        .iter()
        .map(|spec| format!("{}={peer}://127.0.0.1:{}", spec.name, spec.peer_port));
    let members = members.collect::<Vec<_>>().join(",");
    for spec in specs {
        let (client_port, peer_port) = (spec.client_port, spec.peer_port);
        spec.extra_flags.extend([
            format!("--listen-client-urls={client}://127.0.0.1:{client_port}"),
            format!("--advertise-client-urls={client}://127.0.0.1:{client_port}"),
            format!("--listen-peer-urls={peer}://127.0.0.1:{peer_port}"),
            format!("--initial-advertise-peer-urls={peer}://127.0.0.1:{peer_port}"),
            format!("--initial-cluster={members}"),
        ]);
    }
}

/// Starts a cluster with these flags and waits until each member serves `tls`.
///
/// # Errors
/// When a member does not come up.
pub async fn start(
    kind: Kind,
    size: usize,
    sides: Sides,
    flags: Vec<String>,
    tls: Option<TlsConfig>,
) -> Result<Cluster> {
    let mut options = Options::new(kind, size);
    options.extra_flags = flags;
    let (mut specs, dir) = cluster::specs(&options)?;
    set_urls(&mut specs, sides);
    let members = specs.into_iter().map(Process::start);
    let members = members.collect::<Result<_>>()?;
    let mut cluster = Cluster::from_parts(members, dir);
    for member in &mut cluster.members {
        ready(member, sides.client, tls.clone()).await?;
    }
    Ok(cluster)
}

/// The URL of a member's client port.
pub fn url(member: &Process, secure: bool) -> String {
    let scheme = if secure { "https" } else { "http" };
    format!("{scheme}://127.0.0.1:{}", member.spec.client_port)
}

/// A client of some URLs.
///
/// # Errors
/// When a URL or file is wrong.
pub fn client(urls: &[String], tls: Option<TlsConfig>) -> Result<Client> {
    Ok(Client::connect_lazy(ClientConfig {
        tls,
        dial_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        ..ClientConfig::new(urls)
    })?)
}

/// Waits until a member serves.
///
/// # Errors
/// When it does not in time, with the end of its log.
pub async fn ready(member: &mut Process, secure: bool, tls: Option<TlsConfig>) -> Result<()> {
    let reader = client(&[url(member, secure)], tls)?;
    let waited = wait::until("a member that serves", START_DEADLINE, async || {
        if let Some(status) = member.exit_status()? {
            bail!("{} ended with {status}", member.spec.name);
        }
        if !member.log()?.contains(READY_LINE) {
            return Ok(None);
        }
        Ok(reader.get("readiness").await.ok())
    });
    match waited.await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.context(member.log_tail()?)),
    }
}

/// Runs etcdctl or quoratectl.
///
/// # Errors
/// When it is missing or hangs.
pub async fn ctl(tool: Kind, args: &[&str]) -> Result<Output> {
    let running = Command::new(tool.ctl()?)
        .args(args)
        .kill_on_drop(true)
        .output();
    let ran = tokio::time::timeout(DEADLINE, running).await;
    Ok(ran.with_context(|| format!("{args:?} hangs"))??)
}

/// The flags of both tools for these URLs and certificates.
pub fn ctl_flags(urls: &str, authority: &Path, pair: Option<&Pair>) -> Vec<String> {
    let mut flags = vec![
        format!("--endpoints={urls}"),
        format!("--cacert={}", authority.display()),
    ];
    if let Some(pair) = pair {
        flags.push(format!("--cert={}", pair.cert.display()));
        flags.push(format!("--key={}", pair.key.display()));
    }
    flags
}

/// Asks for a path over HTTPS; gives back the whole answer as text.
///
/// # Errors
/// The handshake failed, or the other end hung up.
pub async fn https_get(port: u16, path: &str, tls: &TlsConfig) -> Result<String> {
    let file = |path: &Option<std::path::PathBuf>| path.clone().unwrap_or_default();
    let identity = quorate_tls::Identity::load(quorate_tls::Options {
        trusted_ca_file: file(&tls.trusted_ca_file),
        cert_file: file(&tls.cert_file),
        key_file: file(&tls.key_file),
        skip_verify: tls.insecure_skip_verify,
        calls_http1: true,
        ..quorate_tls::Options::default()
    })?;
    let socket = quorate_tls::Socket::connect_tcp("127.0.0.1", port).await?;
    let stream = identity.secure(socket, "127.0.0.1").await?;
    get(stream, path).await
}

/// One call over HTTPS; the status and the body.
///
/// # Errors
/// When nobody answers, or the one does not believe the other.
pub async fn https_call(
    port: u16,
    tls: &TlsConfig,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String)> {
    let file = |path: &Option<std::path::PathBuf>| path.clone().unwrap_or_default();
    let identity = quorate_tls::Identity::load(quorate_tls::Options {
        trusted_ca_file: file(&tls.trusted_ca_file),
        cert_file: file(&tls.cert_file),
        key_file: file(&tls.key_file),
        calls_http1: true,
        ..quorate_tls::Options::default()
    })?;
    let socket = quorate_tls::Socket::connect_tcp("127.0.0.1", port).await?;
    let mut stream = identity.secure(socket, "127.0.0.1").await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("{read:?}"))?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// Asks for a path over any stream.
///
/// # Errors
/// The other end hung up without a word.
pub async fn get<S>(mut stream: S, path: &str) -> Result<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A server need not take its leave of TLS; what came is what counts.
    let read = stream.read_to_end(&mut answer).await;
    ensure!(!answer.is_empty(), "no answer: {read:?}");
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
