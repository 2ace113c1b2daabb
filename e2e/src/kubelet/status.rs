//! What a kubelet says of a Pod.

use super::container::Container;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::net::Ipv4Addr;

/// What is known of a Pod.
pub(super) struct Told<'a> {
    pub(super) pod: &'a Pod,
    /// Once it has one.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) since: Timestamp,
    pub(super) init: &'a [Container],
    pub(super) main: &'a [Container],
}

impl Told<'_> {
    pub(super) fn status(&self) -> PodStatus {
        let before = self.pod.status.clone().unwrap_or_default();
        let is_initialized = self.init.iter().all(|one| one.exit_code() == Some(0));
        let main: Vec<ContainerStatus> = self.main.iter().map(Container::status).collect();
        let main = main
            .into_iter()
            .map(|status| not_begun(status, is_initialized));
        let is_stopping = self.pod.metadata.deletion_timestamp.is_some();
        let are_ready = is_initialized && self.main.iter().all(Container::is_ready);
        let conditions = before.conditions.unwrap_or_default();
        let gates = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.readiness_gates.clone());
        let are_open = gates.iter().flatten().all(|gate| {
            let of_gate = |condition: &&PodCondition| condition.type_ == gate.condition_type;
            conditions
                .iter()
                .find(of_gate)
                .is_some_and(|found| found.status == "True")
        });
        let is_ready = are_ready && are_open && !is_stopping;
        let mut conditions = conditions;
        set(
            &mut conditions,
            "PodReadyToStartContainers",
            self.address.is_some(),
            "",
        );
        set(
            &mut conditions,
            "Initialized",
            is_initialized,
            "ContainersNotInitialized",
        );
        set(
            &mut conditions,
            "ContainersReady",
            are_ready,
            "ContainersNotReady",
        );
        set(&mut conditions, "Ready", is_ready, "ContainersNotReady");
        let address = self.address.map(|address| address.to_string());
        let here = "127.0.0.1".to_owned();
        PodStatus {
            phase: Some(self.phase(is_initialized).to_owned()),
            conditions: Some(conditions),
            host_ip: Some(here.clone()),
            host_ips: Some(vec![HostIP { ip: here }]),
            pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
            pod_ip: address,
            start_time: Some(Time(self.since)),
            container_statuses: Some(main.collect()),
            init_container_statuses: Some(self.init.iter().map(init_status).collect()),
            ..PodStatus::default()
        }
    }

    fn phase(&self, is_initialized: bool) -> &'static str {
        let policy = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref());
        let is_over = |code: &Option<i32>| match policy {
            Some("Never") => code.is_some(),
            Some("OnFailure") => *code == Some(0),
            _ => false,
        };
        let failed_init = self.init.iter().map(Container::exit_code);
        if policy == Some("Never") && failed_init.flatten().any(|code| code != 0) {
            return "Failed";
        }
        if !is_initialized {
            return "Pending";
        }
        let codes: Vec<Option<i32>> = self.main.iter().map(Container::exit_code).collect();
        if codes.iter().all(is_over) {
            return match codes.iter().all(|code| *code == Some(0)) {
                true => "Succeeded",
                false => "Failed",
            };
        }
        // A Pod of which a container never began is still pending.
        match self.main.iter().all(|container| container.room().is_some()) {
            true => "Running",
            false => "Pending",
        }
    }
}

/// A container whose turn has not come says so.
fn not_begun(mut status: ContainerStatus, is_initialized: bool) -> ContainerStatus {
    let waiting = status
        .state
        .as_mut()
        .and_then(|state| state.waiting.as_mut());
    if let Some(waiting) = waiting
        && !is_initialized
    {
        waiting.reason = Some("PodInitializing".to_owned());
    }
    status
}

fn init_status(container: &Container) -> ContainerStatus {
    let mut status = container.status();
    status.ready = container.exit_code() == Some(0);
    status
}

/// The time of a condition is that of its last change.
fn set(conditions: &mut Vec<PodCondition>, kind: &str, is_true: bool, reason: &str) {
    let status = if is_true { "True" } else { "False" }.to_owned();
    let reason = (!is_true && !reason.is_empty()).then(|| reason.to_owned());
    let known = conditions
        .iter_mut()
        .find(|condition| condition.type_ == kind);
    match known {
        Some(known) if known.status == status => known.reason = reason,
        Some(known) => {
            known.status = status;
            known.reason = reason;
            known.last_transition_time = Some(Time(Timestamp::now()));
        }
        None => conditions.push(PodCondition {
            type_: kind.to_owned(),
            status,
            reason,
            last_transition_time: Some(Time(Timestamp::now())),
            ..PodCondition::default()
        }),
    }
}
