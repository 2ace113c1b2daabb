//! A Kubernetes control plane without nodes: a real kube-apiserver and kube-controller-manager on
//! a store that speaks etcd's protocol. No root and no kubelet are needed; all is on loopback.

pub mod objects;
pub mod real;
pub mod rest;
pub mod watching;

use crate::authority::{Authority, Subject};
use crate::binaries::kubernetes_program;
use crate::process::{self, Usage, free_port};
use crate::secure::Files;
use crate::wait;
use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use rcgen::KeyPair;
use rest::Rest;
use serde_json::json;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// How long a start may take on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(180);

/// How long a kubectl command may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// After two of these, what was at the first is compacted.
pub const COMPACTION_INTERVAL: Duration = Duration::from_secs(20);

/// How long events are kept, by a lease of the store.
pub const EVENT_TTL: Duration = Duration::from_secs(10);

/// Objects of this kind have no cache in the API server: each list and watch is the store's own.
pub const UNCACHED: &str = "secrets";

/// A program with a log, killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(name: &str, dir: &Path, flags: &[String]) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let child = Command::new(kubernetes_program(name)?)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// What it said so far.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Fails when it has ended, with the end of its log.
    ///
    /// # Errors
    /// When it has ended.
    pub fn is_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, self.log_tail()?);
        }
        Ok(())
    }

    fn log_tail(&self) -> Result<String> {
        let log = self.log()?;
        let lines: Vec<&str> = log.lines().collect();
        Ok(lines[lines.len().saturating_sub(25)..].join("\n"))
    }

    /// CPU time and memory so far.
    ///
    /// # Errors
    /// When it does not run.
    pub fn usage(&self) -> Result<Usage> {
        process::usage(self.child.id())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// A running control plane. Its programs are killed and its files removed when it is dropped.
#[derive(Debug)]
pub struct ControlPlane {
    pub api_server: Program,
    pub controller_manager: Program,
    /// The administrator's connection.
    pub rest: Rest,
    /// From the start of the API server until it was ready.
    pub started_in: Duration,
    kubeconfig: PathBuf,
    dir: TempDir,
}

/// Who may do what; the tokens are made anew for each control plane.
struct Users {
    administrator: String,
    manager: String,
}

impl ControlPlane {
    /// Starts it on a store at `urls`, and waits until the API server is ready.
    ///
    /// # Errors
    /// When a program is missing or does not become ready.
    pub async fn start(urls: &str, store: &Files) -> Result<Self> {
        Self::start_with(urls, store, &[]).await
    }

    /// The same with further flags of the API server; the last flag of a name counts.
    ///
    /// # Errors
    /// When a program is missing or does not become ready.
    pub async fn start_with(urls: &str, store: &Files, more: &[String]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("quorate-k8s-").tempdir()?;
        let authority = Authority::new(dir.path(), "ca")?;
        let users = Users {
            administrator: token(),
            manager: token(),
        };
        let port = free_port()?;
        let flags = api_server_flags(dir.path(), &authority, &users, port)?;
        let flags = [flags, store_flags(urls, store), more.to_vec()].concat();
        let started = Instant::now();
        let mut api_server = Program::start("kube-apiserver", dir.path(), &flags)?;
        let rest = Rest::new(port, &authority.file, &users.administrator)?;
        let ready = wait::until("an API server that is ready", START_DEADLINE, async || {
            api_server.is_running()?;
            let answer = rest.raw("GET", "/readyz", None).await;
            Ok(answer.ok().filter(|answer| answer.status == 200))
        });
        if let Err(error) = ready.await {
            return Err(error.context(api_server.log_tail()?));
        }
        let started_in = started.elapsed();
        let manager = kubeconfig(dir.path(), "manager", &authority, port, &users.manager)?;
        let flags = manager_flags(dir.path(), &authority, &manager);
        Ok(Self {
            controller_manager: Program::start("kube-controller-manager", dir.path(), &flags)?,
            kubeconfig: kubeconfig(dir.path(), "admin", &authority, port, &users.administrator)?,
            api_server,
            rest,
            started_in,
            dir,
        })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl as the administrator; gives back what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> Result<String> {
        let mut child = tokio::process::Command::new(kubernetes_program("kubectl")?)
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!(
                "--cache-dir={}",
                self.dir.path().join("cache").display()
            ))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("standard input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = tokio::time::timeout(COMMAND_DEADLINE, child.wait_with_output()).await;
        let output = output.with_context(|| format!("kubectl {args:?} hangs"))??;
        ensure!(
            output.status.success(),
            "kubectl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn token() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

/// etcd's flags of the API server, as kubeadm sets them, but with short times.
fn store_flags(urls: &str, store: &Files) -> Vec<String> {
    vec![
        format!("--etcd-servers={urls}"),
        format!("--etcd-cafile={}", store.authority.file.display()),
        format!("--etcd-certfile={}", store.client.cert.display()),
        format!("--etcd-keyfile={}", store.client.key.display()),
        format!(
            "--etcd-compaction-interval={}s",
            COMPACTION_INTERVAL.as_secs()
        ),
        format!("--event-ttl={}s", EVENT_TTL.as_secs()),
        format!("--watch-cache-sizes={UNCACHED}#0"),
    ]
}

fn api_server_flags(
    dir: &Path,
    authority: &Authority,
    users: &Users,
    port: u16,
) -> Result<Vec<String>> {
    let names = [
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default.svc",
    ];
    let server = authority.issue("api-server", &Subject::at("kube-apiserver", 2, &names))?;
    let tokens = dir.join("tokens.csv");
    let lines = format!(
        "{},admin,admin,system:masters\n{},system:kube-controller-manager,manager\n",
        users.administrator, users.manager
    );
    std::fs::write(&tokens, lines)?;
    let account = KeyPair::generate()?;
    std::fs::write(dir.join("accounts.key"), account.serialize_pem())?;
    std::fs::write(dir.join("accounts.pub"), account.public_key_pem())?;
    let file = |name: &str| dir.join(name).display().to_string();
    Ok(vec![
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        // Nobody dials it, but the address of the service `kubernetes` must not be loopback.
        "--advertise-address=192.0.2.1".to_owned(),
        format!("--tls-cert-file={}", server.cert.display()),
        format!("--tls-private-key-file={}", server.key.display()),
        format!("--token-auth-file={}", tokens.display()),
        "--authorization-mode=RBAC".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!(
            "--service-account-signing-key-file={}",
            file("accounts.key")
        ),
    ])
}

fn manager_flags(dir: &Path, authority: &Authority, kubeconfig: &Path) -> Vec<String> {
    let kubeconfig = kubeconfig.display();
    let key = dir.join("accounts.key");
    vec![
        format!("--kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        // It serves nothing.
        "--secure-port=0".to_owned(),
        format!("--service-account-private-key-file={}", key.display()),
        format!("--root-ca-file={}", authority.file.display()),
        "--use-service-account-credentials=true".to_owned(),
        // It ends when it cannot renew its lease in time: the store must not be away for long.
        "--leader-elect=true".to_owned(),
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
    ]
}

/// Writes a kubeconfig; JSON is YAML too.
fn kubeconfig(
    dir: &Path,
    user: &str,
    authority: &Authority,
    port: u16,
    token: &str,
) -> Result<PathBuf> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority": authority.file,
        }}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": user}}],
    });
    let file = dir.join(format!("{user}.kubeconfig"));
    std::fs::write(&file, config.to_string())?;
    Ok(file)
}
