//! The three containers of a member's Pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, ExecAction, HTTPGetAction, Lifecycle,
    LifecycleHandler, Probe, ResourceRequirements, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use quorate_sidecar::wire::{RESTORE_VARIABLE, RestoreRequest};

use super::volumes::{
    BACKUP_CREDENTIALS, BACKUP_VOLUME, CLIENT_TLS, DATA_DIRECTORY, RESTORE_CREDENTIALS,
    RESTORE_VOLUME, Role, SCRATCH, SIDECAR_TLS, Volumes,
};
use super::{
    CLIENT_PORT, METRICS_PORT, Names, OPERATOR_NAME, PEER_PORT, Peer, SIDECAR_METRICS_PORT,
    SIDECAR_PORT, flags,
};
use crate::api::{QuorateCluster, QuorateMember};
use crate::model::Refusal;

const QUORATE: &str = "/usr/bin/quorate";
const SIDECAR: &str = "/usr/bin/quorate-sidecar";
/// The names of the ports in plaintext.
const METRICS: &str = "metrics";
const SIDECAR_METRICS: &str = "sidecar-metrics";

/// What the containers of one Pod are made from.
pub struct Parts<'a> {
    pub cluster: &'a QuorateCluster,
    pub member: &'a QuorateMember,
    pub image: String,
    pub volumes: &'a Volumes,
    pub peers: &'a [Peer],
    pub restore: Option<&'a RestoreRequest>,
}

impl Parts<'_> {
    /// The gate, which runs before each start of the Pod. It may run long: it fetches the backup
    /// that a cluster begins from, so it has the member's resources.
    ///
    /// # Errors
    /// The member has not been admitted; or what it starts from cannot be written down.
    pub fn gate(&self) -> Result<Container, Refusal> {
        let mut env = self.environment();
        let names = Names::new(self.cluster);
        let clients: Vec<&str> = self
            .peers
            .iter()
            .map(|peer| peer.client_url.as_str())
            .collect();
        env.extend([
            variable(
                "QUORATE_INITIAL_CLUSTER",
                flags::initial_cluster(&names, self.member)?,
            ),
            variable("QUORATE_INITIAL_CLUSTER_STATE", flags::state(self.member)),
            variable("QUORATE_INITIAL_CLUSTER_TOKEN", flags::token(self.cluster)),
            variable("QUORATE_CLUSTER_ENDPOINTS", clients.join(",")),
        ]);
        if let Some(restore) = self.restore {
            let json = serde_json::to_string(restore).map_err(|error| Refusal {
                reason: "InvalidReference".to_owned(),
                message: format!("spec.bootstrap.fromBackup: {error}"),
            })?;
            env.push(variable(RESTORE_VARIABLE, json));
        }
        for (path, name) in [
            (RESTORE_CREDENTIALS, "QUORATE_RESTORE_CREDENTIALS_DIR"),
            (RESTORE_VOLUME, "QUORATE_RESTORE_VOLUME"),
        ] {
            env.extend(self.volumes.has(path).then(|| variable(name, path)));
        }
        Ok(Container {
            args: Some(vec!["gate".to_owned()]),
            command: Some(vec![SIDECAR.to_owned()]),
            env: Some(env),
            resources: Some(self.member_resources()),
            ..self.container("gate", Role::Gate)
        })
    }

    /// The member itself.
    ///
    /// # Errors
    /// As [`flags::flags`].
    pub fn quorate(&self) -> Result<Container, Refusal> {
        let own = self.member_environment();
        let is_own = |name: &str| own.iter().any(|variable| variable.name == name);
        let further = self.cluster.spec.pod.extra_env.iter();
        let further = further.filter(|variable| !is_own(&variable.name)).cloned();
        let env: Vec<EnvVar> = further.chain(own.iter().cloned()).collect();
        Ok(Container {
            args: Some(flags::flags(self.cluster, self.member)?),
            command: Some(vec![QUORATE.to_owned()]),
            env: Some(env),
            ports: Some(vec![
                port("client", CLIENT_PORT),
                port("peer", PEER_PORT),
                port(METRICS, METRICS_PORT),
            ]),
            resources: Some(self.member_resources()),
            // Half an hour: a member that fell far behind is sent the whole store first.
            startup_probe: Some(http_probe("/livez", METRICS, 5, 360)),
            liveness_probe: Some(http_probe("/livez", METRICS, 10, 6)),
            readiness_probe: Some(http_probe("/readyz", METRICS, 5, 3)),
            lifecycle: Some(Lifecycle {
                pre_stop: Some(LifecycleHandler {
                    exec: Some(ExecAction {
                        command: Some(vec![SIDECAR.to_owned(), "handoff".to_owned()]),
                    }),
                    ..LifecycleHandler::default()
                }),
                ..Lifecycle::default()
            }),
            ..self.container("quorate", Role::Member)
        })
    }

    /// The sidecar.
    pub fn sidecar(&self) -> Container {
        let mut env = self.environment();
        env.extend([
            variable("QUORATE_LISTEN", format!("0.0.0.0:{SIDECAR_PORT}")),
            variable(
                "QUORATE_LISTEN_METRICS",
                format!("0.0.0.0:{SIDECAR_METRICS_PORT}"),
            ),
            variable("QUORATE_SERVER_CERT_FILE", format!("{SIDECAR_TLS}/tls.crt")),
            variable("QUORATE_SERVER_KEY_FILE", format!("{SIDECAR_TLS}/tls.key")),
            variable("QUORATE_SERVER_CA_FILE", format!("{SIDECAR_TLS}/ca.crt")),
            variable("QUORATE_ALLOWED_CLIENT_NAME", OPERATOR_NAME),
        ]);
        for (path, name) in [
            (BACKUP_CREDENTIALS, "QUORATE_BACKUP_CREDENTIALS_DIR"),
            (BACKUP_VOLUME, "QUORATE_BACKUP_VOLUME"),
        ] {
            env.extend(self.volumes.has(path).then(|| variable(name, path)));
        }
        let resources = self.cluster.spec.pod.sidecar_resources.clone();
        Container {
            args: Some(vec!["serve".to_owned()]),
            command: Some(vec![SIDECAR.to_owned()]),
            env: Some(env),
            ports: Some(vec![
                port("sidecar", SIDECAR_PORT),
                port(SIDECAR_METRICS, SIDECAR_METRICS_PORT),
            ]),
            resources: Some(resources.unwrap_or_else(|| requests("10m", "32Mi"))),
            // A kubelet and a Prometheus have no certificate to show: health and metrics, and
            // nothing else, are in plaintext on a port of their own.
            liveness_probe: Some(http_probe("/healthz", SIDECAR_METRICS, 20, 6)),
            ..self.container("sidecar", Role::Sidecar)
        }
    }

    fn member_resources(&self) -> ResourceRequirements {
        let given = self.cluster.spec.pod.resources.clone();
        given.unwrap_or_else(|| requests("100m", "256Mi"))
    }

    fn container(&self, name: &str, role: Role) -> Container {
        Container {
            name: name.to_owned(),
            image: Some(self.image.clone()),
            image_pull_policy: self.cluster.spec.image.pull_policy.clone(),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                capabilities: Some(Capabilities {
                    add: None,
                    drop: Some(vec!["ALL".to_owned()]),
                }),
                ..SecurityContext::default()
            }),
            volume_mounts: Some(self.volumes.mounts(role)),
            ..Container::default()
        }
    }

    /// What every run of `quorate-sidecar` needs.
    fn environment(&self) -> Vec<EnvVar> {
        let scheme = Names::new(self.cluster).client_scheme();
        let mut env = vec![
            variable("QUORATE_NAME", self.member.name_any()),
            variable("QUORATE_DATA_DIR", DATA_DIRECTORY),
            variable(
                "QUORATE_ENDPOINT",
                format!("{scheme}://localhost:{CLIENT_PORT}"),
            ),
            variable(
                "QUORATE_HEALTH_URL",
                format!("http://127.0.0.1:{METRICS_PORT}"),
            ),
            variable("QUORATE_SCRATCH_DIR", SCRATCH),
            variable("QUORATE_BINARY", QUORATE),
        ];
        if self.volumes.has(CLIENT_TLS) {
            env.push(variable(
                "QUORATE_CERT_FILE",
                format!("{CLIENT_TLS}/tls.crt"),
            ));
            env.push(variable(
                "QUORATE_KEY_FILE",
                format!("{CLIENT_TLS}/tls.key"),
            ));
            env.push(variable("QUORATE_CA_FILE", format!("{CLIENT_TLS}/ca.crt")));
        }
        env
    }

    /// Beside that, what `quoratectl` and `etcdctl` need to work without flags.
    fn member_environment(&self) -> Vec<EnvVar> {
        let scheme = Names::new(self.cluster).client_scheme();
        let mut env = self.environment();
        let endpoint = format!("{scheme}://localhost:{CLIENT_PORT}");
        env.push(variable("ETCDCTL_ENDPOINTS", endpoint));
        if self.volumes.has(CLIENT_TLS) {
            env.push(variable("ETCDCTL_CACERT", format!("{CLIENT_TLS}/ca.crt")));
            env.push(variable("ETCDCTL_CERT", format!("{CLIENT_TLS}/tls.crt")));
            env.push(variable("ETCDCTL_KEY", format!("{CLIENT_TLS}/tls.key")));
        }
        env
    }
}

fn variable(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.into()),
        value_from: None,
    }
}

fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(period_seconds: i32, failures: i32) -> Probe {
    Probe {
        period_seconds: Some(period_seconds),
        // A disk that is slow for a moment is no reason to restart a member.
        timeout_seconds: Some(period_seconds.min(10)),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn http_probe(path: &str, port: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        ..probe(period_seconds, failures)
    }
}

fn requests(cpu: &str, memory: &str) -> ResourceRequirements {
    let amounts = [("cpu", cpu), ("memory", memory)];
    let amounts = amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    ResourceRequirements {
        requests: Some(BTreeMap::from(amounts)),
        ..ResourceRequirements::default()
    }
}
