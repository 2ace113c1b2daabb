//! Namespaces for a whole node: network, mounts and processes of its own, which all end with us.
//!
//! The sandbox's first process waits for the end of a pipe that only this process holds. When
//! the pipe ends, however that comes, the kernel ends every process of the sandbox, containers
//! too, and with the last one go its mounts, bridges and firewall rules.

use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The node's address inside; nothing outside of the sandbox can reach it.
pub const NODE_ADDRESS: &str = "192.168.77.2";

/// What the first process does. The kernel's view of processes outside is replaced last, because
/// the process ID that we enter by is the one that is valid outside.
///
/// A default route is needed by the kubelet and by Pods, though it leads nowhere. /run, /var/lib
/// and /var/log are covered, because some programs have fixed paths there.
const FIRST: &str = r#"
set -e
read -r own _ < /proc/self/stat
mount -t proc proc /proc
for folder in /run /var/lib /var/log; do mount -t tmpfs tmpfs $folder; done
mkdir -p /run/netns /var/log/containers
ip link set lo up
ip link add node type bridge
ip address add "$0/24" dev node
ip link set node up
ip route add default via "${0%.*}.1" dev node
sysctl -q -w net.ipv4.ip_forward=1
echo "$own"
read -r _ || exit 0
"#;

/// What is around the first process: when that has ended, however it came, the groups go.
const AROUND: &str = r#"
trap '' INT TERM
unshare --net --mount --pid --fork --kill-child=KILL bash -c "$0" "$1"
find /sys/fs/cgroup -depth -type d -path "*/$2*" -exec rmdir {} +
"#;

/// Running namespaces.
#[derive(Debug)]
pub struct Sandbox {
    first: Child,
    /// Its first process, as it is known outside.
    pid: u32,
    cgroup: String,
    dir: PathBuf,
}

impl Sandbox {
    /// Makes them; logs of what is started inside go to `dir`.
    ///
    /// # Errors
    /// Without root, or when the kernel lacks something; the message says what.
    pub fn new(dir: &Path) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a real node needs root: namespaces, mounts and control groups. Run as root, or name \
             a cluster of your own with KUBECONFIG"
        );
        let log = dir.join("sandbox.log");
        let cgroup = format!("quorate-e2e-{}", std::process::id());
        let mut first = Command::new("bash")
            .args(["-c", AROUND, FIRST, NODE_ADDRESS, &cgroup])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .context("bash")?;
        let output = first.stdout.take().context("standard output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let Ok(pid) = line.trim().parse() else {
            drop(first.stdin.take());
            first.wait()?;
            bail!("no namespaces: {}", std::fs::read_to_string(&log)?);
        };
        let sandbox = Self {
            first,
            pid,
            cgroup,
            dir: dir.to_owned(),
        };
        for parent in cgroups()? {
            let path = parent.join(&sandbox.cgroup);
            std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        Ok(sandbox)
    }

    /// The control group under which all Pods are.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The words that run what follows inside.
    pub fn prefix(&self) -> Vec<String> {
        let target = format!("--target={}", self.pid);
        let words = ["nsenter", &target, "--net", "--mount", "--pid", "--"];
        words.map(str::to_owned).to_vec()
    }

    /// Starts a program inside, which ends with the sandbox. Its log is `NAME.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start<S: AsRef<OsStr>>(&self, name: &str, program: &Path, flags: &[S]) -> Result<Job> {
        let log = self.dir.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let prefix = self.prefix();
        let child = Command::new(&prefix[0])
            .args(&prefix[1..])
            .arg(program)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| program.display().to_string())?;
        Ok(Job {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Runs a command inside and gives back what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<String> {
        let prefix = self.prefix();
        let output = tokio::process::Command::new(&prefix[0])
            .args(&prefix[1..])
            .args(words)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stderr);
        let words: Vec<_> = words.iter().map(AsRef::as_ref).collect();
        ensure!(output.status.success(), "{words:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The end of the pipe ends the first process, and the kernel all others.
        drop(self.first.stdin.take());
        self.first.wait().ok();
    }
}

/// A program that runs inside. It ends with the sandbox.
#[derive(Debug)]
pub struct Job {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Job {
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

    /// The last lines that it said.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn log_tail(&self) -> Result<String> {
        let log = std::fs::read(&self.log)?;
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        Ok(lines[lines.len().saturating_sub(25)..].join("\n"))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // This is only the door through which it went in; the sandbox ends the program itself.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// The roots of the hierarchies: one for each controller, or a single one.
fn cgroups() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.join("cgroup.procs").is_file() && !path.is_symlink() {
            found.push(path);
        }
    }
    Ok(found)
}
