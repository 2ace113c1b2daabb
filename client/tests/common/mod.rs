//! Real members of etcd for the client's tests, started and hurt at will.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientConfig};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

/// How long a test waits for what must come.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// etcd's binary; the test fails with what to do if there is none.
pub fn etcd() -> PathBuf {
    let dir = match std::env::var_os("QUORATE_ETCD_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set"))
            .join(".cache/quorate/etcd-3.7.3"),
    };
    let etcd = dir.join("etcd");
    assert!(
        etcd.is_file(),
        "{} is missing: build etcd 3.7.3 into that directory (make test does so), or set \
         QUORATE_ETCD_BIN_DIR to the directory of its binaries",
        etcd.display()
    );
    etcd
}

/// A port that nobody listens on. Processes begin at different places of the range.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..900 {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let start = (std::process::id() % 90 * 10) as u16;
        let port = 25_050 + (start + turn) % 900;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from 25050 to 25949");
}

/// One member.
pub struct Member {
    child: Option<Child>,
    arguments: Vec<String>,
    pub endpoint: String,
    /// The same member by its unix socket.
    pub socket: String,
    log: PathBuf,
}

/// A cluster that dies with this value.
pub struct Cluster {
    pub members: Vec<Member>,
    pub dir: TempDir,
}

impl Cluster {
    /// Starts `size` members and waits until a linearizable read works.
    pub async fn start(size: usize) -> Self {
        Self::start_with(size, &[]).await
    }

    pub async fn start_with(size: usize, more: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("client-")
            .tempdir()
            .expect("a temporary directory");
        let peers: Vec<String> = (0..size)
            .map(|_| format!("http://127.0.0.1:{}", free_port()))
            .collect();
        let initial: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(index, peer)| format!("m{index}={peer}"))
            .collect();
        let mut members = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            let endpoint = format!("http://127.0.0.1:{}", free_port());
            let socket = format!("unix://{}/m{index}.sock", dir.path().display());
            let data = dir.path().join(format!("m{index}"));
            let mut arguments: Vec<String> = [
                ("--name", format!("m{index}")),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", format!("{endpoint},{socket}")),
                ("--advertise-client-urls", endpoint.clone()),
                ("--listen-peer-urls", peer.clone()),
                ("--initial-advertise-peer-urls", peer.clone()),
                ("--initial-cluster", initial.join(",")),
                // The tests kill processes, not machines.
                ("--unsafe-no-fsync", "true".to_owned()),
            ]
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
            arguments.extend(more.iter().map(|&argument| argument.to_owned()));
            let mut member = Member {
                child: None,
                arguments,
                endpoint,
                socket,
                log: dir.path().join(format!("m{index}.log")),
            };
            member.start();
            members.push(member);
        }
        let cluster = Self { members, dir };
        let client = cluster.client();
        let ready = eventually(async || client.get("ready").await.ok()).await;
        assert_eq!(ready.count, 0, "{}", cluster.logs());
        cluster
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|m| m.endpoint.clone()).collect()
    }

    /// A client of all members that is quick to see trouble.
    pub fn client(&self) -> Client {
        client_of(self.endpoints())
    }

    /// The index of the leader.
    pub async fn leader(&self) -> usize {
        use quorate_client::proto::etcdserverpb::StatusRequest;
        let client = self.client();
        eventually(async || {
            for (index, member) in self.members.iter().enumerate() {
                let one = client.endpoint(&member.endpoint).expect("an endpoint");
                let status = one.maintenance().status(StatusRequest {}).await;
                let Ok(status) = status.map(|status| status.into_inner()) else {
                    continue;
                };
                if status.header.unwrap_or_default().member_id == status.leader {
                    return Some(index);
                }
            }
            None
        })
        .await
    }

    fn logs(&self) -> String {
        let log = |m: &Member| std::fs::read_to_string(&m.log).unwrap_or_default();
        self.members.iter().map(log).collect()
    }
}

impl Member {
    /// For clients of the TCP port it stays away.
    pub fn start_on_socket_alone(&mut self) {
        let usual = self.arguments.clone();
        for argument in &mut self.arguments {
            if argument.starts_with("--listen-client-urls=") {
                *argument = format!("--listen-client-urls={}", self.socket);
            }
        }
        self.start();
        self.arguments = usual;
    }

    pub fn start(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log file");
        let child = Command::new(etcd())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        self.child = Some(child);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("the signal is sent");
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is killed");
            child.wait().expect("it ends");
        }
    }

    /// SIGSTOP: connections stay open, nothing is answered. It has stopped when this returns.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let child = self.child.as_ref().expect("it runs");
        let how = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(child)), how).expect("it is a child");
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The value of a metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let host = self.endpoint.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).expect("it listens");
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("no metric {name} in {text}"));
        value.parse().expect("a number")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client that is quick to see trouble.
pub fn client_of(endpoints: Vec<String>) -> Client {
    Client::connect_lazy(ClientConfig {
        keepalive_time: Duration::from_secs(5),
        keepalive_timeout: Duration::from_secs(1),
        ..ClientConfig::new(endpoints)
    })
    .expect("a valid configuration")
}

/// Asks again and again until there is an answer.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "it did not come true in {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for what must come.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("it comes within the deadline")
}
