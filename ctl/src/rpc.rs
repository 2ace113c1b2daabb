//! Calls to the server as etcdctl makes them: how long they wait, what is tried again, what is
//! said when they fail.

use crate::log::{Field, Level, write_log};
use crate::refusals;
use prost::Message;
use quorate_client::{Client, Error as ClientError};
use std::fmt;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Response, Status};

/// Between two tries of a call, as in etcd's client (client/v3/options.go).
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// How often a read is tried when the server says it is unavailable.
const READ_TRIES_MAX: u64 = 100;

/// Whether a call may be made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing.
    Read,
    /// It may change something: tried again only when it certainly was not sent.
    Write,
}

/// A call that failed; its text is what etcdctl shows.
#[derive(Debug)]
pub struct RpcError {
    code: Code,
    text: String,
    known: bool,
}

impl RpcError {
    /// Our own deadline passed.
    pub fn deadline_exceeded() -> Self {
        Self {
            code: Code::DeadlineExceeded,
            text: "context deadline exceeded".into(),
            known: true,
        }
    }

    /// What the server or the connection said.
    pub fn from_status(status: &Status) -> Self {
        let text = status.message();
        if let Some((found, limit)) = too_large(text) {
            let text = format!("grpc: received message larger than max ({found} vs. {limit})");
            return Self::exhausted(text);
        }
        Self {
            code: status.code(),
            text: text.into(),
            known: refusals::is_known(text),
        }
    }

    fn exhausted(text: String) -> Self {
        Self {
            code: Code::ResourceExhausted,
            text,
            known: false,
        }
    }

    /// What was said, without gRPC's frame around it.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for RpcError {
    /// etcd's known refusals alone, others in gRPC's frame (api/v3rpc/rpctypes/error.go).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known {
            return f.write_str(&self.text);
        }
        f.write_str(&framed(self.code, &self.text))
    }
}

/// The size and the limit out of tonic's complaint about an answer.
fn too_large(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    Some((found, rest.strip_suffix(" bytes")?))
}

/// gRPC's way of writing a status.
fn framed(code: Code, text: &str) -> String {
    let code = match code {
        Code::Cancelled => "Canceled".into(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {text}")
}

/// A client with what every call needs.
#[derive(Debug, Clone)]
pub struct Rpc {
    client: Client,
    logger: &'static str,
    token: Option<MetadataValue<Ascii>>,
}

impl Rpc {
    /// A client whose log lines carry the name `logger`.
    pub fn new(client: Client, logger: &'static str) -> Self {
        Self {
            client,
            logger,
            token: None,
        }
    }

    /// The same client, every call with this token.
    ///
    /// # Errors
    /// When the token cannot stand in a header.
    pub fn with_token(mut self, token: &str) -> Result<Self, String> {
        let token = token
            .parse()
            .map_err(|_| "the token cannot stand in a header".to_owned())?;
        self.token = Some(token);
        Ok(self)
    }

    /// The generated clients.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The endpoints as they were given.
    pub fn endpoints(&self) -> &[String] {
        &self.client.config().endpoints
    }

    /// A message as a request.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// Makes a call, again and again as long as it cannot be sent, until `deadline`.
    ///
    /// Every failure that comes from a server is logged as etcdctl logs it.
    ///
    /// # Errors
    /// What the server said, or that the deadline passed.
    pub async fn call<Q, A, F>(
        &self,
        effect: Effect,
        method: &str,
        deadline: Option<Instant>,
        message: Q,
        call: F,
    ) -> Result<A, RpcError>
    where
        Q: Clone + Message,
        F: AsyncFn(Client, Request<Q>) -> Result<Response<A>, Status>,
    {
        let (size, limit) = (
            message.encoded_len(),
            self.client.config().max_request_bytes,
        );
        if size > limit {
            let text = format!("trying to send message larger than max ({size} vs. {limit})");
            let error = RpcError::exhausted(text);
            self.log(method, 0, &error.to_string());
            return Err(error);
        }
        let mut trouble = Trouble::default();
        let tries = self.tries(effect, method, message, call, &mut trouble);
        let Some(deadline) = deadline else {
            return tries.await;
        };
        match timeout_at(deadline, tries).await {
            Ok(result) => result,
            Err(_) => {
                let text = match trouble.last {
                    Some(text) => format!("latest balancer error: {text}"),
                    None => "context deadline exceeded".into(),
                };
                self.log(
                    method,
                    trouble.tries,
                    &framed(Code::DeadlineExceeded, &text),
                );
                Err(RpcError::deadline_exceeded())
            }
        }
    }

    async fn tries<Q, A, F>(
        &self,
        effect: Effect,
        method: &str,
        message: Q,
        call: F,
        trouble: &mut Trouble,
    ) -> Result<A, RpcError>
    where
        Q: Clone,
        F: AsyncFn(Client, Request<Q>) -> Result<Response<A>, Status>,
    {
        loop {
            let request = self.request(message.clone());
            let status = match call(self.client.clone(), request).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            if let ClientError::Unreachable { text } = ClientError::of_write(status.clone()) {
                trouble.last = Some(text);
                sleep(RETRY_PAUSE).await;
                continue;
            }
            let error = RpcError::from_status(&status);
            self.log(method, trouble.tries, &framed(error.code, &error.text));
            trouble.tries += 1;
            let passes = effect == Effect::Read && error.code == Code::Unavailable;
            if !passes || trouble.tries >= READ_TRIES_MAX {
                return Err(error);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    fn log(&self, method: &str, attempt: u64, error: &str) {
        let target = format!("etcd-endpoints:///{}", self.endpoints().join(","));
        let fields = [
            ("target", Field::Text(&target)),
            ("method", Field::Text(method)),
            ("attempt", Field::Number(attempt)),
            ("error", Field::Text(error)),
        ];
        let message = "retrying of unary invoker failed";
        write_log(Level::Warn, Some(self.logger), message, &fields);
    }
}

/// What went wrong so far.
#[derive(Debug, Default)]
struct Trouble {
    tries: u64,
    last: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_grpc_go_words() {
        let text = "Error, decoded message length too large: found 9 bytes, the limit is: 5 bytes";
        assert_eq!(
            RpcError::from_status(&Status::out_of_range(text)).to_string(),
            "rpc error: code = ResourceExhausted desc = \
             grpc: received message larger than max (9 vs. 5)"
        );
    }

    #[test]
    fn known_refusals_stand_alone() {
        let known = Status::out_of_range("etcdserver: mvcc: required revision has been compacted");
        assert_eq!(RpcError::from_status(&known).to_string(), known.message());
        let other = Status::unknown("etcdserver: something else");
        assert_eq!(
            RpcError::from_status(&other).to_string(),
            "rpc error: code = Unknown desc = etcdserver: something else"
        );
        let gone = Status::cancelled("x");
        let text = RpcError::from_status(&gone).to_string();
        assert_eq!(text, "rpc error: code = Canceled desc = x");
    }
}
