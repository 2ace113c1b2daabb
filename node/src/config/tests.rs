//! Tests of the whole way from flags to a checked configuration.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn run(line: &str) -> Result<Config, Error> {
    let words: Vec<String> = line.split_whitespace().map(ToOwned::to_owned).collect();
    match read(&words, std::iter::empty())? {
        Action::Run(config) => Ok(*config),
        other => panic!("{line}: {other:?}"),
    }
}

fn invalid(line: &str) -> String {
    match run(line) {
        Err(Error::Invalid(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn every_default_is_in_order_and_in_the_table_once() {
    let mut names: Vec<&str> = table::all().map(|flag| flag.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    let mut values = Values::default();
    for flag in table::all() {
        assert_eq!(values.set(flag, flag.default), Ok(()), "{}", flag.name);
    }
    let config = run("").expect("defaults are in order");
    assert!(config.notices.is_empty(), "{:?}", config.notices);
    assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
    assert_eq!(config.limits.request_bytes_max, 1_572_864);
    assert_eq!(config.limits.quota_bytes, 2_147_483_648);
    assert_eq!(config.compaction.retention, Retention::Everything);
    config
        .cluster
        .check_bootstrap("default")
        .expect("it is its own cluster");
}

#[test]
fn old_names_lead_to_flags_and_gates_that_exist() {
    for (old, new) in table::OLD_NAMES {
        match new {
            Ok(flag) => assert!(table::find(flag).is_some(), "{old}"),
            Err(gate) => assert!(table::FEATURE_GATES.iter().any(|(name, _)| name == gate)),
        }
    }
}

#[test]
fn what_would_be_less_safe_is_refused() {
    for line in ["--discovery-token=x", "--wal-dir=/w"] {
        assert!(run(line).is_err(), "{line}");
    }
    // At its default, even spelled out, nothing is asked for.
    run("--client-cert-auth=false --auto-tls=0 --cert-file=").expect("nothing is asked for");
}

#[test]
fn what_does_nothing_is_told() {
    let config = run("--max-snapshots=10 --pre-vote=T --memory-mlock --max-wals=5").expect("fine");
    let told: Vec<&str> = config.notices.iter().map(|n| n.flag.as_str()).collect();
    assert_eq!(told, ["max-snapshots", "memory-mlock"]);
}

#[test]
fn numbers_are_checked_as_etcd_does() {
    assert_eq!(
        invalid("--heartbeat-interval=0"),
        "--heartbeat-interval must be >0 (set to 0ms)"
    );
    assert_eq!(
        invalid("--election-timeout=400"),
        "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]"
    );
    assert_eq!(
        invalid("--election-timeout=50001"),
        "--election-timeout[50001ms] is too long, and should be set less than 50000ms"
    );
    assert_eq!(
        invalid("--listen-client-urls=http://127.0.0.1:1"),
        "--advertise-client-urls is required when --listen-client-urls is set explicitly"
    );
    assert_eq!(
        invalid("--listen-client-urls=http://a.example:1 --advertise-client-urls=http://a:1"),
        "expected IP in URL for binding (http://a.example:1)"
    );
    assert_eq!(
        invalid("--initial-advertise-peer-urls=http://:1"),
        "--initial-advertise-peer-urls \"http://:1\" must be \"host:port\" \
         (unexpected empty host (http://:1))"
    );
}

#[test]
fn retention_is_hours_a_duration_or_revisions() {
    let retention = |line: &str| run(line).expect(line).compaction.retention;
    assert_eq!(
        retention("--auto-compaction-retention=2"),
        Retention::Period(2 * HOUR)
    );
    assert_eq!(
        retention("--auto-compaction-retention=5m"),
        Retention::Period(Duration::from_secs(300))
    );
    assert_eq!(
        retention("--auto-compaction-mode=revision --auto-compaction-retention=1000"),
        Retention::Revisions(1_000)
    );
    assert!(run("--auto-compaction-mode=revision --auto-compaction-retention=5m").is_err());
    assert!(run("--auto-compaction-retention=soon").is_err());
    assert!(run("--auto-compaction-mode=weekly").is_err());
}

#[test]
fn the_cluster_of_a_first_start_holds_the_member() {
    let bootstrap = |line: &str| {
        let config = run(line).expect(line);
        config
            .cluster
            .check_bootstrap(&config.name)
            .map_err(|error| error.to_string())
    };
    assert_eq!(bootstrap("--name=m1"), Ok(()));
    assert_eq!(
        bootstrap("--name=m1 --initial-cluster=m2=http://localhost:2380"),
        Err("couldn't find local name \"m1\" in the initial cluster configuration".to_owned())
    );
    assert_eq!(
        bootstrap("--name=m1 --initial-cluster=m1=http://localhost:1"),
        Err(
            "--initial-cluster has m1=http://localhost:1 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380"
                .to_owned()
        )
    );
    let two = "--initial-advertise-peer-urls=http://localhost:2380,http://localhost:1";
    assert_eq!(
        bootstrap(&format!(
            "--name=m1 --initial-cluster=m1=http://localhost:1 {two}"
        )),
        Err(
            "--initial-advertise-peer-urls has http://localhost:2380 but missing from \
             --initial-cluster=m1=http://localhost:1"
                .to_owned()
        )
    );
    let shared = "m1=http://localhost:2380,m2=http://localhost:2380";
    assert!(bootstrap(&format!("--name=m1 --initial-cluster={shared}")).is_err());
}

#[test]
fn gates_are_those_of_etcd() {
    assert_eq!(
        invalid("--feature-gates=What=true"),
        "unrecognized feature gate: What"
    );
    assert!(run("--feature-gates=LeaseCheckpointPersist=true").is_err());
    assert!(run("--feature-gates=LeaseCheckpoint").is_err());
    let config = run("--feature-gates=LeaseCheckpoint=true,FastLeaseKeepAlive=true");
    assert_eq!(config.expect("fine").notices.len(), 1);
    let checks = |flags| run(flags).expect("fine").checks;
    let alpha = checks("--feature-gates=AllAlpha=true,CompactHashCheck=false");
    assert_eq!((alpha.initial, alpha.compacted), (true, None));
    let set = checks(
        "--feature-gates=CompactHashCheck=true --compact-hash-check-time=2s --corrupt-check-time=3s",
    );
    let seconds = |count| Some(Duration::from_secs(count));
    assert_eq!((set.compacted, set.newest), (seconds(2), seconds(3)));
    assert_eq!(
        invalid("--compact-hash-check-time=0s"),
        "--compact-hash-check-time must be >0 (set to 0s)"
    );
}

#[test]
fn a_file_replaces_all_other_sources() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("quorate.yml");
    std::fs::write(&path, "name: from-file\nelection-timeout: 2000\n").expect("written");
    let arguments = vec![
        format!("--config-file={}", path.display()),
        "--name=from-line".to_owned(),
    ];
    let environment = [("ETCD_MAX_TXN_OPS".to_owned(), "7".to_owned())];
    match read(&arguments, environment.into_iter()).expect("fine") {
        Action::Run(config) => {
            assert_eq!(config.name, "from-file");
            assert_eq!(config.cluster.election_ms, 2_000);
            assert_eq!(config.limits.txn_ops_max, 128);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn help_and_version_come_first() {
    let words = |word: &str| vec![word.to_owned(), "--election-timeout=1".to_owned()];
    assert!(matches!(
        read(&words("--version"), std::iter::empty()),
        Ok(Action::Version)
    ));
    assert!(matches!(
        read(&words("--help"), std::iter::empty()),
        Ok(Action::Help)
    ));
    let version = help::version();
    assert_eq!(version.lines().next(), Some("etcd Version: 3.7.3"));
    let help = help::flags();
    for flag in table::all() {
        assert!(help.contains(&format!("--{} ", flag.name)), "{}", flag.name);
    }
}

#[test]
fn tls_is_read_for_both_sides() {
    use quorate_tls::{Allowed, Version};
    let config = run(
        "--cert-file=c.pem --key-file=k.pem --trusted-ca-file=ca.pem \
         --client-crl-file=l.crl --client-cert-allowed-hostname=a,b --tls-min-version=TLS1.3 \
         --listen-client-urls=https://127.0.0.1:1 --advertise-client-urls=https://127.0.0.1:1 \
         --peer-auto-tls --peer-cert-allowed-cn=x --peer-crl-file=p.crl \
         --listen-peer-urls=https://127.0.0.1:2 --peer-skip-client-san-verification \
         --quorate-tls-migration=peer",
    )
    .expect("it is in order");
    let security = &config.security;
    let (client, peer) = (&security.client, &security.peer);
    let files = [
        (&client.options.cert_file, "c.pem"),
        (&client.options.key_file, "k.pem"),
        (&client.options.trusted_ca_file, "ca.pem"),
        (&client.options.crl_file, "l.crl"),
        (&peer.options.crl_file, "p.crl"),
        (&peer.options.cert_file, ""),
    ];
    for (path, expected) in files {
        assert_eq!(path, &PathBuf::from(expected));
    }
    assert!(!client.auto && peer.auto && !client.migrating && peer.migrating);
    assert!(security.skip_peer_addresses);
    let hosts = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(client.options.allowed, Allowed::Hostnames(hosts));
    assert_eq!(
        peer.options.allowed,
        Allowed::CommonNames(vec!["x".to_owned()])
    );
    assert_eq!(peer.options.min_version, Some(Version::Tls13));
}

#[test]
fn tls_that_does_not_fit_together_is_refused_in_the_words_of_etcd() {
    for (line, says) in [
        (
            "--listen-metrics-urls=https://127.0.0.1:1",
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
        (
            "--listen-peer-urls=https://127.0.0.1:1",
            "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented \
             (--peer-cert-file, --peer-key-file)",
        ),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            "--tls-min-version=TLS1.3 --cipher-suites=TLS_AES_128_GCM_SHA256",
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        (
            "--peer-cert-allowed-cn=a --peer-cert-allowed-hostname=b",
            "AllowedCNs and AllowedHostnames are mutually exclusive \
             (cns=[\"a\"], hostnames=[\"b\"])",
        ),
        (
            "--quorate-tls-migration=peer",
            "--quorate-tls-migration=peer needs --peer-cert-file and --peer-key-file",
        ),
        (
            "--quorate-tls-migration=all",
            "--quorate-tls-migration: \"all\" is no side; they are [\"client\", \"peer\"]",
        ),
    ] {
        assert_eq!(invalid(line), says, "{line}");
    }
}
