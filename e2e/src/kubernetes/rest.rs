//! The API server's REST interface, over one HTTP/2 connection that is made anew when it breaks.

use crate::wait::{self, Patience};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long one call may take; the API server gives up after a minute.
const CALL_DEADLINE: Duration = Duration::from_secs(70);

/// How long a call is repeated while the store has no leader.
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// What a body is.
const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// An answer that came, whatever it says.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// JSON, or a text as a string.
    pub body: Value,
}

impl Answer {
    /// The body of an answer that says yes.
    ///
    /// # Errors
    /// When it says no.
    pub fn ok(self) -> Result<Value> {
        ensure!(self.status < 300, "{}: {}", self.status, self.body);
        Ok(self.body)
    }

    /// Whether the server could not do it just now, so that it may have been done or not.
    pub fn is_unsure(&self) -> bool {
        self.status >= 500 || self.status == 429
    }

    /// Kubernetes' word for why not.
    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// A client with one user's token.
#[derive(Clone)]
pub struct Rest {
    inner: Arc<Inner>,
}

struct Inner {
    port: u16,
    identity: quorate_tls::Identity,
    token: String,
    /// Only read and set, never held over a call.
    sender: Mutex<Option<Sender>>,
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest")
            .field("port", &self.inner.port)
            .finish_non_exhaustive()
    }
}

impl Rest {
    /// Does not connect yet.
    ///
    /// # Errors
    /// When the authority's file is wrong.
    pub fn new(port: u16, authority: &Path, token: &str) -> Result<Self> {
        let identity = quorate_tls::Identity::load(quorate_tls::Options {
            trusted_ca_file: authority.to_owned(),
            ..quorate_tls::Options::default()
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                port,
                identity,
                token: token.to_owned(),
                sender: Mutex::new(None),
            }),
        })
    }

    async fn sender(&self) -> Result<Sender> {
        let known = self.inner.sender.lock().clone();
        if let Some(sender) = known.filter(|sender| !sender.is_closed()) {
            return Ok(sender);
        }
        let socket = quorate_tls::Socket::connect_tcp("127.0.0.1", self.inner.port).await?;
        let stream = self.inner.identity.secure(socket, "127.0.0.1").await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await?;
        // It ends with the last sender; what broke it is told to each call.
        tokio::spawn(connection);
        *self.inner.sender.lock() = Some(sender.clone());
        Ok(sender)
    }

    /// Sends a request and gives back the answer's head, with the body still to come.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn open(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1:{}{path}", self.inner.port))
            .header("accept", JSON)
            .header("authorization", format!("Bearer {}", self.inner.token));
        let mut bytes = Bytes::new();
        if let Some((kind, value)) = body {
            request = request.header("content-type", kind);
            bytes = value.to_string().into();
        }
        let mut sender = self.sender().await?;
        Ok(sender.send_request(request.body(Full::new(bytes))?).await?)
    }

    /// One call, not repeated.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Answer> {
        let call = async {
            let response = self.open(method, path, body).await?;
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await?.to_bytes();
            let body = serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes)));
            Ok(Answer { status, body })
        };
        let answer = tokio::time::timeout(CALL_DEADLINE, call).await;
        answer.with_context(|| format!("{method} {path} hangs"))?
    }

    /// Repeats a call until the answer is sure. The second value tells whether it was repeated, so
    /// that an earlier try may have been carried out.
    ///
    /// # Errors
    /// When no sure answer comes in time.
    pub async fn settled(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<(Answer, bool)> {
        let what = format!("a sure answer to {method} {path}");
        let patience = Patience::new(&what, SETTLE_DEADLINE);
        let mut repeated = false;
        loop {
            let answer = self.raw(method, path, body).await?;
            if !answer.is_unsure() {
                return Ok((answer, repeated));
            }
            repeated = true;
            let unsure = || format!("it says {answer:?}");
            patience.pause().await.with_context(unsure)?;
        }
    }

    /// Reads an object or a list.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let (answer, _) = self.settled("GET", path, None).await?;
        answer.ok().with_context(|| path.to_owned())
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn exists(&self, path: &str) -> Result<bool> {
        let (answer, _) = self.settled("GET", path, None).await?;
        match answer.status {
            404 => Ok(false),
            _ => answer.ok().map(|_| true),
        }
    }

    /// Creates an object in a collection. Gives back the object.
    ///
    /// # Errors
    /// When the server refuses, also because there is one already.
    pub async fn create(&self, collection: &str, object: &Value) -> Result<Value> {
        let body = Some((JSON, object));
        let (answer, repeated) = self.settled("POST", collection, body).await?;
        if repeated && answer.reason() == "AlreadyExists" {
            let name = object["metadata"]["name"].as_str().context("a name")?;
            return self.get(&format!("{collection}/{name}")).await;
        }
        answer.ok().with_context(|| collection.to_owned())
    }

    /// Replaces an object, once: it says at which resourceVersion.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Answer> {
        self.raw("PUT", path, Some((JSON, object))).await
    }

    /// Changes fields of an object, whatever it was before.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        let body = Some((MERGE_PATCH, patch));
        let (answer, _) = self.settled("PATCH", path, body).await?;
        answer.ok().with_context(|| path.to_owned())
    }

    /// Server-side apply. `path` names the field manager.
    ///
    /// # Errors
    /// When no sure answer comes.
    pub async fn apply(&self, path: &str, object: &Value) -> Result<Answer> {
        let body = Some((APPLY_PATCH, object));
        Ok(self.settled("PATCH", path, body).await?.0)
    }

    /// Deletes an object or a collection.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self.settled("DELETE", path, None).await? {
            (answer, true) if answer.status == 404 => Ok(()),
            (answer, _) => answer.ok().map(|_| ()).with_context(|| path.to_owned()),
        }
    }

    /// Waits until a path says what is wanted. Gives back what it said.
    ///
    /// # Errors
    /// When it does not in time, with what it said last.
    pub async fn until(
        &self,
        what: &str,
        path: &str,
        wanted: impl Fn(&Answer) -> bool,
    ) -> Result<Value> {
        let mut last = None;
        let waited = wait::until(what, SETTLE_DEADLINE, async || {
            let answer = self.raw("GET", path, None).await?;
            let is_wanted = wanted(&answer);
            last = Some(answer.clone());
            Ok(is_wanted.then_some(answer.body))
        });
        match waited.await {
            Ok(body) => Ok(body),
            Err(error) => bail!("{error}; {path} says {last:?}"),
        }
    }
}
