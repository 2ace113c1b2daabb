//! Counts calls under the names of etcd's gRPC metrics. Every series of a known method is there
//! from the start at 0; counting is an addition to an atomic, no lock and no lookup by label.
//!
//! etcd: server/etcdserver/api/v3rpc/grpc.go and metrics.go, by go-grpc-middleware.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use tonic::Code;

use super::methods::METHODS;

/// Go's names of the gRPC codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Go's default buckets for latencies.
const SECONDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Client API versions that are counted apart; others come together, so that a client cannot make
/// us hold more.
const CLIENT_VERSIONS_MAX: usize = 32;

/// How messages flow in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Unary,
    ServerStream,
    BidiStream,
}

impl Flow {
    fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// One method and what was counted of it.
#[derive(Debug)]
pub struct Method {
    pub service: &'static str,
    pub name: &'static str,
    pub flow: Flow,
    pub started: Counter,
    pub received: Counter,
    pub sent: Counter,
    handled: [Counter; CODES.len()],
    seconds: Option<Histogram>,
}

impl Method {
    fn new(service: &'static str, name: &'static str, flow: Flow, extensive: bool) -> Self {
        Self {
            service,
            name,
            flow,
            started: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            handled: std::array::from_fn(|_| Counter::default()),
            seconds: extensive.then(|| Histogram::new(SECONDS)),
        }
    }

    /// Counts the end of a call.
    pub fn finish(&self, code: Code, started: std::time::Instant) {
        self.handled[code as usize].inc();
        if let Some(seconds) = &self.seconds {
            seconds.observe(started.elapsed().as_secs_f64());
        }
    }

    fn labels(&self) -> [(&'static str, &'static str); 3] {
        [
            ("grpc_method", self.name),
            ("grpc_service", self.service),
            ("grpc_type", self.flow.label()),
        ]
    }
}

/// Calls of one client API version.
#[derive(Debug)]
struct ClientVersion {
    version: String,
    unary: Counter,
    stream: Counter,
}

/// What was counted of all methods.
#[derive(Debug)]
pub struct Calls {
    methods: HashMap<String, Arc<Method>>,
    /// In the order of the table, for a steady text.
    ordered: Vec<Arc<Method>>,
    /// Grows by new versions only; every call reads it.
    versions: RwLock<Vec<ClientVersion>>,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
}

impl Calls {
    /// `extensive` also measures how long calls take.
    pub fn new(extensive: bool) -> Arc<Self> {
        let ordered: Vec<Arc<Method>> = METHODS
            .iter()
            .flat_map(|(service, methods)| {
                methods
                    .iter()
                    .map(move |(name, flow)| Arc::new(Method::new(service, name, *flow, extensive)))
            })
            .collect();
        let methods = ordered
            .iter()
            .map(|method| {
                let path = format!("/{}/{}", method.service, method.name);
                (path, Arc::clone(method))
            })
            .collect();
        Arc::new(Self {
            methods,
            ordered,
            versions: RwLock::new(Vec::new()),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
        })
    }

    /// The method at a path, if we know it.
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    /// Counts a call by the version its client names.
    pub fn count_client(&self, version: &str, flow: Flow) {
        let count = |client: &ClientVersion| {
            match flow {
                Flow::Unary => client.unary.inc(),
                Flow::ServerStream | Flow::BidiStream => client.stream.inc(),
            };
        };
        if let Some(client) = self.versions.read().iter().find(|c| c.version == version) {
            return count(client);
        }
        let mut versions = self.versions.write();
        let version = if versions.len() < CLIENT_VERSIONS_MAX {
            version
        } else {
            "other"
        };
        if let Some(client) = versions.iter().find(|client| client.version == version) {
            return count(client);
        }
        let client = ClientVersion {
            version: version.to_owned(),
            unary: Counter::default(),
            stream: Counter::default(),
        };
        count(&client);
        versions.push(client);
    }

    fn encode_methods(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        counter: impl Fn(&Method) -> &Counter,
    ) -> std::fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for method in &self.ordered {
            counter(method).encode(metric.encode_family(&method.labels())?)?;
        }
        Ok(())
    }

    fn encode_handled(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "grpc_server_handled",
            "Total number of RPCs completed on the server, regardless of success or failure",
            None,
            MetricType::Counter,
        )?;
        for method in &self.ordered {
            for (code, handled) in CODES.iter().zip(&method.handled) {
                let [name, service, flow] = method.labels();
                let labels = [("grpc_code", *code), name, service, flow];
                handled.encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_seconds(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "grpc_server_handling_seconds",
            "Histogram of response latency (seconds) of RPCs that had been handled by the server",
            None,
            MetricType::Histogram,
        )?;
        for method in &self.ordered {
            if let Some(seconds) = &method.seconds {
                seconds.encode(metric.encode_family(&method.labels())?)?;
            }
        }
        Ok(())
    }

    fn encode_clients(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "etcd_server_client_requests",
            "The total number of client requests per client version",
            None,
            MetricType::Counter,
        )?;
        for client in self.versions.read().iter() {
            for (kind, counter) in [("unary", &client.unary), ("stream", &client.stream)] {
                if counter.get() > 0 {
                    let version = client.version.as_str();
                    let labels = [("client_api_version", version), ("type", kind)];
                    counter.encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn encode_bytes(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        for (name, help, counter) in [
            (
                "etcd_network_client_grpc_received_bytes",
                "The total number of bytes received from grpc clients",
                &self.received_bytes,
            ),
            (
                "etcd_network_client_grpc_sent_bytes",
                "The total number of bytes sent to grpc clients",
                &self.sent_bytes,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let encoder = &mut encoder;
        self.encode_methods(
            encoder,
            "grpc_server_started",
            "Total number of RPCs started on the server",
            |method| &method.started,
        )?;
        self.encode_methods(
            encoder,
            "grpc_server_msg_received",
            "Total number of RPC stream messages received on the server",
            |method| &method.received,
        )?;
        self.encode_methods(
            encoder,
            "grpc_server_msg_sent",
            "Total number of gRPC stream messages sent by the server",
            |method| &method.sent,
        )?;
        self.encode_handled(encoder)?;
        if self.ordered.iter().any(|method| method.seconds.is_some()) {
            self.encode_seconds(encoder)?;
        }
        self.encode_clients(encoder)?;
        self.encode_bytes(encoder)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn text(calls: &Arc<Calls>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(calls)));
        crate::telemetry::exposition::text(&registry)
    }

    #[test]
    fn every_series_is_there_from_the_start() {
        let calls = Calls::new(false);
        let text = text(&calls);
        for line in [
            "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",\
             grpc_type=\"unary\"} 0",
            "grpc_server_handled_total{grpc_code=\"Unavailable\",grpc_method=\"Watch\",\
             grpc_service=\"etcdserverpb.Watch\",grpc_type=\"bidi_stream\"} 0",
            "grpc_server_msg_sent_total{grpc_method=\"Snapshot\",\
             grpc_service=\"etcdserverpb.Maintenance\",grpc_type=\"server_stream\"} 0",
            "# TYPE grpc_server_msg_received_total counter",
            "etcd_network_client_grpc_sent_bytes_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}");
        }
        assert!(!text.contains("grpc_server_handling_seconds"));
    }

    #[test]
    fn a_call_is_counted_by_method_and_code() {
        let calls = Calls::new(true);
        let method = calls.method("/etcdserverpb.KV/Range").expect("it is known");
        method.started.inc();
        method.finish(Code::OutOfRange, std::time::Instant::now());
        let text = text(&calls);
        assert!(text.contains(
            "grpc_server_handled_total{grpc_code=\"OutOfRange\",grpc_method=\"Range\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1"
        ));
        assert!(text.contains(
            "grpc_server_handling_seconds_count{grpc_method=\"Range\",\
             grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1"
        ));
        assert!(calls.method("/etcdserverpb.KV/Nothing").is_none());
    }

    #[test]
    fn client_versions_are_counted_but_not_without_end() {
        let calls = Calls::new(false);
        calls.count_client("3.7", Flow::Unary);
        calls.count_client("3.7", Flow::Unary);
        calls.count_client("3.7", Flow::BidiStream);
        for version in 0..100 {
            calls.count_client(&format!("v{version}"), Flow::Unary);
        }
        let text = text(&calls);
        assert!(text.contains(
            "etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"unary\"} 2"
        ));
        assert!(text.contains(
            "etcd_server_client_requests_total{client_api_version=\"3.7\",type=\"stream\"} 1"
        ));
        assert!(calls.versions.read().len() <= CLIENT_VERSIONS_MAX + 1);
    }
}
