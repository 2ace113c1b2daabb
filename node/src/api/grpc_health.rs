//! gRPC's health service, as etcd serves it: the name "" alone, in grpc-go's words.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Says that this server serves for as long as it runs.
#[derive(Debug, Clone, Copy)]
pub struct GrpcHealth;

fn serving(service: &str) -> Option<HealthCheckResponse> {
    service.is_empty().then(|| HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    })
}

#[tonic::async_trait]
impl Health for GrpcHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        serving(&request.get_ref().service)
            .map(Response::new)
            .ok_or_else(|| Status::not_found("unknown service"))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    /// One answer, which stays true: the stream goes on until the client has enough.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let answer = serving(&request.get_ref().service).unwrap_or(HealthCheckResponse {
            status: ServingStatus::ServiceUnknown.into(),
        });
        let answers = stream::once(std::future::ready(Ok(answer))).chain(stream::pending());
        Ok(Response::new(answers.boxed()))
    }
}
