//! Generated clients with short time limits, and the few calls that every test makes.

use anyhow::{Context, Result};
use quorate_proto::etcdserverpb as pb;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

pub use pb::cluster_client::ClusterClient;
pub use pb::kv_client::KvClient;
pub use pb::lease_client::LeaseClient;
pub use pb::maintenance_client::MaintenanceClient;
pub use pb::watch_client::WatchClient;

/// The largest answer that these clients take.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// A channel to one client port, connected when it is first used.
///
/// # Errors
/// When the address is no URI.
pub fn channel(port: u16, timeout: Duration) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
        .connect_timeout(Duration::from_secs(1))
        .timeout(timeout)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// A channel without a limit on the time of a call: for streams.
///
/// # Errors
/// When the address is no URI.
pub fn stream_channel(port: u16) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}

/// A KV client that takes answers of any size.
pub fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// A Watch client that takes answers of any size.
pub fn watch(channel: Channel) -> WatchClient<Channel> {
    WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// What one member says of itself.
///
/// # Errors
/// When the member does not answer within a second.
pub async fn status(port: u16) -> Result<pb::StatusResponse> {
    let mut client = MaintenanceClient::new(channel(port, Duration::from_secs(1))?);
    let answer = client.status(pb::StatusRequest {}).await?;
    Ok(answer.into_inner())
}

/// Whether a linearizable read works at one member right now.
///
/// # Errors
/// When it does not within a second.
pub async fn linearizable_read(port: u16) -> Result<i64> {
    let mut client = kv(channel(port, Duration::from_secs(1))?);
    let request = pb::RangeRequest {
        key: "readiness".into(),
        ..Default::default()
    };
    let answer = client.range(request).await?.into_inner();
    Ok(answer.header.context("an answer has a header")?.revision)
}
