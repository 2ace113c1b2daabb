//! How each member is reached: by its Pod's address, over TLS if that Pod was started with it.

use k8s_openapi::api::core::v1::Pod;

use crate::members::{Credentials, Identity, Reach, Sidecar};
use crate::objects::Names;
use crate::observe::Objects;

/// Every member whose Pod has an address.
#[must_use]
pub fn reaches(names: &Names, objects: &Objects, credentials: &Credentials) -> Vec<Reach> {
    let pods = objects.pods.iter();
    pods.filter_map(|(name, pod)| {
        let server_name = names.host(name);
        let tls = speaks_tls(pod).then(|| credentials.tls(Identity::Client, &server_name));
        Some(Reach {
            name: name.clone(),
            address: address(pod)?,
            server_name,
            tls,
        })
    })
    .collect()
}

/// The sidecar of a member whose Pod has an address.
#[must_use]
pub fn sidecar(
    names: &Names,
    objects: &Objects,
    credentials: &Credentials,
    member: &str,
) -> Option<Sidecar> {
    let server_name = names.host(member);
    Some(Sidecar {
        member: member.to_owned(),
        address: address(objects.pods.get(member)?)?,
        tls: credentials.tls(Identity::Operator, &server_name),
        server_name,
    })
}

fn address(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.pod_ip.clone()
}

/// While TLS is switched on or off, members that were not rolled yet speak as they were started.
fn speaks_tls(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let node = containers
        .into_iter()
        .find(|container| container.name == "quorate");
    let words = node.into_iter().flat_map(|node| {
        let command = node.command.iter().flatten();
        command.chain(node.args.iter().flatten())
    });
    words
        .into_iter()
        .any(|word| word.starts_with("--cert-file"))
}
