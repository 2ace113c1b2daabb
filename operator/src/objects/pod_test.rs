//! The Pod of a member: the contract that sidecar and kubelet rely on, and the restricted profile.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Container;
use quorate_sidecar::wire::{RESTORE_VARIABLE, RestoreRequest};

use super::*;
use crate::api::{MemberStatus, QuorateMemberStatus, StorageMedium};
use crate::objects::testing::{cluster, member, settings};

fn admitted() -> QuorateMember {
    let mut member = member("demo-abcdef");
    member.status = Some(QuorateMemberStatus {
        initial_cluster: Some("demo-abcdef=https://x:2380".to_owned()),
        ..QuorateMemberStatus::default()
    });
    member
}

fn made(cluster: &QuorateCluster, member: &QuorateMember) -> Pod {
    let peers = [Peer {
        name: "demo-bbbbbb".to_owned(),
        client_url: "https://demo-bbbbbb.demo-peer.team.svc:2379".to_owned(),
    }];
    pod(cluster, member, &settings(), &peers, None).expect("the spec is in order")
}

fn containers(pod: &Pod) -> Vec<Container> {
    let spec = pod.spec.clone().expect("a spec");
    [spec.init_containers.unwrap_or_default(), spec.containers].concat()
}

fn value(container: &Container, name: &str) -> Option<String> {
    let env = container.env.iter().flatten();
    env.filter(|variable| variable.name == name)
        .find_map(|variable| variable.value.clone())
}

#[test]
fn the_pod_is_of_the_restricted_profile() {
    let pod = made(&cluster(), &admitted());
    let spec = pod.spec.clone().expect("a spec");
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(spec.enable_service_links, Some(false));
    let security = spec.security_context.expect("one");
    assert_eq!(
        (security.run_as_non_root, security.run_as_user),
        (Some(true), Some(65532))
    );
    let all = containers(&pod);
    let names: Vec<&str> = all
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    assert_eq!(names, ["gate", "quorate", "sidecar"]);
    for container in &all {
        let security = container.security_context.as_ref().expect("one");
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        let dropped = security
            .capabilities
            .as_ref()
            .and_then(|all| all.drop.as_ref());
        assert_eq!(dropped.expect("some"), &["ALL"]);
        assert_eq!(
            container.image.as_deref(),
            Some("quorate.example/quorate:0.1.0")
        );
    }
}

#[test]
fn every_mount_has_its_volume_and_every_path_its_mount() {
    let mut cluster = cluster();
    let backup = serde_json::json!({
        "store": { "s3": { "bucket": "b", "credentialsSecret": "s3" } },
    });
    cluster.spec.backup = serde_json::from_value(backup).expect("it is one");
    for medium in [StorageMedium::Persistent, StorageMedium::Memory] {
        cluster.spec.storage.medium = medium;
        let pod = made(&cluster, &admitted());
        let volumes = pod
            .spec
            .clone()
            .and_then(|spec| spec.volumes)
            .expect("some");
        let known: BTreeSet<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(known.len(), volumes.len(), "each volume once");
        for container in containers(&pod) {
            let mounts = container.volume_mounts.clone().expect("some");
            assert!(
                mounts
                    .iter()
                    .all(|mount| known.contains(mount.name.as_str()))
            );
            let given = container
                .env
                .iter()
                .flatten()
                .filter_map(|env| env.value.clone());
            let flags = container.args.iter().flatten();
            let flags =
                flags.filter_map(|flag| flag.split_once('=').map(|(_, value)| value.to_owned()));
            for path in given.chain(flags).filter(|value| value.starts_with('/')) {
                let inside = |mount: &str| path.starts_with(mount) || path.starts_with("/usr/bin/");
                let there = mounts.iter().any(|mount| inside(&mount.mount_path));
                assert!(there, "{}: {path} is not mounted", container.name);
            }
        }
    }
}

#[test]
fn ctl_and_sidecar_find_all_they_need_in_the_environment() {
    let pod = made(&cluster(), &admitted());
    let all = containers(&pod);
    assert_eq!(
        value(&all[1], "ETCDCTL_ENDPOINTS").as_deref(),
        Some("https://localhost:2379")
    );
    assert!(value(&all[1], "ETCDCTL_CERT").is_some());
    assert_eq!(
        value(&all[0], "QUORATE_CLUSTER_ENDPOINTS").as_deref(),
        Some("https://demo-bbbbbb.demo-peer.team.svc:2379")
    );
    assert_eq!(
        value(&all[2], "QUORATE_SERVER_CERT_FILE").as_deref(),
        Some("/etc/quorate/tls/sidecar/tls.crt")
    );
    assert_eq!(value(&all[2], "QUORATE_BACKUP_CREDENTIALS_DIR"), None);

    let mut plain = cluster();
    plain.spec.tls.client.disabled = Some(true);
    let all = containers(&made(&plain, &admitted()));
    assert_eq!(value(&all[1], "ETCDCTL_CERT"), None);
    assert_eq!(
        value(&all[0], "QUORATE_ENDPOINT").as_deref(),
        Some("http://localhost:2379")
    );
    assert!(
        value(&all[2], "QUORATE_SERVER_CERT_FILE").is_some(),
        "the sidecar is always secured"
    );
}

#[test]
fn what_a_user_adds_does_not_replace_what_is_needed() {
    let mut cluster = cluster();
    let env = serde_json::json!([
        { "name": "QUORATE_LOG", "value": "debug" },
        { "name": "ETCDCTL_ENDPOINTS", "value": "elsewhere" },
    ]);
    cluster.spec.pod.extra_env = serde_json::from_value(env).expect("variables");
    let labels = &mut cluster.spec.pod.labels;
    labels.insert("quorate.dev/cluster".to_owned(), "another".to_owned());
    let pod = made(&cluster, &admitted());
    let quorate = &containers(&pod)[1];
    assert_eq!(value(quorate, "QUORATE_LOG").as_deref(), Some("debug"));
    assert_eq!(
        value(quorate, "ETCDCTL_ENDPOINTS").as_deref(),
        Some("https://localhost:2379")
    );
    assert_eq!(
        pod.metadata.labels.expect("labels")["quorate.dev/cluster"],
        "demo"
    );
}

#[test]
fn a_seed_restores_once_and_never_begins_empty_instead() {
    let mut cluster = cluster();
    let from = serde_json::json!({
        "fromBackup": {
            "store": { "s3": { "bucket": "b", "credentialsSecret": "s" } },
            "key": "k",
        },
    });
    cluster.spec.bootstrap = serde_json::from_value(from).expect("it is one");
    let mut seed = member("demo-seedaa");
    seed.spec.birth = Birth::Seed;
    assert!(pod(&cluster, &seed, &settings(), &[], None).is_err());

    let request = crate::objects::restore_request(&cluster, None).expect("it is one");
    let request = request.expect("something");
    let first = pod(&cluster, &seed, &settings(), &[], Some(&request)).expect("fine");
    let gate = &containers(&first)[0];
    let json = value(gate, RESTORE_VARIABLE).expect("what to restore");
    assert_eq!(
        serde_json::from_str::<RestoreRequest>(&json).expect("JSON"),
        request
    );
    let mounts = gate.volume_mounts.iter().flatten();
    assert!(
        mounts
            .map(|mount| &mount.mount_path)
            .any(|path| path == "/etc/quorate/restore")
    );

    seed.status = Some(QuorateMemberStatus {
        member_id: Some("1".to_owned()),
        ..QuorateMemberStatus::default()
    });
    let later = pod(&cluster, &seed, &settings(), &[], Some(&request)).expect("fine");
    assert_eq!(value(&containers(&later)[0], RESTORE_VARIABLE), None);
    let revision = |pod: &Pod| pod.annotations()[REVISION_ANNOTATION].clone();
    assert_eq!(revision(&first), revision(&later));
    assert_eq!(revision(&first), revision(&made(&cluster, &admitted())));
}

#[test]
fn a_pod_is_labelled_by_what_its_member_is() {
    let mut cluster = cluster();
    let role = |cluster: &QuorateCluster| made(cluster, &admitted()).labels()[ROLE_LABEL].clone();
    assert_eq!(role(&cluster), "learner");
    let status = cluster.status.get_or_insert_default();
    status.members = vec![MemberStatus {
        name: "demo-abcdef".to_owned(),
        role: MemberRole::Voter,
        ..MemberStatus::default()
    }];
    assert_eq!(role(&cluster), "voter");
}
