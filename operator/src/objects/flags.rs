//! The command line of `quorate` in a member's Pod.

use kube::ResourceExt;

use super::volumes::{DATA_DIRECTORY, PEER_TLS, SERVER_TLS};
use super::{CLIENT_PORT, METRICS_PORT, Names, PEER_PORT, bytes};
use crate::api::{
    AutoCompactionMode, Birth, ClientAuth, Engine, OWNED_FLAGS, QuorateCluster, QuorateMember,
};
use crate::model::Refusal;

/// The flags, those of `engine.extraArgs` last.
///
/// # Errors
/// `extraArgs` names a flag that is the operator's, or a quantity is none; or the member has not
/// been admitted, so that nobody knows yet what it is to start with.
pub fn flags(cluster: &QuorateCluster, member: &QuorateMember) -> Result<Vec<String>, Refusal> {
    let names = Names::new(cluster);
    let name = member.name_any();
    let flag = |key: &str, value: String| format!("--{key}={value}");
    let mut all = vec![
        flag("name", name.clone()),
        flag("data-dir", DATA_DIRECTORY.to_owned()),
        flag(
            "listen-client-urls",
            format!("{}://0.0.0.0:{CLIENT_PORT}", names.client_scheme()),
        ),
        flag("advertise-client-urls", names.client_url(&name)),
        flag(
            "listen-peer-urls",
            format!("{}://0.0.0.0:{PEER_PORT}", names.peer_scheme()),
        ),
        flag("initial-advertise-peer-urls", names.peer_url(&name)),
        flag(
            "listen-metrics-urls",
            format!("http://0.0.0.0:{METRICS_PORT}"),
        ),
        flag("initial-cluster", initial_cluster(&names, member)?),
        flag("initial-cluster-state", state(member).to_owned()),
        flag("initial-cluster-token", token(cluster)),
    ];
    all.extend(tls(cluster, &names).map(|(key, value)| flag(key, value)));
    all.extend(engine(&cluster.spec.engine)?);
    Ok(all)
}

/// What the member was born with, as it was latched when it was admitted.
///
/// # Errors
/// It has not been admitted.
pub fn initial_cluster(names: &Names, member: &QuorateMember) -> Result<String, Refusal> {
    let name = member.name_any();
    let latched = member
        .status
        .as_ref()
        .and_then(|status| status.initial_cluster.clone());
    match (latched, member.spec.birth) {
        (Some(latched), _) => Ok(latched),
        (None, Birth::Seed) => Ok(format!("{name}={}", names.peer_url(&name))),
        (None, Birth::Join) => Err(Refusal {
            reason: "InvalidReference".to_owned(),
            message: format!(
                "member {name} was not admitted to the cluster: it cannot be said yet what it is \
                 to start with"
            ),
        }),
    }
}

/// The value of `--initial-cluster-state`.
pub fn state(member: &QuorateMember) -> &'static str {
    match member.spec.birth {
        Birth::Seed => "new",
        Birth::Join => "existing",
    }
}

/// The value of `--initial-cluster-token`: IDs of two clusters of one name differ by it.
pub fn token(cluster: &QuorateCluster) -> String {
    let uid = cluster.metadata.uid.as_deref().unwrap_or_default();
    format!("{}-{uid}", cluster.name_any())
}

fn tls(
    cluster: &QuorateCluster,
    names: &Names,
) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let settings = &cluster.spec.tls;
    let extra = &cluster.spec.engine.extra_args;
    let mut all = Vec::new();
    if settings.client.enabled() {
        all.push(("cert-file", format!("{SERVER_TLS}/tls.crt")));
        all.push(("key-file", format!("{SERVER_TLS}/tls.key")));
        // Whoever gives an authority asks for certificates: without, there is none to be given.
        if settings.client_auth == ClientAuth::Required {
            all.push(("trusted-ca-file", format!("{SERVER_TLS}/ca.crt")));
            all.push(("client-cert-auth", "true".to_owned()));
        }
    }
    if settings.peer.enabled() {
        all.push(("peer-cert-file", format!("{PEER_TLS}/tls.crt")));
        all.push(("peer-key-file", format!("{PEER_TLS}/tls.key")));
        all.push(("peer-trusted-ca-file", format!("{PEER_TLS}/ca.crt")));
        all.push(("peer-client-cert-auth", "true".to_owned()));
        // One authority signs clients and peers alike: a peer is who has a certificate for the
        // peers' names. The caller's address says nothing here: it would be looked up in DNS, and
        // DNS may itself need this store.
        let given = |flag: &str| extra.contains_key(flag);
        if !given("peer-cert-allowed-cn") && !given("peer-cert-allowed-hostname") {
            all.push(("peer-cert-allowed-hostname", names.host("member")));
        }
        if !given("peer-skip-client-san-verification") {
            all.push(("peer-skip-client-san-verification", "true".to_owned()));
        }
    }
    all.into_iter()
}

fn engine(engine: &Engine) -> Result<Vec<String>, Refusal> {
    let mut all = vec![
        format!("--heartbeat-interval={}", engine.heartbeat_ms),
        format!("--election-timeout={}", engine.election_ms),
    ];
    if let Some(quota) = &engine.quota_backend {
        let quota = bytes("spec.engine.quotaBackend", quota)?;
        all.push(format!("--quota-backend-bytes={quota}"));
    }
    if let Some(compaction) = &engine.auto_compaction {
        let mode = match compaction.mode {
            AutoCompactionMode::Periodic => "periodic",
            AutoCompactionMode::Revision => "revision",
        };
        all.push(format!("--auto-compaction-mode={mode}"));
        all.push(format!(
            "--auto-compaction-retention={}",
            compaction.retention
        ));
    }
    if let Some(count) = engine.snapshot_count {
        all.push(format!("--snapshot-count={count}"));
    }
    for (key, value) in &engine.extra_args {
        // The API server refuses these too; an older rule may have let one through.
        if OWNED_FLAGS.contains(&key.as_str()) {
            return Err(Refusal {
                reason: "InvalidReference".to_owned(),
                message: format!(
                    "spec.engine.extraArgs: the operator sets --{key} itself; take it out"
                ),
            });
        }
        all.push(format!("--{key}={value}"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::QuorateMemberStatus;
    use crate::objects::testing::{cluster, member};
    use quorate_sidecar::wire;

    fn admitted() -> QuorateMember {
        let mut member = member("demo-abcdef");
        member.status = Some(QuorateMemberStatus {
            initial_cluster: Some("demo-abcdef=https://x:2380".to_owned()),
            ..QuorateMemberStatus::default()
        });
        member
    }

    #[test]
    fn a_joiner_waits_until_it_is_admitted_and_a_seed_is_alone() {
        let cluster = cluster();
        let mut pending = member("demo-abcdef");
        assert!(flags(&cluster, &pending).is_err());
        pending.spec.birth = Birth::Seed;
        let seed = flags(&cluster, &pending).expect("it needs nobody");
        for expected in [
            "--initial-cluster=demo-abcdef=https://demo-abcdef.demo-peer.team.svc:2380",
            "--initial-cluster-state=new",
            "--advertise-client-urls=https://demo-abcdef.demo-peer.team.svc:2379",
            "--client-cert-auth=true",
            "--peer-cert-allowed-hostname=member.demo-peer.team.svc",
        ] {
            assert!(
                seed.iter().any(|flag| flag == expected),
                "{expected}: {seed:#?}"
            );
        }
        assert_eq!(wire::PORT, 2382);
    }

    #[test]
    fn tls_is_on_or_off_a_side() {
        let mut cluster = cluster();
        cluster.spec.tls.client.disabled = Some(true);
        let flags_of = |cluster: &QuorateCluster| flags(cluster, &admitted()).expect("fine");
        let plain = flags_of(&cluster);
        assert!(plain.contains(&"--listen-client-urls=http://0.0.0.0:2379".to_owned()));
        assert!(!plain.iter().any(|flag| flag.starts_with("--cert-file")));
        assert!(
            plain
                .iter()
                .any(|flag| flag.starts_with("--peer-cert-file"))
        );
        cluster.spec.tls.peer.disabled = Some(true);
        assert!(
            !flags_of(&cluster)
                .iter()
                .any(|flag| flag.starts_with("--peer-cert"))
        );

        cluster.spec.tls.client.disabled = None;
        cluster.spec.tls.client_auth = ClientAuth::None;
        let open = flags_of(&cluster);
        assert!(open.iter().any(|flag| flag.starts_with("--cert-file")));
        assert!(!open.iter().any(|flag| flag.contains("trusted-ca-file")));
    }

    #[test]
    fn the_engine_is_told_all_that_the_spec_says() {
        let mut cluster = cluster();
        let engine = serde_json::json!({
            "quotaBackend": "4Gi", "heartbeatMs": 50, "electionMs": 500, "snapshotCount": 7,
            "autoCompaction": { "mode": "Periodic", "retention": "1h" },
            "extraArgs": { "max-txn-ops": "256", "peer-skip-client-san-verification": "false" },
        });
        cluster.spec.engine = serde_json::from_value(engine).expect("it is one");
        let all = flags(&cluster, &admitted()).expect("fine");
        for expected in [
            "--quota-backend-bytes=4294967296",
            "--heartbeat-interval=50",
            "--election-timeout=500",
            "--snapshot-count=7",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=1h",
            "--max-txn-ops=256",
            "--peer-skip-client-san-verification=false",
        ] {
            assert!(
                all.iter().any(|flag| flag == expected),
                "{expected}: {all:#?}"
            );
        }
        let keys: Vec<_> = all.iter().map(|flag| flag.split('=').next()).collect();
        let unique: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(keys.len(), unique.len(), "each flag once: {all:#?}");

        let extra = &mut cluster.spec.engine.extra_args;
        extra.insert("data-dir".to_owned(), "/elsewhere".to_owned());
        assert!(flags(&cluster, &admitted()).is_err());
    }
}
