//! The parts of the configuration, each for those whom it concerns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::duration;
use super::source::{Error, Values};
use super::urls::{self, Url};

const HOUR: Duration = Duration::from_secs(3_600);
/// What `--quota-backend-bytes=0` means.
const QUOTA_BYTES_DEFAULT: i64 = 2 * 1024 * 1024 * 1024;

/// Where the member listens.
#[derive(Debug, Clone)]
pub struct Listen {
    pub client: Vec<Url>,
    /// When not empty, HTTP is served here and no longer on `client`.
    pub client_http: Vec<Url>,
    pub metrics: Vec<Url>,
    pub peer: Vec<Url>,
    pub reuse_port: bool,
    /// Server-to-client pings; none when zero.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub concurrent_streams_max: u32,
}

/// The cluster as this member is told of it.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub advertise_peer: Vec<Url>,
    pub advertise_client: Vec<Url>,
    /// The members of a first start, by name.
    pub initial: BTreeMap<String, Vec<Url>>,
    /// The members are named, and not made up from this member's own URLs.
    pub initial_is_given: bool,
    pub initial_is_existing: bool,
    pub token: String,
    pub heartbeat_ms: u64,
    pub election_ms: u64,
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    /// False for `--unsafe-no-fsync`.
    pub fsync: bool,
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    pub force_new_cluster: bool,
}

/// What a client may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub txn_ops_max: usize,
    pub request_bytes_max: usize,
    /// Negative when there is none.
    pub quota_bytes: i64,
}

/// Which history auto compaction removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    Everything,
    /// What is older than this.
    Period(Duration),
    /// All but so many revisions.
    Revisions(i64),
}

/// How history is compacted.
#[derive(Debug, Clone, Copy)]
pub struct Compaction {
    pub retention: Retention,
    pub slice_records: usize,
    pub pause: Duration,
}

/// What HTTP serves, and whom.
#[derive(Debug, Clone)]
pub struct Http {
    pub gateway: bool,
    /// Empty: every origin.
    pub origins: Vec<String>,
    /// Empty: every host name.
    pub hosts: Vec<String>,
}

/// Where logs go, and in which form.
#[derive(Debug, Clone)]
pub struct Log {
    pub outputs: Vec<String>,
    pub level: String,
    pub console: bool,
    /// `--log-format` was given, so that a terminal makes no difference.
    pub format_is_given: bool,
}

impl Listen {
    pub(super) fn from_values(values: &Values) -> Result<Self, Error> {
        Ok(Self {
            client: values.urls("listen-client-urls")?,
            client_http: values.urls("listen-client-http-urls")?,
            metrics: values.urls("listen-metrics-urls")?,
            peer: values.urls("listen-peer-urls")?,
            reuse_port: values.bool("socket-reuse-port"),
            keepalive_interval: values.duration("grpc-keepalive-interval"),
            keepalive_timeout: values.duration("grpc-keepalive-timeout"),
            concurrent_streams_max: values.number("max-concurrent-streams")?,
        })
    }
}

impl Cluster {
    pub(super) fn from_values(values: &Values, name: &str) -> Result<Self, Error> {
        let advertise_peer = values.urls("initial-advertise-peer-urls")?;
        // With a name alone, the cluster is that name at the advertised URLs.
        let initial = if values.is_given("initial-cluster") || name == "default" {
            urls::parse_cluster(values.text("initial-cluster"))
                .map_err(|error| Error::Invalid(format!("--initial-cluster: {error}")))?
        } else {
            BTreeMap::from([(name.to_owned(), advertise_peer.clone())])
        };
        // The default is dropped when the listening URLs are given: it would be wrong.
        let without = !values.from_file
            && values.is_given("listen-client-urls")
            && !values.is_given("advertise-client-urls");
        let advertise_client = if without {
            Vec::new()
        } else {
            values.urls("advertise-client-urls")?
        };
        Ok(Self {
            advertise_peer,
            advertise_client,
            initial,
            initial_is_existing: values.text("initial-cluster-state") == "existing",
            initial_is_given: values.is_given("initial-cluster"),
            token: values.text("initial-cluster-token").to_owned(),
            heartbeat_ms: values.number("heartbeat-interval")?,
            election_ms: values.number("election-timeout")?,
            snapshot_count: values.number("snapshot-count")?,
            snapshot_catchup_entries: values.number("snapshot-catchup-entries")?,
            fsync: !values.bool("unsafe-no-fsync"),
            strict_reconfig_check: values.bool("strict-reconfig-check"),
            max_learners: values.number("max-learners")?,
            force_new_cluster: values.bool("force-new-cluster"),
        })
    }

    /// Checks that the cluster of a first start holds this member at its own URLs. On later
    /// starts the data directory knows better, so nothing is checked.
    ///
    /// etcd: server/config/config.go (VerifyBootstrap, advertiseMatchesCluster).
    pub fn check_bootstrap(&self, name: &str) -> Result<(), Error> {
        let own = self.own_urls(name)?;
        let missing = |from: &[Url], within: &[Url]| -> Vec<String> {
            from.iter()
                .filter(|url| !within.contains(url))
                .map(|url| url.text.clone())
                .collect()
        };
        let named: Vec<String> = missing(own, &self.advertise_peer)
            .iter()
            .map(|url| format!("{name}={url}"))
            .collect();
        if !named.is_empty() {
            return Err(Error::Invalid(format!(
                "--initial-cluster has {} but missing from --initial-advertise-peer-urls={}",
                named.join(","),
                urls::texts(&self.advertise_peer).join(",")
            )));
        }
        let advertised = missing(&self.advertise_peer, own);
        if !advertised.is_empty() {
            return Err(Error::Invalid(format!(
                "--initial-advertise-peer-urls has {} but missing from --initial-cluster={name}={}",
                advertised.join(","),
                urls::texts(own).join(",")
            )));
        }
        self.check_duplicates()
    }

    /// Checks the cluster of a member that joins one that runs: its own URLs are those with which
    /// it was added there.
    ///
    /// etcd: server/config/config.go (VerifyJoinExisting).
    pub fn check_join(&self, name: &str) -> Result<(), Error> {
        self.own_urls(name)?;
        self.check_duplicates()
    }

    fn own_urls(&self, name: &str) -> Result<&Vec<Url>, Error> {
        self.initial.get(name).ok_or_else(|| {
            Error::Invalid(format!(
                "couldn't find local name {name:?} in the initial cluster configuration"
            ))
        })
    }

    fn check_duplicates(&self) -> Result<(), Error> {
        let mut all: Vec<&Url> = self.initial.values().flatten().collect();
        all.sort();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::Invalid(
                "initial cluster has duplicate url: two members share it".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Limits {
    pub(super) fn from_values(values: &Values) -> Result<Self, Error> {
        let quota_bytes = match values.number("quota-backend-bytes")? {
            0 => QUOTA_BYTES_DEFAULT,
            bytes => bytes,
        };
        Ok(Self {
            txn_ops_max: values.number("max-txn-ops")?,
            request_bytes_max: values.number("max-request-bytes")?,
            quota_bytes,
        })
    }
}

impl Compaction {
    pub(super) fn from_values(values: &Values) -> Result<Self, Error> {
        let by_revision = values.text("auto-compaction-mode") == "revision";
        let text = values.text("auto-compaction-retention");
        let retention = match text.parse::<u32>() {
            Ok(0) => Retention::Everything,
            Ok(count) if by_revision => Retention::Revisions(i64::from(count)),
            Ok(hours) => Retention::Period(HOUR * hours),
            Err(_) => match duration::parse(text) {
                Some(Duration::ZERO) => Retention::Everything,
                Some(period) if !by_revision => Retention::Period(period),
                Some(_) | None => {
                    return Err(Error::Invalid(format!(
                        "error parsing CompactionRetention: invalid value {text:?}"
                    )));
                }
            },
        };
        let slice_records: usize = values.number("compaction-batch-limit")?;
        Ok(Self {
            retention,
            slice_records: slice_records.max(1),
            pause: values.duration("compaction-sleep-interval"),
        })
    }
}

impl Http {
    pub(super) fn from_values(values: &Values) -> Self {
        let unless_all = |name| {
            let texts = values.texts(name);
            if texts.iter().any(|text| text == "*") {
                Vec::new()
            } else {
                texts
            }
        };
        Self {
            gateway: values.bool("enable-grpc-gateway"),
            origins: unless_all("cors"),
            hosts: unless_all("host-whitelist"),
        }
    }
}

impl Log {
    pub(super) fn from_values(values: &Values) -> Self {
        Self {
            outputs: values.texts("log-outputs"),
            level: values.text("log-level").to_owned(),
            console: values.text("log-format") == "console",
            format_is_given: values.is_given("log-format"),
        }
    }
}
