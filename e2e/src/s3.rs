//! A real S3 server (versitygw) on a folder of its own, and a wire before it that can hold back.

use crate::authority::Pair;
use crate::binaries::s3_program;
use crate::process::free_port;
use crate::wait;
use anyhow::{Context, Result};
use quorate_sidecar::wire::{S3Store, Store};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The one user's key.
pub const ACCESS_KEY: &str = "quorate-e2e-access";
/// Its secret, which must be found nowhere.
pub const SECRET_KEY: &str = "quorate-e2e-secret-key";

/// How long the server may take to listen.
const DEADLINE: Duration = Duration::from_secs(30);

/// The server. It is killed and its files are removed when it is dropped.
#[derive(Debug)]
pub struct S3 {
    child: Option<Child>,
    pub port: u16,
    dir: TempDir,
    /// Over HTTPS with this certificate.
    pair: Option<Pair>,
}

impl S3 {
    /// Starts one with the bucket `bucket`, over HTTPS if it has a certificate.
    ///
    /// # Errors
    /// When the program is missing or does not listen.
    pub async fn start(bucket: &str, pair: Option<Pair>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("quorate-s3-").tempdir()?;
        std::fs::create_dir_all(dir.path().join("objects").join(bucket))?;
        std::fs::create_dir(dir.path().join("meta"))?;
        let mut server = Self {
            child: None,
            port: free_port()?,
            dir,
            pair,
        };
        server.restart().await?;
        Ok(server)
    }

    /// Starts it again on the same port and folder.
    ///
    /// # Errors
    /// When it does not listen.
    pub async fn restart(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.dir.path().join("log"))?;
        let mut command = Command::new(s3_program()?);
        if let Some(pair) = &self.pair {
            command.arg("--cert").arg(&pair.cert);
            command.arg("--key").arg(&pair.key);
        }
        let child = command
            .arg("--port")
            .arg(format!("127.0.0.1:{}", self.port))
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--quiet"])
            .arg("posix")
            .arg("--sidecar")
            .arg(self.dir.path().join("meta"))
            .arg(self.dir.path().join("objects"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let port = self.port;
        wait::until("an S3 server that listens", DEADLINE, async || {
            Ok(TcpStream::connect(("127.0.0.1", port)).await.ok())
        })
        .await?;
        Ok(())
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("a server to kill")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The folder of a bucket: objects are files below it.
    pub fn bucket(&self, bucket: &str) -> PathBuf {
        self.dir.path().join("objects").join(bucket)
    }

    /// A store at `port`: the server's own, or that of a wire before it.
    pub fn store(&self, bucket: &str, port: u16) -> Store {
        let scheme = if self.pair.is_some() { "https" } else { "http" };
        Store {
            prefix: Some("backups".into()),
            s3: Some(S3Store {
                bucket: bucket.into(),
                endpoint: Some(format!("{scheme}://127.0.0.1:{port}")),
                region: None,
                virtual_hosted_style: false,
                credentials_secret: Some("s3-credentials".into()),
            }),
            ..Store::default()
        }
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill().ok();
        }
    }
}

/// Writes a mounted Secret with these keys into `folder`.
///
/// # Errors
/// When it cannot be written.
pub fn write_secret(folder: &Path, access: &str, secret: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("AWS_ACCESS_KEY_ID"), access)?;
    std::fs::write(folder.join("AWS_SECRET_ACCESS_KEY"), secret)?;
    Ok(())
}

/// The keys of all objects below `folder`, parts of unfinished uploads left out.
///
/// # Errors
/// When a folder cannot be read.
pub fn objects(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            let name = path.file_name().context("a name")?.to_string_lossy();
            if name.starts_with(".sgwtmp") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(folder)?;
                found.push(key.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A wire to a port that lets so many bytes pass and then holds everything back.
#[derive(Debug)]
pub struct Wire {
    pub port: u16,
    limit: watch::Sender<u64>,
    passed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// Lets `limit` bytes pass to `port`.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn before(port: u16, limit: u64) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = listener.local_addr()?.port();
        let (limit, allowed) = watch::channel(limit);
        let passed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&passed);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (allowed, count) = (allowed.clone(), Arc::clone(&count));
                tokio::spawn(carry(near, port, allowed, count));
            }
        });
        Ok(Self {
            port: own,
            limit,
            passed,
            task,
        })
    }

    /// Waits until the wire holds back.
    ///
    /// # Errors
    /// When so much never comes.
    pub async fn is_full(&self) -> Result<()> {
        wait::until("a wire that holds back", DEADLINE, async || {
            let full = self.passed.load(Ordering::Relaxed) >= *self.limit.borrow();
            Ok(full.then_some(()))
        })
        .await
    }

    /// Holds back once so many more bytes have passed.
    pub fn hold_after(&self, bytes: u64) {
        let passed = self.passed.load(Ordering::Relaxed);
        self.limit.send_replace(passed + bytes);
    }

    /// Lets everything pass.
    pub fn open(&self) {
        self.limit.send_replace(u64::MAX);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    near: TcpStream,
    port: u16,
    mut allowed: watch::Receiver<u64>,
    count: Arc<AtomicU64>,
) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = near_read.read(&mut buffer).await.unwrap_or(0);
            let total = count.fetch_add(read as u64, Ordering::Relaxed);
            // When the wire is gone, so is the wait.
            if read == 0 || allowed.wait_for(|limit| total < *limit).await.is_err() {
                break;
            }
            if far_write.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    };
    let back = tokio::io::copy(&mut far_read, &mut near_write);
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}
