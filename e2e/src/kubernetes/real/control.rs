//! Store, API server, controller manager and scheduler of a real cluster, inside a sandbox.

use super::kube::Kube;
use super::sandbox::{Job, NODE_ADDRESS, Sandbox};
use crate::authority::{Authority, Subject};
use crate::binaries::{Kind, kubernetes_program};
use crate::kubernetes::{kubeconfig, token};
use crate::secure::{Files, Sides};
use crate::wait;
use anyhow::{Context, Result};
use rcgen::KeyPair;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a start may take on a busy machine.
pub const START_DEADLINE: Duration = Duration::from_secs(180);

/// In a network of its own each port is free.
const API_PORT: u16 = 6443;

/// Client and peer ports of the store's members.
const STORE_PORTS: [(u16, u16); 3] = [(2379, 2380), (22_379, 22_380), (32_379, 32_380)];

/// Name and groups of each user; a token is made for each.
const USERS: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    ("manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    ("node", "system:node:node", "system:nodes"),
];

/// What the kubelet lets the API server do for `kubectl exec` and `logs`.
const KUBELET_CLIENT: &str = r#"{
  "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
  "metadata": {"name": "kube-apiserver-kubelet-client"},
  "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
    "name": "system:kubelet-api-admin"},
  "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User",
    "name": "kube-apiserver-kubelet-client"}]
}"#;

/// Who signs, and what was signed, for one cluster.
#[derive(Debug)]
pub struct Identity {
    pub authority: Authority,
    dir: PathBuf,
    store: Files,
}

impl Identity {
    /// Makes it; its files lie in `dir`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        let this = Self {
            authority: Authority::new(dir, "ca")?,
            dir: dir.to_owned(),
            store: Files::new()?,
        };
        let mut tokens = String::new();
        for (file, user, groups) in USERS {
            let token = token();
            tokens += &format!("{token},{user},{user},\"{groups}\"\n");
            kubeconfig(dir, file, &this.authority, API_PORT, &token)?;
        }
        std::fs::write(dir.join("tokens.csv"), tokens)?;
        let account = KeyPair::generate()?;
        std::fs::write(dir.join("accounts.key"), account.serialize_pem())?;
        std::fs::write(dir.join("accounts.pub"), account.public_key_pem())?;
        Ok(this)
    }

    /// The kubeconfig of one of the users.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{user}.kubeconfig"))
    }
}

/// The control plane's programs; they end with the sandbox.
#[derive(Debug)]
pub struct Control {
    pub jobs: Vec<Job>,
}

impl Control {
    /// Starts it on three members of `store`, and waits until the API server is ready.
    ///
    /// # Errors
    /// When a program is missing or does not become ready.
    pub async fn start(
        sandbox: &Sandbox,
        identity: &Identity,
        store: Kind,
        kube: &Kube,
    ) -> Result<Self> {
        let mut jobs = start_store(sandbox, identity, store)?;
        let mut start = |name: &str, flags: &[String]| -> Result<()> {
            jobs.push(sandbox.start(name, &kubernetes_program(name)?, flags)?);
            Ok(())
        };
        start("kube-apiserver", &api_server_flags(identity)?)?;
        let ready = wait::until("an API server that is ready", START_DEADLINE, async || {
            let answer = kube.try_kubectl(&["get", "--raw=/readyz"], "").await?;
            Ok(answer.status.success().then_some(()))
        });
        let waited = ready.await;
        for job in &mut jobs {
            job.is_running()?;
        }
        if let Err(error) = waited {
            let last = jobs.last().context("a job")?;
            return Err(error.context(last.log_tail()?));
        }
        let mut start = |name: &str, flags: &[String]| -> Result<()> {
            jobs.push(sandbox.start(name, &kubernetes_program(name)?, flags)?);
            Ok(())
        };
        start("kube-controller-manager", &manager_flags(identity))?;
        let scheduler = identity.kubeconfig("scheduler");
        start(
            "kube-scheduler",
            &[
                format!("--kubeconfig={}", scheduler.display()),
                "--leader-elect=false".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
            ],
        )?;
        kube.apply(KUBELET_CLIENT).await?;
        Ok(Self { jobs })
    }
}

fn start_store(sandbox: &Sandbox, identity: &Identity, store: Kind) -> Result<Vec<Job>> {
    let peers = STORE_PORTS
        .iter()
        .map(|(_, peer)| format!("store-{peer}=https://127.0.0.1:{peer}"));
    let peers = peers.collect::<Vec<_>>().join(",");
    let mut jobs = Vec::new();
    for (client, peer) in STORE_PORTS {
        let name = format!("store-{peer}");
        let mut flags = vec![
            format!("--name={name}"),
            format!("--data-dir={}", identity.dir.join(&name).display()),
            format!("--listen-client-urls=https://127.0.0.1:{client}"),
            format!("--advertise-client-urls=https://127.0.0.1:{client}"),
            format!("--listen-peer-urls=https://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=https://127.0.0.1:{peer}"),
            format!("--initial-cluster={peers}"),
            "--initial-cluster-token=kubernetes".to_owned(),
            "--initial-cluster-state=new".to_owned(),
        ];
        flags.extend(identity.store.flags(Sides::BOTH));
        jobs.push(sandbox.start(&name, &store.server()?, &flags)?);
    }
    Ok(jobs)
}

fn api_server_flags(identity: &Identity) -> Result<Vec<String>> {
    let names = [
        "127.0.0.1",
        "localhost",
        NODE_ADDRESS,
        "10.96.0.1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let authority = &identity.authority;
    let server = authority.issue("api-server", &Subject::at("kube-apiserver", 2, &names))?;
    let caller = Subject::at("kube-apiserver-kubelet-client", 3, &[]);
    let caller = authority.issue("kubelet-client", &caller)?;
    let file = |name: &str| identity.dir.join(name).display().to_string();
    let urls = STORE_PORTS.map(|(client, _)| format!("https://127.0.0.1:{client}"));
    let store = &identity.store;
    Ok(vec![
        format!("--secure-port={API_PORT}"),
        format!("--advertise-address={NODE_ADDRESS}"),
        format!("--tls-cert-file={}", server.cert.display()),
        format!("--tls-private-key-file={}", server.key.display()),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("accounts.pub")),
        format!(
            "--service-account-signing-key-file={}",
            file("accounts.key")
        ),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!(
            "--kubelet-certificate-authority={}",
            authority.file.display()
        ),
        format!("--kubelet-client-certificate={}", caller.cert.display()),
        format!("--kubelet-client-key={}", caller.key.display()),
        format!("--etcd-servers={}", urls.join(",")),
        format!("--etcd-cafile={}", store.authority.file.display()),
        format!("--etcd-certfile={}", store.client.cert.display()),
        format!("--etcd-keyfile={}", store.client.key.display()),
    ])
}

fn manager_flags(identity: &Identity) -> Vec<String> {
    let kubeconfig = identity.kubeconfig("manager");
    let key = identity.dir.join("accounts.key");
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--service-account-private-key-file={}", key.display()),
        format!("--root-ca-file={}", identity.authority.file.display()),
        "--use-service-account-credentials=true".to_owned(),
        "--allocate-node-cidrs=true".to_owned(),
        "--cluster-cidr=10.244.0.0/16".to_owned(),
        "--leader-elect=false".to_owned(),
        // A node that is lost shall be seen in seconds.
        "--node-monitor-period=2s".to_owned(),
        "--node-monitor-grace-period=20s".to_owned(),
    ]
}
