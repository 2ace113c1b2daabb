//! Members as in a Pod: TLS on every side, plain health beside it, and a real `quorate-sidecar`.

use crate::authority::{Pair, Subject};
use crate::binaries::{Kind, our_program};
use crate::cluster::{self, Cluster, Options};
use crate::process::{Process, Spec, free_port};
use crate::secure::{Files, Sides, https_call, ready, set_urls, url};
use crate::wait;
use anyhow::{Context, Result, ensure};
use quorate_client::TlsConfig;
use quorate_client::proto::etcdserverpb as pb;
use quorate_sidecar::wire::{BackupRequest, BackupState, Phase, VerifyRequest, VerifyState};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// How long a task of the sidecar may take.
pub const TASK_DEADLINE: Duration = Duration::from_secs(120);
/// The name that the sidecar lets in.
pub const OPERATOR: &str = "quorate-operator";

/// The sidecar's program.
///
/// # Errors
/// When it is not built.
pub fn program() -> Result<PathBuf> {
    our_program("quorate-sidecar")
}

/// A cluster whose members have what a Pod gives them.
#[derive(Debug)]
pub struct Pods {
    pub cluster: Cluster,
    pub files: Files,
    /// The operator's certificate.
    pub operator: Pair,
    health_ports: Vec<u16>,
}

impl Pods {
    /// Starts `size` members.
    ///
    /// # Errors
    /// When one does not come up.
    pub async fn start(size: usize) -> Result<Self> {
        let files = Files::new()?;
        let operator = Subject::here(OPERATOR, 30);
        let operator = files.authority.issue("operator", &operator)?;
        let mut options = Options::new(Kind::Quorate, size);
        options.extra_flags = files.flags(Sides::BOTH);
        let (mut specs, dir) = cluster::specs(&options)?;
        set_urls(&mut specs, Sides::BOTH);
        let mut health_ports = Vec::new();
        for spec in &mut specs {
            let port = free_port()?;
            let flag = format!("--listen-metrics-urls=http://127.0.0.1:{port}");
            spec.extra_flags.push(flag);
            health_ports.push(port);
        }
        let members = specs.into_iter().map(Process::start);
        let mut cluster = Cluster::from_parts(members.collect::<Result<_>>()?, dir);
        for member in &mut cluster.members {
            ready(member, true, Some(files.tls())).await?;
        }
        Ok(Self {
            cluster,
            files,
            operator,
            health_ports,
        })
    }

    /// A client of one member.
    ///
    /// # Errors
    /// When a file is wrong.
    pub fn client(&self, member: usize) -> Result<quorate_client::Client> {
        let url = url(&self.cluster.members[member], true);
        crate::secure::client(&[url], Some(self.files.tls()))
    }

    /// What one member says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, member: usize) -> Result<pb::StatusResponse> {
        let mut client = self.client(member)?.maintenance();
        Ok(client.status(pb::StatusRequest {}).await?.into_inner())
    }

    /// Which member leads; waits while there is none.
    ///
    /// # Errors
    /// When no leader appears in time.
    pub async fn leader(&self) -> Result<usize> {
        wait::until("a leader", TASK_DEADLINE, async || {
            for member in 0..self.cluster.members.len() {
                let Ok(status) = self.status(member).await else {
                    continue;
                };
                let id = status.header.context("a header")?.member_id;
                if status.leader == id {
                    return Ok(Some(member));
                }
            }
            Ok(None)
        })
        .await
    }

    /// `name=url,…` of all members.
    pub fn initial_cluster(&self) -> String {
        let members = self.cluster.members.iter().map(|member| {
            let (name, port) = (&member.spec.name, member.spec.peer_port);
            format!("{name}=https://127.0.0.1:{port}")
        });
        members.collect::<Vec<_>>().join(",")
    }

    /// HashKV of one member.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn hash(&self, member: usize, revision: i64) -> Result<(u32, i64)> {
        hash(&self.client(member)?, revision).await
    }

    /// The flags by which the sidecar reaches a member.
    pub fn member_flags(&self, member: usize) -> Vec<String> {
        let mut flags = vec![format!(
            "--endpoint={}",
            url(&self.cluster.members[member], true)
        )];
        flags.extend(self.identity_flags());
        flags
    }

    /// The sidecar's certificate towards members.
    pub fn identity_flags(&self) -> Vec<String> {
        vec![
            format!("--cert-file={}", self.files.client.cert.display()),
            format!("--key-file={}", self.files.client.key.display()),
            format!("--ca-file={}", self.files.authority.file.display()),
        ]
    }

    /// Starts the sidecar of a member. Volume, credentials and scratch lie in `folder`.
    ///
    /// # Errors
    /// When it does not serve.
    pub async fn sidecar(&self, member: usize, folder: &Path) -> Result<Sidecar> {
        let spec = &self.cluster.members[member].spec;
        for name in ["volume", "credentials", "scratch"] {
            std::fs::create_dir_all(folder.join(name))?;
        }
        let port = free_port()?;
        let inside = |name: &str| folder.join(name).display().to_string();
        let log = folder.join(format!("sidecar-{port}.log"));
        let file = std::fs::File::create(&log)?;
        let child = Command::new(program()?)
            .arg("serve")
            .args(self.member_flags(member))
            .arg(format!("--name={}", spec.name))
            .arg(format!("--data-dir={}", spec.data_dir.display()))
            .arg(format!(
                "--health-url=http://127.0.0.1:{}",
                self.health_ports[member]
            ))
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg(format!(
                "--server-cert-file={}",
                self.files.server.cert.display()
            ))
            .arg(format!(
                "--server-key-file={}",
                self.files.server.key.display()
            ))
            .arg(format!(
                "--server-ca-file={}",
                self.files.authority.file.display()
            ))
            .arg(format!(
                "--backup-credentials-dir={}",
                inside("credentials")
            ))
            .arg(format!("--backup-volume={}", inside("volume")))
            .arg(format!("--scratch-dir={}", inside("scratch")))
            .arg(format!(
                "--quorate-binary={}",
                Kind::Quorate.server()?.display()
            ))
            // As in an image without anybody's certificates.
            .env("SSL_CERT_FILE", "/nonexistent")
            .env("SSL_CERT_DIR", "/nonexistent")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let sidecar = Sidecar {
            child: Some(child),
            port,
            log,
            tls: TlsConfig {
                cert_file: Some(self.operator.cert.clone()),
                key_file: Some(self.operator.key.clone()),
                ..self.files.tls()
            },
        };
        wait::until("a sidecar that serves", TASK_DEADLINE, async || {
            Ok(sidecar.call("GET", "/healthz", "").await.ok())
        })
        .await?;
        Ok(sidecar)
    }
}

/// HashKV of one member, with its compaction.
///
/// # Errors
/// When it does not answer.
pub async fn hash(client: &quorate_client::Client, revision: i64) -> Result<(u32, i64)> {
    let request = pb::HashKvRequest { revision };
    let answer = client.read(request, async |client, request| {
        client.maintenance().hash_kv(request).await
    });
    let answer = answer.await?;
    Ok((answer.hash, answer.compact_revision))
}

/// Runs the gate for a member as `spec` describes it, with more flags.
///
/// # Errors
/// When it cannot be started.
pub fn gate(spec: &Spec, more: &[String]) -> Result<Output> {
    let output = Command::new(program()?)
        .arg("gate")
        .arg(format!("--name={}", spec.name))
        .arg(format!("--data-dir={}", spec.data_dir.display()))
        .arg(format!(
            "--quorate-binary={}",
            Kind::Quorate.server()?.display()
        ))
        .args(more)
        .stdin(Stdio::null())
        .output()?;
    Ok(output)
}

/// A running sidecar. It is killed when it is dropped.
#[derive(Debug)]
pub struct Sidecar {
    child: Option<Child>,
    pub port: u16,
    pub log: PathBuf,
    /// Whom it is called as.
    pub tls: TlsConfig,
}

impl Sidecar {
    /// Makes a call; the status and the body.
    ///
    /// # Errors
    /// When nobody answers, or the one does not believe the other.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        https_call(self.port, &self.tls, method, path, body).await
    }

    /// What lies at a path.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let (status, body) = self.call("GET", path, "").await?;
        ensure!(status == 200, "GET {path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Sends a request; the answer, which must be one that was accepted.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T> {
        let (status, body) = self
            .call("POST", path, &serde_json::to_string(request)?)
            .await?;
        ensure!([200, 202].contains(&status), "POST {path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Takes a backup and waits for its end.
    ///
    /// # Errors
    /// When it is refused, or has no end.
    pub async fn backup(&self, request: &BackupRequest) -> Result<BackupState> {
        let _: BackupState = self.post("/v1/backups", request).await?;
        self.backup_ended(&request.name).await
    }

    /// Waits for the end of a backup.
    ///
    /// # Errors
    /// When it has none.
    pub async fn backup_ended(&self, name: &str) -> Result<BackupState> {
        wait::until("a backup that is over", TASK_DEADLINE, async || {
            let state: BackupState = self.get(&format!("/v1/backups/{name}")).await?;
            Ok((state.phase != Phase::Running).then_some(state))
        })
        .await
    }

    /// Proves a backup and waits for its end.
    ///
    /// # Errors
    /// When it is refused, or has no end.
    pub async fn verify(&self, request: &VerifyRequest) -> Result<VerifyState> {
        let _: VerifyState = self.post("/v1/verifications", request).await?;
        let path = format!("/v1/verifications/{}", request.name);
        wait::until("a verification that is over", TASK_DEADLINE, async || {
            let state: VerifyState = self.get(&path).await?;
            Ok((state.phase != Phase::Running).then_some(state))
        })
        .await
    }

    /// The process ID.
    ///
    /// # Errors
    /// When it was killed.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("a sidecar that runs")?.id())
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it was killed before.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("a sidecar to kill")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn terminate(&mut self) -> Result<()> {
        let mut child = self.child.take().context("a sidecar to end")?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = wait::until("the end of a sidecar", TASK_DEADLINE, async || {
            Ok(child.try_wait()?)
        });
        let status = status.await?;
        ensure!(
            status.success(),
            "{status}: {}",
            std::fs::read_to_string(&self.log)?
        );
        Ok(())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill().ok();
        }
    }
}
