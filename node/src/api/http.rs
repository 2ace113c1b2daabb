//! Plain HTTP: health, version, metrics and the JSON gateway.
//!
//! etcd: server/etcdserver/api/etcdhttp, server/embed/serve.go (accessController).

use std::collections::HashSet;
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::body::ResponseBody;
use super::health::{Check, Health};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
const CORS_METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
const CORS_HEADERS: HeaderValue = HeaderValue::from_static("accept, content-type, authorization");

/// What a listener serves over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Client,
    /// Metrics and health alone.
    Metrics,
}

/// Writes all metrics, with their content type.
pub type Exposition = Arc<dyn Fn() -> (String, &'static str) + Send + Sync>;

/// What HTTP serves, and whom.
pub struct HttpDoor {
    pub health: Health,
    pub exposition: Exposition,
    /// The body of /version.
    pub version: String,
    /// Host names that may be asked for; empty for all.
    pub hosts: Vec<String>,
    /// Origins that browsers may come from; empty for all.
    pub origins: Vec<String>,
    pub gateway: Option<super::gateway::Gateway>,
}

impl HttpDoor {
    /// Answers one request. Over TLS every host name is right: the certificate vouches for it.
    pub async fn serve(
        &self,
        request: Request<Incoming>,
        scope: Scope,
        secure: bool,
    ) -> Response<ResponseBody> {
        if scope == Scope::Metrics {
            return self.route(request, scope).await;
        }
        if !secure && let Some(refused) = self.refuse_host(&request) {
            return refused;
        }
        let origin = self.allowed_origin(&request);
        let mut response = if request.method() == Method::OPTIONS {
            Response::new(ResponseBody::plain(""))
        } else {
            self.route(request, scope).await
        };
        if let Some(origin) = origin {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, CORS_METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, CORS_HEADERS);
        }
        response
    }

    async fn route(&self, request: Request<Incoming>, scope: Scope) -> Response<ResponseBody> {
        let path = request.uri().path();
        let (root, check) = match path.get(1..).and_then(|path| path.split_once('/')) {
            Some((root, check)) => (root, Some(check)),
            None => (path.get(1..).unwrap_or(""), None),
        };
        let is_client = scope == Scope::Client;
        let only_get = match (root, check) {
            ("health" | "metrics", None) | ("livez" | "readyz", _) => true,
            ("version", None) => is_client,
            _ => false,
        };
        if only_get && request.method() != Method::GET {
            return not_allowed("GET");
        }
        let query = Query::of(&request);
        match (root, check) {
            ("health", None) => {
                let excluded: HashSet<&str> = query.all("exclude").collect();
                let serializable = query.is("serializable", "true");
                let (status, body) = self.health.health(serializable, &excluded).await;
                tell(status, body)
            }
            ("livez", check) => self.checks("livez", Check::LIVEZ, check, &query).await,
            ("readyz", check) => self.checks("readyz", Check::READYZ, check, &query).await,
            ("metrics", None) => {
                let (text, content_type) = (self.exposition)();
                with_type(text, HeaderValue::from_static(content_type))
            }
            ("version", None) if is_client => with_type(self.version.clone(), JSON),
            ("v3" | "v3beta", Some(rest)) if is_client => match &self.gateway {
                Some(gateway) => {
                    let rest = rest.to_owned();
                    gateway.serve(&rest, request).await
                }
                None => not_found(),
            },
            _ => not_found(),
        }
    }

    async fn checks(
        &self,
        kind: &'static str,
        all: &'static [Check],
        one: Option<&str>,
        query: &Query,
    ) -> Response<ResponseBody> {
        let checks: Vec<Check> = match one {
            Some(name) => all.iter().copied().filter(|c| c.name() == name).collect(),
            None => {
                let excluded: HashSet<&str> = query.all("exclude").collect();
                let unknown = |name: &&&str| !all.iter().any(|check| check.name() == **name);
                if let Some(name) = excluded.iter().find(unknown) {
                    tracing::warn!(check = name, "some health checks cannot be excluded");
                }
                let kept = |check: &Check| !excluded.contains(check.name());
                all.iter().copied().filter(kept).collect()
            }
        };
        if one.is_some() && checks.is_empty() {
            return not_found();
        }
        let verbose = query.has("verbose");
        let (status, body) = self.health.checks(kind, &checks, verbose).await;
        if status != StatusCode::OK {
            tracing::error!(path = kind, reason = body, "Health check error");
        }
        let mut response = tell(status, body);
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// Refuses a host name that is not listed: a page from elsewhere may have been pointed at us
    /// by its own name server (CVE-2018-5702).
    fn refuse_host(&self, request: &Request<Incoming>) -> Option<Response<ResponseBody>> {
        if self.hosts.is_empty() {
            return None;
        }
        let authority = request
            .uri()
            .authority()
            .map(|authority| authority.as_str());
        let header = || request.headers().get(HOST)?.to_str().ok();
        let host = authority.or_else(header).unwrap_or("");
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        if self.hosts.iter().any(|allowed| allowed == host) {
            return None;
        }
        tracing::warn!(
            host,
            "rejecting HTTP request to prevent DNS rebinding attacks"
        );
        Some(error(
            StatusCode::MISDIRECTED_REQUEST,
            &format!(
                "The Host header of this request names nobody we know. Ask by a name that is \
                 listed, or list this one: --host-whitelist {host:?} (CVE-2018-5702)."
            ),
        ))
    }

    fn allowed_origin(&self, request: &Request<Incoming>) -> Option<HeaderValue> {
        if self.origins.is_empty() {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = request.headers().get(ORIGIN)?;
        let allowed = |allowed: &String| allowed.as_bytes() == origin.as_bytes();
        self.origins.iter().any(allowed).then(|| origin.clone())
    }
}

/// The query of a URL.
struct Query(Vec<(String, String)>);

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let query = request.uri().query().unwrap_or("");
        let parts = query.split('&').filter(|part| !part.is_empty());
        Self(
            parts
                .map(|part| {
                    let (name, value) = part.split_once('=').unwrap_or((part, ""));
                    (name.to_owned(), value.to_owned())
                })
                .collect(),
        )
    }

    /// Values that are not empty.
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter();
        pairs
            .filter(move |(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// Whether the first value is this one.
    fn is(&self, name: &str, value: &str) -> bool {
        let first = self.0.iter().find(|(key, _)| key == name);
        first.is_some_and(|(_, found)| found == value)
    }
}

/// A body with its type.
pub fn with_type(body: String, content_type: HeaderValue) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::plain(body));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A text with a status; bad news are marked as Go does.
fn tell(status: StatusCode, body: String) -> Response<ResponseBody> {
    let mut response = with_type(body, TEXT);
    *response.status_mut() = status;
    if status != StatusCode::OK {
        let no_sniff = HeaderValue::from_static("nosniff");
        response
            .headers_mut()
            .insert(X_CONTENT_TYPE_OPTIONS, no_sniff);
    }
    response
}

/// As Go's http.Error.
pub fn error(status: StatusCode, text: &str) -> Response<ResponseBody> {
    tell(status, format!("{text}\n"))
}

pub fn not_found() -> Response<ResponseBody> {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

pub fn not_allowed(allowed: &'static str) -> Response<ResponseBody> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The JSON answer of a call, marked as grpc-gateway marks it.
pub fn json(body: String) -> Response<ResponseBody> {
    let mut response = with_type(body, JSON);
    let name = HeaderName::from_static("grpc-metadata-content-type");
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(name, grpc);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_in_go() {
        let request = Request::builder()
            .uri("/readyz?verbose&exclude=a&exclude=&exclude=b&serializable=true")
            .body(())
            .expect("a request");
        let query = Query::of(&request);
        assert!(query.has("verbose") && !query.has("verbos"));
        assert_eq!(query.all("exclude").collect::<Vec<_>>(), ["a", "b"]);
        assert!(query.is("serializable", "true") && !query.is("serializable", "1"));
    }
}
