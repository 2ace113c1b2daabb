//! Calls to one sidecar: HTTPS with both sides' certificates, one connection a call.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use quorate_client::TlsConfig;
use quorate_sidecar::wire::{
    BackupRequest, BackupState, DeleteRequest, PORT, Problem, VerifyRequest, VerifyState,
};
use quorate_tls::{Identity, Options, Socket};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long one call may take. What lasts longer is begun by one call and asked after by others.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why a sidecar's answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// It does not answer, or speaks nonsense: nothing is known of what it did.
    #[error("the sidecar of {member} does not answer: {reason}")]
    Unreachable {
        /// The member.
        member: String,
        /// What was seen.
        reason: String,
    },
    /// It refuses.
    #[error("the sidecar of {member} refuses: {}", problem.message)]
    Refused {
        /// The member.
        member: String,
        /// The HTTP status.
        status: StatusCode,
        /// Why.
        problem: Problem,
    },
}

/// One member's sidecar.
#[derive(Debug, Clone)]
pub struct Sidecar {
    /// The member's name.
    pub member: String,
    /// Its Pod's address.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
    /// The operator's identity.
    pub tls: TlsConfig,
}

impl Sidecar {
    /// Begins a backup; the same name again is the same backup.
    ///
    /// # Errors
    /// The sidecar refuses, or does not answer.
    pub async fn begin_backup(&self, request: &BackupRequest) -> Result<BackupState, SidecarError> {
        self.call(Method::POST, "/v1/backups", Some(request)).await
    }

    /// How far a backup is; None when the sidecar does not know it (any more).
    ///
    /// # Errors
    /// The sidecar refuses, or does not answer.
    pub async fn backup(&self, name: &str) -> Result<Option<BackupState>, SidecarError> {
        self.find(&format!("/v1/backups/{name}")).await
    }

    /// Stops a backup and removes what it uploaded.
    ///
    /// # Errors
    /// The sidecar refuses, or does not answer.
    pub async fn cancel_backup(&self, name: &str) -> Result<(), SidecarError> {
        let path = format!("/v1/backups/{name}");
        match self.send(Method::DELETE, &path, None::<&()>).await {
            Err(SidecarError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(()),
            other => other.map(drop),
        }
    }

    /// Begins a verification; the same name again is the same verification.
    ///
    /// # Errors
    /// The sidecar refuses, or does not answer.
    pub async fn begin_verification(
        &self,
        request: &VerifyRequest,
    ) -> Result<VerifyState, SidecarError> {
        self.call(Method::POST, "/v1/verifications", Some(request))
            .await
    }

    /// How far a verification is; None when the sidecar does not know it (any more).
    ///
    /// # Errors
    /// The sidecar refuses, or does not answer.
    pub async fn verification(&self, name: &str) -> Result<Option<VerifyState>, SidecarError> {
        self.find(&format!("/v1/verifications/{name}")).await
    }

    /// Deletes a stored backup, its manifest first.
    ///
    /// # Errors
    /// The sidecar refuses, or does not answer.
    pub async fn delete(&self, request: &DeleteRequest) -> Result<(), SidecarError> {
        self.send(Method::POST, "/v1/deletions", Some(request))
            .await
            .map(drop)
    }

    async fn find<A: DeserializeOwned>(&self, path: &str) -> Result<Option<A>, SidecarError> {
        match self.call(Method::GET, path, None::<&()>).await {
            Ok(answer) => Ok(Some(answer)),
            Err(SidecarError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Q>,
    ) -> Result<A, SidecarError> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| self.unreachable(&error))
    }

    async fn send<Q: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Q>,
    ) -> Result<Bytes, SidecarError> {
        let exchange = self.exchange(method, path, body);
        match tokio::time::timeout(CALL_TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(&format!("no answer within {CALL_TIMEOUT:?}"))),
        }
    }

    async fn exchange<Q: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Q>,
    ) -> Result<Bytes, SidecarError> {
        let lost = |error: &dyn std::fmt::Display| self.unreachable(error);
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| lost(&error))?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, &self.server_name)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| lost(&error))?;
        let identity = Identity::load(self.options()).map_err(|error| lost(&error))?;
        let socket = Socket::connect_tcp(&self.address, PORT)
            .await
            .map_err(|error| lost(&error))?;
        let stream = identity
            .secure(socket, &self.server_name)
            .await
            .map_err(|error| lost(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost(&error))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            Ok::<_, hyper::Error>((status, body))
        };
        // The connection is driven until the answer is there, and ends with it.
        let (status, body) = tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| lost(&error))?,
            ended = connection => {
                let reason = ended.err().map_or("it hung up".to_owned(), |error| error.to_string());
                return Err(lost(&reason));
            }
        };
        let body = body.map_err(|error| lost(&error))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            reason: "Internal".to_owned(),
            message: format!("{status}: {}", String::from_utf8_lossy(&body)),
        });
        Err(SidecarError::Refused {
            member: self.member.clone(),
            status,
            problem,
        })
    }

    fn options(&self) -> Options {
        let path = |path: &Option<std::path::PathBuf>| path.clone().unwrap_or_default();
        Options {
            cert_file: path(&self.tls.cert_file),
            key_file: path(&self.tls.key_file),
            trusted_ca_file: path(&self.tls.trusted_ca_file),
            calls_http1: true,
            ..Options::default()
        }
    }

    fn unreachable(&self, reason: &dyn std::fmt::Display) -> SidecarError {
        SidecarError::Unreachable {
            member: self.member.clone(),
            reason: reason.to_string(),
        }
    }
}
