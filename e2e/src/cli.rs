//! Runs a command line tool against a cluster and puts its output into a form that can be shared.
//!
//! Masked are IDs of cluster, member and leases, terms, ports, and how long something took.

use crate::binaries::Kind;
use crate::cluster::Cluster;
use crate::{rpc, wait};
use anyhow::{Context, Result, bail};
use quorate_proto::etcdserverpb as pb;
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// How long a command may take before the test gives up.
const DEADLINE: Duration = Duration::from_secs(30);

/// What stands behind these differs from run to run, or from member to member.
const MASKED_AFTER: [&str; 8] = [
    "\"raft_term\":",
    "\"RaftTerm\" : ",
    "\"member_id\":",
    "\"MemberID\" : ",
    "took = ",
    ". took ",
    "name/",
    "elect/",
];

/// One command line.
#[derive(Clone, Debug)]
pub struct Case {
    /// Words of the command; `{LEASE}` is the lease that was granted last, `{MEMBER}` the member
    /// that was added last.
    pub args: Vec<String>,
    pub stdin: String,
    /// Commands that do not end by themselves are interrupted after so many lines.
    pub lines: Option<usize>,
    pub how: How,
}

/// What of the output has to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Text,
    /// The lines, in whatever order they came.
    Lines,
    /// The words, in whatever order: what is sorted by ID differs from run to run.
    Words,
    /// The names in a JSON document: its numbers differ between stores.
    JsonNames,
    /// The column heads of a table.
    FirstTwoLines,
    /// A `RangeResponse` in protobuf.
    Range,
}

impl Case {
    /// A command of words that are divided by blanks.
    pub fn new(line: &str) -> Self {
        Self {
            args: line.split(' ').map(str::to_owned).collect(),
            stdin: String::new(),
            lines: None,
            how: How::Text,
        }
    }

    /// Gives it standard input.
    pub fn stdin(mut self, stdin: &str) -> Self {
        stdin.clone_into(&mut self.stdin);
        self
    }

    /// Interrupts it after so many lines of output.
    pub fn lines(mut self, lines: usize) -> Self {
        self.lines = Some(lines);
        self
    }

    /// Compares in another way.
    pub fn how(mut self, how: How) -> Self {
        self.how = how;
        self
    }
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub exit_code: Option<i32>,
}

/// A tool that talks to a cluster, and what its output has to be cleared of.
#[derive(Debug)]
pub struct Cli {
    tool: Kind,
    endpoints: String,
    /// What to replace by what, in this order.
    masks: Vec<(String, String)>,
    lease: String,
    member: String,
}

impl Cli {
    /// Looks up the IDs to mask.
    ///
    /// # Errors
    /// When a member does not answer.
    pub async fn new(tool: Kind, cluster: &Cluster) -> Result<Self> {
        let mut masks = Vec::new();
        for (number, member) in cluster.members.iter().enumerate() {
            let status = rpc::status(member.spec.client_port).await?;
            let header = status.header.context("a header")?;
            masks.push((format!("{:x}", header.member_id), format!("MEMBER{number}")));
            masks.push((header.member_id.to_string(), format!("MEMBER{number}")));
            masks.push((format!("{:x}", header.cluster_id), "CLUSTER".to_owned()));
            masks.push((header.cluster_id.to_string(), "CLUSTER".to_owned()));
            for (port, name) in [
                (member.spec.client_port, "CLIENT"),
                (member.spec.peer_port, "PEER"),
            ] {
                masks.push((format!("127.0.0.1:{port}"), format!("{name}{number}")));
            }
        }
        Ok(Self {
            tool,
            endpoints: cluster.endpoints(),
            masks,
            lease: String::new(),
            member: String::new(),
        })
    }

    /// Runs a command to its end, or until it has said enough.
    ///
    /// # Errors
    /// When the tool is missing or hangs.
    pub async fn run(&mut self, case: &Case) -> Result<Output> {
        let args = case.args.iter().map(|arg| {
            arg.replace("{LEASE}", &self.lease)
                .replace("{MEMBER}", &self.member)
        });
        let mut child = Command::new(self.tool.ctl()?)
            .arg(format!("--endpoints={}", self.endpoints))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("standard input")?;
        // A command that needs no input may have ended before it is written.
        stdin.write_all(case.stdin.as_bytes()).await.ok();
        let ran = match case.lines {
            None => {
                drop(stdin);
                tokio::time::timeout(DEADLINE, to_the_end(child)).await
            }
            Some(lines) => {
                let ran = tokio::time::timeout(DEADLINE, until_lines(child, lines)).await;
                drop(stdin);
                ran
            }
        };
        let (stdout, exit_code) = ran.with_context(|| format!("{:?} hangs", case.args))??;
        if let Some(lease) = granted(&stdout) {
            self.masks.push((lease.clone(), "LEASE".to_owned()));
            let number = i64::from_str_radix(&lease, 16)?;
            self.masks.push((number.to_string(), "LEASE".to_owned()));
            self.lease = lease;
        }
        if let Some(member) = added(&stdout) {
            let number = u64::from_str_radix(&member, 16)?;
            self.masks.push((member.clone(), "ADDED".to_owned()));
            self.masks.push((number.to_string(), "ADDED".to_owned()));
            self.member = member;
        }
        let stdout = self.shared(case.how, &stdout)?;
        Ok(Output { stdout, exit_code })
    }

    fn shared(&self, how: How, stdout: &[u8]) -> Result<String> {
        let text = self.masked(&String::from_utf8_lossy(stdout));
        Ok(match how {
            How::Text => text,
            How::Lines => {
                let mut lines: Vec<&str> = text.lines().collect();
                lines.sort_unstable();
                lines.join("\n")
            }
            How::Words => {
                let parts = |c: char| c.is_whitespace() || "=\",".contains(c);
                let mut words: Vec<&str> = text.split(parts).filter(|w| !w.is_empty()).collect();
                words.sort_unstable();
                words.join(" ")
            }
            How::FirstTwoLines => text
                .lines()
                .take(2)
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .map(|line| line.replace(['-', '─'], ""))
                .collect::<Vec<_>>()
                .join("\n"),
            How::JsonNames => names(&serde_json::from_slice(stdout)?),
            How::Range => {
                let mut answer: pb::RangeResponse = prost::Message::decode(stdout)?;
                let header = answer.header.as_mut().context("a header")?;
                (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
                format!("{answer:?}")
            }
        })
    }

    fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (from, to) in &self.masks {
            text = text.replace(from, to);
        }
        for label in MASKED_AFTER {
            text = mask_after(&text, label);
        }
        text
    }
}

/// Replaces the word behind each `label`, which differs from run to run.
fn mask_after(text: &str, label: &str) -> String {
    let mut pieces = text.split(label);
    let mut masked = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let word = |c: char| c.is_alphanumeric() || c == '.';
        let end = piece.find(|c| !word(c)).unwrap_or(piece.len());
        masked += label;
        masked.push('*');
        masked += &piece[end..];
    }
    masked
}

/// The ID in `lease ID granted with …`.
fn granted(stdout: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(stdout).ok()?;
    let (id, rest) = text.strip_prefix("lease ")?.split_once(' ')?;
    let first = rest.starts_with("granted with") && !rest.contains("remaining");
    first.then(|| id.to_owned())
}

/// The ID in `Member ID added …`.
fn added(stdout: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(stdout).ok()?;
    let (id, rest) = text.strip_prefix("Member ")?.split_once(' ')?;
    rest.starts_with("added").then(|| id.trim().to_owned())
}

/// All names of a JSON value, in order, with the kind of what they name.
fn names(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name}:{}", names(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        serde_json::Value::Array(items) => {
            // Members are sorted by ID, which differs from run to run.
            let mut items: Vec<String> = items.iter().map(names).collect();
            items.sort();
            format!("[{}]", items.join(","))
        }
        serde_json::Value::String(_) => "text".to_owned(),
        serde_json::Value::Number(_) => "number".to_owned(),
        serde_json::Value::Bool(_) => "bool".to_owned(),
        serde_json::Value::Null => "null".to_owned(),
    }
}

async fn to_the_end(child: Child) -> Result<(Vec<u8>, Option<i32>)> {
    let output = child.wait_with_output().await?;
    Ok((output.stdout, output.status.code()))
}

/// Reads lines until there are enough, then interrupts; how it ends then is not compared.
async fn until_lines(mut child: Child, count: usize) -> Result<(Vec<u8>, Option<i32>)> {
    let mut reader = BufReader::new(child.stdout.take().context("standard output")?);
    let mut stdout = Vec::new();
    for _ in 0..count {
        if reader.read_until(b'\n', &mut stdout).await? == 0 {
            let mut stderr = String::new();
            let mut pipe = child.stderr.take().context("standard error")?;
            pipe.read_to_string(&mut stderr).await?;
            let said = String::from_utf8_lossy(&stdout);
            bail!("it ended early, after {said:?}: {stderr}");
        }
    }
    interrupt(&child)?;
    wait::until("an interrupted command that ends", DEADLINE, async || {
        Ok(child.try_wait()?)
    })
    .await?;
    Ok((stdout, None))
}

fn interrupt(child: &Child) -> Result<()> {
    let pid = i32::try_from(child.id().context("a running command")?)?;
    kill_process(
        Pid::from_raw(pid).context("a process ID is not zero")?,
        Signal::INT,
    )?;
    Ok(())
}
