//! A server, and both command line tools against it: the real etcdctl and ours.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Where the real etcd's binaries lie: `QUORATE_ETCD_BIN_DIR`, or the project's cache.
pub fn etcd_binary(name: &str) -> PathBuf {
    let directory = match std::env::var_os("QUORATE_ETCD_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let home = std::env::var_os("HOME").expect("HOME is set");
            Path::new(&home).join(".cache/quorate/etcd-3.7.3")
        }
    };
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} is missing: these tests compare with etcd 3.7.3; set QUORATE_ETCD_BIN_DIR",
        path.display()
    );
    path
}

/// The server under test: the real etcd, or what `QUORATE_SERVER` names (it takes etcd's flags).
fn server_binary() -> PathBuf {
    match std::env::var_os("QUORATE_SERVER") {
        Some(path) => path.into(),
        None => etcd_binary("etcd"),
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Looks again and again until `look` finds something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One member that runs until it is dropped.
pub struct Server {
    child: Child,
    pub endpoint: String,
    _data: TempDir,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(more: &[&str]) -> Self {
        let [client, peer] = free_ports();
        let data = TempDir::new().unwrap();
        let client_url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let child = Command::new(server_binary())
            .arg("--data-dir")
            .arg(data.path().join("data"))
            .args(["--name", "m1", "--log-level", "error"])
            .args(["--listen-client-urls", &client_url])
            .args(["--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("m1={peer_url}")])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            child,
            endpoint: format!("127.0.0.1:{client}"),
            _data: data,
        };
        wait_for("the server listens", || {
            TcpStream::connect(&server.endpoint).ok()
        });
        wait_for("the server is healthy", || {
            let output = server
                .command(Tool::Real, &["get", "health"])
                .output()
                .unwrap();
            output.status.success().then_some(())
        });
        server
    }

    /// A command line against this server; both tools are called `etcdctl`.
    pub fn command(&self, tool: Tool, words: &[&str]) -> Command {
        let mut command = tool.command();
        command
            .arg(format!("--endpoints={}", self.endpoint))
            .args(words);
        command
    }

    /// Runs a command line to its end.
    pub fn run(&self, tool: Tool, words: &[&str], input: &[u8]) -> Ran {
        finish(self.command(tool, words), input)
    }

    /// Runs the real etcdctl, which must succeed; gives back its standard output.
    pub fn prepare(&self, words: &[&str]) -> String {
        let ran = self.run(Tool::Real, words, b"");
        assert_eq!(ran.code, Some(0), "{words:?}: {ran:?}");
        ran.stdout
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Real,
    Ours,
}

impl Tool {
    pub fn command(self) -> Command {
        let path = match self {
            Self::Real => etcd_binary("etcdctl"),
            Self::Ours => PathBuf::from(env!("CARGO_BIN_EXE_quoratectl")),
        };
        let mut command = Command::new(path);
        command.arg0("etcdctl");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCDCTL_") {
                command.env_remove(name);
            }
        }
        command
    }
}

/// What a command line did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn finish(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone already.
    if let Err(error) = child.stdin.take().unwrap().write_all(input) {
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
    let deadline = Instant::now() + PATIENCE;
    let readers = [
        read_all(child.stdout.take().unwrap()),
        read_all(child.stderr.take().unwrap()),
    ];
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let [stdout, stderr] = readers.map(|reader| reader.join().unwrap());
    let output = Output {
        status,
        stdout,
        stderr,
    };
    Ran {
        code: output.status.code(),
        stdout: as_text(&output.stdout),
        stderr: as_text(&output.stderr),
    }
}

fn read_all(mut stream: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Bytes as text, those that are not UTF-8 visible as numbers.
fn as_text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{bytes:?}"),
    }
}

/// Replaces everything between `before` and the next `end` (or the end of the line) by `X`.
pub fn mask(text: &str, before: &str, end: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        let (head, tail) = rest.split_at(at + before.len());
        out.push_str(head);
        out.push('X');
        let stop = tail.find(end).unwrap_or(tail.len());
        rest = &tail[stop..];
    }
    out + rest
}

/// Masks what two runs of one tool would not share: of log lines the time, and what tells about the
/// inside of the program; of a lost connection the system's words.
pub fn masked(ran: &Ran) -> Ran {
    let mut stderr = String::new();
    for line in ran.stderr.split_inclusive('\n') {
        let Ok(serde_json::Value::Object(mut log)) = serde_json::from_str(line) else {
            stderr.push_str(line);
            continue;
        };
        for field in ["ts", "caller", "target", "peer", "stacktrace"] {
            log.remove(field);
        }
        let log = serde_json::Value::Object(log).to_string();
        stderr += &mask(&log, "DeadlineExceeded desc = ", "\"level\"");
        stderr.push('\n');
    }
    Ran {
        stderr,
        ..ran.clone()
    }
}

/// Asserts that both tools do the same, after `also` masked more of their texts.
pub fn assert_same(server: &Server, words: &[&str], input: &[u8], also: impl Fn(&str) -> String) {
    let [real, ours] = [Tool::Real, Tool::Ours].map(|tool| {
        let ran = masked(&server.run(tool, words, input));
        Ran {
            code: ran.code,
            stdout: also(&ran.stdout),
            stderr: also(&ran.stderr),
        }
    });
    assert_eq!(ours, real, "left is ours, right is etcdctl's: {words:?}");
}

/// A program that goes on, its lines read as they come.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    input: Option<ChildStdin>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines() {
                    // The test may have ended before the program.
                    if sender.send(line.unwrap()).is_err() {
                        return;
                    }
                }
            });
        }
        Self {
            input: child.stdin.take(),
            child,
            lines,
        }
    }

    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }

    pub fn lines(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// That nothing was printed so far.
    pub fn assert_silent(&self) {
        assert_eq!(
            self.lines.try_recv(),
            Err(std::sync::mpsc::TryRecvError::Empty)
        );
    }

    pub fn write(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    pub fn close_input(&mut self) {
        self.input = None;
    }

    pub fn interrupt(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    }

    /// Waits for the end; gives back the exit code and the lines that are left.
    pub fn end(mut self) -> (Option<i32>, Vec<String>) {
        let status = wait_for("the program ends", || self.child.try_wait().unwrap());
        (status.code(), self.lines.iter().collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}
