//! The balanced channel under every generated client: round robin over the endpoints that
//! answer, on to the next one as long as a call certainly was not sent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::select_all;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use quorate_tls::Identity;
use tonic::Status;
use tonic::body::Body;

use crate::body::RequestBody;
use crate::config::{ClientConfig, Endpoint};
use crate::error::{Error, NotSent};
use crate::link::{Link, describe};
use crate::retry::Backoff;

/// A cheap handle to the connections of a client; what the generated clients run on.
///
/// A call goes to the next endpoint that is connected and not known to be silent. If the
/// connection turns out to be gone before the call was sent, or the server says that it did not
/// look at it (`REFUSED_STREAM`, a `GOAWAY` before it), the call goes to the next endpoint;
/// **never** after the server may have seen it. With no connection at all a call waits for one,
/// [`ClientConfig::dial_timeout`] long. A deadline set by `tonic::Request::set_timeout` is kept.
#[derive(Clone)]
pub struct Channel {
    pool: Arc<Pool>,
}

struct Pool {
    links: Vec<Arc<Link>>,
    /// Certificates and trust, if an endpoint needs TLS.
    identity: Option<Arc<Identity>>,
    next: AtomicUsize,
    dial_timeout: Duration,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.endpoints()).finish()
    }
}

impl Channel {
    /// Starts connecting to every endpoint of `config`.
    pub(crate) fn start(config: &ClientConfig) -> Result<Self, Error> {
        let has_tls = config.tls.is_some();
        let endpoints = config
            .endpoints
            .iter()
            .map(|text| Endpoint::parse(text, has_tls))
            .collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::Invalid {
                text: "no endpoint given".to_owned(),
            });
        }
        let identity = match endpoints.iter().any(|endpoint| endpoint.secure) {
            true => Some(config.tls.clone().unwrap_or_default().load()?),
            false => None,
        };
        let links = endpoints
            .into_iter()
            .map(|endpoint| Link::start(endpoint, config, identity.clone()))
            .collect();
        Ok(Self::over(links, identity, config.dial_timeout))
    }

    fn over(
        links: Vec<Arc<Link>>,
        identity: Option<Arc<Identity>>,
        dial_timeout: Duration,
    ) -> Self {
        Self {
            pool: Arc::new(Pool {
                links,
                identity,
                next: AtomicUsize::new(0),
                dial_timeout,
            }),
        }
    }

    /// A channel to one endpoint alone; it shares the connection if there is one already.
    pub(crate) fn only(&self, text: &str, config: &ClientConfig) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(text, config.tls.is_some())?;
        let identity = match &self.pool.identity {
            None if endpoint.secure => Some(config.tls.clone().unwrap_or_default().load()?),
            identity => identity.clone(),
        };
        let shared = self.pool.links.iter().find(|link| {
            let other = link.endpoint();
            other.address == endpoint.address && other.secure == endpoint.secure
        });
        let link = match shared {
            Some(link) => Arc::clone(link),
            None => Link::start(endpoint, config, identity.clone()),
        };
        Ok(Self::over(vec![link], identity, config.dial_timeout))
    }

    /// The endpoints as they were given.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.pool
            .links
            .iter()
            .map(|link| link.endpoint().name.as_str())
    }

    /// Waits until one endpoint is connected, `dial_timeout` at most.
    pub(crate) async fn connected(&self) -> Result<(), Error> {
        match self.pool.pick().await {
            Ok(_) => Ok(()),
            Err(status) => Err(Error::of_read(status)),
        }
    }
}

impl Pool {
    fn pick_now(&self) -> Option<(&Arc<Link>, SendRequest<RequestBody>)> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.links.len();
        let mut silent = None;
        for offset in 0..count {
            let link = &self.links[start.wrapping_add(offset) % count];
            let Some(sender) = link.sender() else {
                continue;
            };
            if !link.is_silent() {
                return Some((link, sender));
            }
            silent.get_or_insert((link, sender));
        }
        silent
    }

    async fn pick(&self) -> Result<(&Arc<Link>, SendRequest<RequestBody>), Status> {
        if let Some(picked) = self.pick_now() {
            return Ok(picked);
        }
        let wait = async {
            let mut states: Vec<_> = self.links.iter().map(|link| link.states()).collect();
            loop {
                for state in &mut states {
                    state.mark_unchanged();
                }
                if let Some(picked) = self.pick_now() {
                    return picked;
                }
                // A link lives as long as the pool, so every change is an `Ok`; and were it
                // not, the next look at the links would tell.
                let (changed, _, _) =
                    select_all(states.iter_mut().map(|state| Box::pin(state.changed()))).await;
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(self.dial_timeout, wait)
            .await
            .map_err(|_| {
                let trouble: Vec<_> = self.links.iter().map(|link| link.trouble()).collect();
                not_sent(format!(
                    "there is no connection available ({})",
                    trouble.join("; ")
                ))
            })
    }

    async fn send(&self, request: http::Request<Body>) -> Result<http::Response<Incoming>, Status> {
        let (parts, body) = request.into_parts();
        let mut body = RequestBody::look_into(body).await?;
        let mut backoff = Backoff::new(crate::limits::RECONNECT_PAUSE_MAX);
        for attempt in 1.. {
            let (link, mut sender) = self.pick().await?;
            let spare = body.again();
            let request = addressed(&parts, body, link.endpoint())?;
            let mut call = Call {
                link,
                started: Instant::now(),
                ended: false,
            };
            let result = sender.try_send_request(request).await;
            call.ended = true;
            let why = match result {
                Ok(response) => {
                    link.answered();
                    return Ok(response);
                }
                Err(mut error) => {
                    let message = error.take_message();
                    let why = error.into_error();
                    match (message, spare) {
                        (Some(unsent), _) => body = unsent.into_body(),
                        (None, Some(spare)) if was_not_looked_at(&why) => body = spare,
                        (None, _) => return Err(lost(link.endpoint(), why)),
                    }
                    why
                }
            };
            if attempt >= crate::limits::ATTEMPTS_MAX {
                return Err(not_sent(describe(&why)));
            }
            if (attempt as usize).is_multiple_of(self.links.len()) {
                tokio::time::sleep(backoff.next()).await;
            }
        }
        unreachable!("the loop ends by returning")
    }
}

/// A call in flight. If it is dropped after long silence, its endpoint is asked for a sign of
/// life.
struct Call<'a> {
    link: &'a Link,
    started: Instant,
    ended: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.ended && self.started.elapsed() >= crate::limits::SILENCE {
            self.link.suspect();
        }
    }
}

fn addressed(
    parts: &http::request::Parts,
    body: RequestBody,
    endpoint: &Endpoint,
) -> Result<http::Request<RequestBody>, Status> {
    let mut uri = parts.uri.clone().into_parts();
    uri.scheme = Some(endpoint.scheme());
    uri.authority = Some(endpoint.authority.clone());
    let uri = http::Uri::from_parts(uri).map_err(|error| not_sent(error.to_string()))?;
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers.clone();
    Ok(request)
}

/// Whether the server vouches that it did not look at the call: RFC 9113, 6.8 and 8.7.
fn was_not_looked_at(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.is_remote()
                && match error.reason() {
                    Some(h2::Reason::REFUSED_STREAM) => error.is_reset(),
                    // Streams up to the last one that the server names end as usual.
                    Some(h2::Reason::NO_ERROR) => error.is_go_away(),
                    _ => false,
                };
        }
        source = error.source();
    }
    false
}

fn not_sent(text: String) -> Status {
    let mut status = Status::unavailable(text);
    status.set_source(Arc::new(NotSent));
    status
}

fn lost(endpoint: &Endpoint, error: hyper::Error) -> Status {
    let text = format!("connection to {} lost: {}", endpoint.name, describe(&error));
    if was_not_looked_at(&error) {
        return not_sent(text);
    }
    let mut status = Status::unavailable(text);
    status.set_source(Arc::new(error));
    status
}

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let pool = Arc::clone(&self.pool);
        Box::pin(async move {
            let Some(limit) = grpc_timeout(request.headers()) else {
                return pool.send(request).await;
            };
            match tokio::time::timeout(limit, pool.send(request)).await {
                Ok(result) => result,
                Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
            }
        })
    }
}

/// The deadline of a call: at most eight digits and a unit.
fn grpc_timeout(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}
