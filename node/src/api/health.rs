//! /health, /livez and /readyz: what is checked, and how it is told.
//!
//! etcd: server/etcdserver/api/etcdhttp/health.go.

use std::collections::HashSet;
use std::sync::Arc;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::conditions::alarm_name;
use super::kv::blocking;
use crate::machine::view::ReadError;
use crate::model::kv::{AlarmType, RangeRequest};
use crate::replica::Replica;

/// One thing that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    pub const LIVEZ: &[Self] = &[Self::SerializableRead];
    pub const READYZ: &[Self] = &[
        Self::DataCorruption,
        Self::SerializableRead,
        Self::LinearizableRead,
        Self::NonLearner,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GaugeLabels {
    r#type: &'static str,
    name: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CountLabels {
    r#type: &'static str,
    name: &'static str,
    status: &'static str,
}

/// Checks this member, and counts what came of it.
pub struct Health {
    replica: Arc<Replica>,
    metrics: HealthMetrics,
}

/// etcd's health metrics.
#[derive(Default, Clone)]
pub struct HealthMetrics {
    success: Counter,
    failures: Counter,
    result: Family<GaugeLabels, Gauge>,
    total: Family<CountLabels, Counter>,
}

impl HealthMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "etcd_server_health_success",
            "The total number of successful health checks",
            self.success.clone(),
        );
        registry.register(
            "etcd_server_health_failures",
            "The total number of failed health checks",
            self.failures.clone(),
        );
        registry.register(
            "etcd_server_healthcheck",
            "The result of each kind of healthcheck",
            self.result.clone(),
        );
        registry.register(
            "etcd_server_healthchecks",
            "The total number of each kind of healthcheck",
            self.total.clone(),
        );
    }

    fn record(&self, kind: &'static str, check: Check, passed: bool) {
        let name = check.name();
        let labels = GaugeLabels { r#type: kind, name };
        self.result.get_or_create(&labels).set(i64::from(passed));
        let status = if passed { "success" } else { "error" };
        let labels = CountLabels {
            r#type: kind,
            name,
            status,
        };
        self.total.get_or_create(&labels).inc();
    }
}

impl Health {
    pub fn new(replica: Arc<Replica>, metrics: HealthMetrics) -> Self {
        Self { replica, metrics }
    }

    /// Answers /health: status and body. Alarms whose types are in `excluded` do not count.
    pub async fn health(
        &self,
        serializable: bool,
        excluded: &HashSet<&str>,
    ) -> (StatusCode, String) {
        let reason = if let Some(reason) = self.alarm_reason(excluded) {
            Some(reason)
        } else if !serializable && self.replica.status().leader == 0 {
            Some("RAFT NO LEADER".to_owned())
        } else {
            let read = self.read(serializable).await;
            read.err().map(|error| format!("RANGE ERROR:{error}"))
        };
        match &reason {
            None => self.metrics.success.inc(),
            Some(_) => self.metrics.failures.inc(),
        };
        tell_health(reason.as_deref())
    }

    fn alarm_reason(&self, excluded: &HashSet<&str>) -> Option<String> {
        let view = self.replica.view();
        let mut alarms = view.conditions.alarms().iter();
        let counted = alarms.find(|alarm| !excluded.contains(&*alarm_name(alarm.alarm)))?;
        Some(match AlarmType::try_from(counted.alarm) {
            Ok(AlarmType::Nospace) => "ALARM NOSPACE".to_owned(),
            Ok(AlarmType::Corrupt) => "ALARM CORRUPT".to_owned(),
            Ok(AlarmType::None) | Err(_) => "ALARM UNKNOWN".to_owned(),
        })
    }

    /// Runs checks of /livez or /readyz: status and body.
    pub async fn checks(
        &self,
        kind: &'static str,
        checks: &[Check],
        verbose: bool,
    ) -> (StatusCode, String) {
        let mut results = Vec::new();
        for check in checks {
            let result = self.check(*check).await;
            self.metrics.record(kind, *check, result.is_ok());
            results.push((*check, result));
        }
        tell_checks(&results, verbose)
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::DataCorruption if self.replica.view().conditions.has(AlarmType::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::DataCorruption => Ok(()),
            Check::SerializableRead => self.read(true).await,
            Check::LinearizableRead => self.read(false).await,
            Check::NonLearner if self.replica.status().is_learner => {
                Err("not supported for learner".to_owned())
            }
            Check::NonLearner => Ok(()),
        }
    }

    /// Reads one key, as a client would.
    async fn read(&self, serializable: bool) -> Result<(), String> {
        if !serializable {
            let barrier = self.replica.barrier().await;
            barrier.map_err(|refusal| refusal.to_string())?;
        }
        let view = self.replica.view();
        let request = RangeRequest {
            keys_only: true,
            limit: 1,
            serializable,
            ..Default::default()
        };
        let read = blocking(move || view.range(&request).map(|_| ()));
        let read: Result<(), ReadError> = read.await.map_err(|s| s.message().to_owned())?;
        read.map_err(|error| error.to_string())
    }
}

/// etcd's JSON, and a line end behind it only when it is bad news.
fn tell_health(reason: Option<&str>) -> (StatusCode, String) {
    match reason {
        None => (
            StatusCode::OK,
            "{\"health\":\"true\",\"reason\":\"\"}".to_owned(),
        ),
        Some(reason) => {
            let reason = serde_json::Value::from(reason);
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{{\"health\":\"false\",\"reason\":{reason}}}\n"),
            )
        }
    }
}

/// `ok`, with each check when asked; every check in any case when one failed.
fn tell_checks(results: &[(Check, Result<(), String>)], verbose: bool) -> (StatusCode, String) {
    let mut details = String::new();
    for (check, result) in results {
        match result {
            Ok(()) => details.push_str(&format!("[+]{} ok\n", check.name())),
            Err(error) => {
                details.push_str(&format!("[-]{} failed: {error}\n", check.name()));
            }
        }
    }
    if results.iter().any(|(_, result)| result.is_err()) {
        details.push('\n');
        return (StatusCode::SERVICE_UNAVAILABLE, details);
    }
    let details = if verbose { details.as_str() } else { "" };
    (StatusCode::OK, format!("{details}ok\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_told_byte_for_byte_as_etcd_does() {
        assert_eq!(
            tell_health(None),
            (
                StatusCode::OK,
                "{\"health\":\"true\",\"reason\":\"\"}".to_owned()
            )
        );
        assert_eq!(
            tell_health(Some("RAFT NO LEADER")),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n".to_owned()
            )
        );
    }

    #[test]
    fn checks_are_told_as_etcd_does() {
        let good = [(Check::DataCorruption, Ok(())), (Check::NonLearner, Ok(()))];
        assert_eq!(
            tell_checks(&good, false),
            (StatusCode::OK, "ok\n".to_owned())
        );
        assert_eq!(
            tell_checks(&good, true),
            (
                StatusCode::OK,
                "[+]data_corruption ok\n[+]non_learner ok\nok\n".to_owned()
            )
        );
        let bad = [
            (Check::SerializableRead, Ok(())),
            (
                Check::LinearizableRead,
                Err("etcdserver: request timed out".to_owned()),
            ),
        ];
        assert_eq!(
            tell_checks(&bad, false),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "[+]serializable_read ok\n\
                 [-]linearizable_read failed: etcdserver: request timed out\n\n"
                    .to_owned()
            )
        );
    }

    #[test]
    fn metrics_have_the_names_of_etcd() {
        let mut registry = Registry::default();
        let metrics = HealthMetrics::default();
        metrics.register(&mut registry);
        metrics.record("readyz", Check::NonLearner, true);
        metrics.success.inc();
        let text = crate::telemetry::exposition::text(&registry);
        for line in [
            "etcd_server_health_success 1",
            "etcd_server_healthcheck{type=\"readyz\",name=\"non_learner\"} 1",
            "etcd_server_healthchecks_total{type=\"readyz\",name=\"non_learner\",\
             status=\"success\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
