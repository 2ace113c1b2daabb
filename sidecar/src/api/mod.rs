//! The operator's requests over HTTP: parses, refuses, renders, keeps no state.

pub mod listen;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use quorate_sidecar::wire::{
    BackupState, HandoffRequest, MemberReport, Phase, Problem, VerifyState,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backup::{self, Taking};
use crate::failure::{Failure, Reason};
use crate::member::handoff::hand_off;
use crate::tasks::Tasks;
use crate::verify::{self, Proving};

const BODY_BYTES_MAX: usize = 256 * 1024;
const HANDOFF_LIMIT: Duration = Duration::from_secs(10);
/// Callers wait for 15 s. What takes longer is asked for again.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);
const HEALTH_LIMIT: Duration = Duration::from_secs(3);

/// What the doors need.
pub struct Sidecar {
    pub taking: Arc<Taking>,
    pub proving: Arc<Proving>,
    pub backups: Tasks<BackupState>,
    pub verifications: Tasks<VerifyState>,
    /// Where the member tells over plain HTTP whether it lives.
    pub health_url: String,
    pub http: reqwest::Client,
}

type Shared = State<Arc<Sidecar>>;
type Answer = Result<Response, Refused>;

/// The whole API.
pub fn router(sidecar: Arc<Sidecar>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/handoff", post(handoff))
        .route("/v1/backups", post(begin_backup))
        .route("/v1/backups/{name}", get(get_backup).delete(cancel_backup))
        .route("/v1/verifications", post(begin_verification))
        .route("/v1/verifications/{name}", get(get_verification))
        .route("/v1/deletions", post(delete))
        .merge(open_routes())
        .fallback(async || Refused(Failure::new(Reason::NotFound, "there is no such path")))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(sidecar)
}

/// What may be asked without a certificate.
pub fn open_router(sidecar: Arc<Sidecar>) -> Router {
    open_routes().with_state(sidecar)
}

fn open_routes() -> Router<Arc<Sidecar>> {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
}

/// A failure as an answer.
struct Refused(Failure);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.0.status();
        json(status, &Problem::from(self.0))
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Plain data: there is nothing in it that has no JSON.
    let text = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn empty() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let text = format!("the body is not the JSON that is asked for: {error}");
        Failure::new(Reason::BadRequest, text)
    })
}

async fn status(State(sidecar): Shared) -> Answer {
    let disk = sidecar.taking.metrics.disk()?;
    let url = format!("{}/livez", sidecar.health_url.trim_end_matches('/'));
    let asked = sidecar.http.get(url).timeout(HEALTH_LIMIT).send().await;
    let serving = asked.is_ok_and(|answer| answer.status().is_success());
    sidecar.taking.metrics.set_serving(serving);
    let report = MemberReport {
        name: sidecar.taking.name.clone(),
        serving,
        disk_bytes: disk.bytes,
        disk_free_bytes: disk.free_bytes,
        sidecar_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Ok(json(StatusCode::OK, &report))
}

async fn handoff(State(sidecar): Shared, body: Bytes) -> Answer {
    let request = match body.is_empty() {
        true => HandoffRequest::default(),
        false => parse(&body)?,
    };
    let leaving: BTreeSet<String> = request.leaving.into_iter().collect();
    let handed = hand_off(&sidecar.taking.members, &leaving, HANDOFF_LIMIT).await?;
    Ok(json(StatusCode::OK, &handed))
}

async fn begin_backup(State(sidecar): Shared, body: Bytes) -> Answer {
    let state = backup::begin(&sidecar.backups, &sidecar.taking, parse(&body)?)?;
    Ok(json(accepted(state.phase), &state))
}

/// 202 as long as it goes on.
fn accepted(phase: Phase) -> StatusCode {
    match phase {
        Phase::Running => StatusCode::ACCEPTED,
        Phase::Succeeded | Phase::Failed => StatusCode::OK,
    }
}

async fn get_backup(State(sidecar): Shared, Path(name): Path<String>) -> Answer {
    Ok(json(StatusCode::OK, &sidecar.backups.get(&name)?))
}

async fn cancel_backup(State(sidecar): Shared, Path(name): Path<String>) -> Answer {
    let cancelled = sidecar.backups.cancel(&name);
    match tokio::time::timeout(ANSWER_LIMIT, cancelled).await {
        Ok(ended) => ended.map(|()| empty()).map_err(Refused),
        Err(_) => {
            let text = format!("{name} is being ended, and its store is slow; ask once more");
            Err(Refused(Failure::new(Reason::Busy, text)))
        }
    }
}

async fn begin_verification(State(sidecar): Shared, body: Bytes) -> Answer {
    let state = verify::begin(&sidecar.verifications, &sidecar.proving, parse(&body)?)?;
    Ok(json(accepted(state.phase), &state))
}

async fn get_verification(State(sidecar): Shared, Path(name): Path<String>) -> Answer {
    Ok(json(StatusCode::OK, &sidecar.verifications.get(&name)?))
}

async fn delete(State(sidecar): Shared, body: Bytes) -> Answer {
    let request = parse(&body)?;
    let deleted = backup::delete(&request, &sidecar.taking.mounts);
    match tokio::time::timeout(ANSWER_LIMIT, deleted).await {
        Ok(deleted) => deleted.map(|()| empty()).map_err(Refused),
        Err(_) => {
            let text = format!("delete {}: no answer within {ANSWER_LIMIT:?}", request.key);
            Err(Refused(Failure::new(Reason::StoreUnreachable, text)))
        }
    }
}

async fn metrics(State(sidecar): Shared) -> Answer {
    let text = sidecar.taking.metrics.exposition()?;
    let mut response = Response::new(Body::from(text));
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(form));
    Ok(response)
}
