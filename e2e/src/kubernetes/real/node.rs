//! containerd, kubelet and kube-proxy of a real node, inside a sandbox.

use super::control::{Identity, START_DEADLINE};
use super::kube::Kube;
use super::sandbox::{Job, NODE_ADDRESS, Sandbox};
use crate::authority::Subject;
use crate::binaries::{image_archives, kubernetes_program};
use crate::wait;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The address of the cluster's name server.
pub const DNS_ADDRESS: &str = "10.96.0.10";

/// The image that holds a Pod's namespaces.
const PAUSE: &str = "localhost/pause:1";

/// The node's programs; they end with the sandbox.
#[derive(Debug)]
pub struct Node {
    pub jobs: Vec<Job>,
    socket: PathBuf,
}

impl Node {
    /// Starts it, imports the images, and waits until the node is ready for Pods.
    ///
    /// # Errors
    /// When a program or an image is missing, or when the node does not become ready.
    pub async fn start(
        sandbox: &Sandbox,
        identity: &Identity,
        dir: &Path,
        kube: &Kube,
    ) -> Result<Self> {
        let socket = dir.join("containerd.sock");
        write_network(dir)?;
        std::fs::write(dir.join("containerd.toml"), containerd_config(dir, &socket))?;
        let config = format!("--config={}", dir.join("containerd.toml").display());
        let containerd =
            sandbox.start("containerd", Path::new("/usr/bin/containerd"), &[config])?;
        let mut node = Self {
            jobs: vec![containerd],
            socket,
        };
        wait::until("containerd", START_DEADLINE, async || {
            node.jobs[0].is_running()?;
            Ok(node.ctr(sandbox, &["version"]).await.ok())
        })
        .await?;
        for archive in image_archives()? {
            let archive = archive.display().to_string();
            node.ctr(sandbox, &["images", "import", &archive]).await?;
        }
        node.start_kubelet(sandbox, identity, dir)?;
        let proxy = identity.kubeconfig("proxy");
        node.jobs.push(sandbox.start(
            "kube-proxy",
            &kubernetes_program("kube-proxy")?,
            &[
                format!("--kubeconfig={}", proxy.display()),
                "--hostname-override=node".to_owned(),
                "--proxy-mode=iptables".to_owned(),
                "--cluster-cidr=10.244.0.0/16".to_owned(),
                "--conntrack-max-per-core=0".to_owned(),
                "--conntrack-tcp-timeout-established=0".to_owned(),
                "--conntrack-tcp-timeout-close-wait=0".to_owned(),
            ],
        )?);
        let ready = kube.until(
            "a node that is ready",
            START_DEADLINE,
            &["node", "node"],
            is_ready,
        );
        let waited = ready.await;
        for job in &mut node.jobs {
            job.is_running()?;
        }
        waited.with_context(|| node.jobs[1].log_tail().unwrap_or_default())?;
        Ok(node)
    }

    fn start_kubelet(&mut self, sandbox: &Sandbox, identity: &Identity, dir: &Path) -> Result<()> {
        let subject = Subject::at("node", 4, &["node", "127.0.0.1", NODE_ADDRESS]);
        let server = identity.authority.issue("kubelet", &subject)?;
        std::fs::write(dir.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": identity.authority.file},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", sandbox.cgroup()),
            "failSwapOn": false,
            "failCgroupV1": false,
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": format!("unix://{}", self.socket.display()),
            "tlsCertFile": server.cert,
            "tlsPrivateKeyFile": server.key,
            "resolvConf": dir.join("resolv.conf"),
            "podLogsDir": dir.join("pods"),
            // The disk is the machine's own; how full it is is none of the tests' business.
            "evictionHard": {"memory.available": "50Mi"},
            "imageGCHighThresholdPercent": 100,
            // Seconds, not a minute: the tests restart containers on purpose.
            "nodeStatusUpdateFrequency": "4s",
            "syncFrequency": "10s",
            "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"},
            "featureGates": {"KubeletCrashLoopBackOffMax": true},
        });
        std::fs::write(dir.join("kubelet.json"), config.to_string())?;
        let flags = [
            format!("--config={}", dir.join("kubelet.json").display()),
            format!("--kubeconfig={}", identity.kubeconfig("node").display()),
            format!("--root-dir={}", dir.join("kubelet").display()),
            "--hostname-override=node".to_owned(),
            format!("--node-ip={NODE_ADDRESS}"),
        ];
        let program = kubernetes_program("kubelet")?;
        self.jobs.push(sandbox.start("kubelet", &program, &flags)?);
        Ok(())
    }

    /// Runs containerd's own tool on the Pods' images and containers.
    ///
    /// # Errors
    /// When it fails.
    pub async fn ctr(&self, sandbox: &Sandbox, args: &[&str]) -> Result<String> {
        let socket = self.socket.display().to_string();
        let words = ["ctr", "--address", &socket, "--namespace", "k8s.io"];
        sandbox.run(&[&words, args].concat()).await
    }
}

/// Whether a node, or a Pod, says that it is ready.
pub fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    })
}

/// Pods are routed and not bridged, so that answers come back through the node's firewall, which
/// turns them round; a bridge needs a kernel module for that.
fn write_network(dir: &Path) -> Result<()> {
    let network = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": "10.244.0.0/24"}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    std::fs::create_dir_all(dir.join("cni"))?;
    std::fs::write(dir.join("cni/pods.conflist"), network.to_string())?;
    Ok(())
}

fn containerd_config(dir: &Path, socket: &Path) -> String {
    let dir = dir.display();
    // Without CAP_SYS_RESOURCE runc must not ask for a lower score.
    format!(
        r#"version = 2
root = "{dir}/containerd"
state = "/run/containerd-state"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{dir}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        socket = socket.display()
    )
}
