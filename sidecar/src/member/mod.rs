//! Calls to members: the own one over loopback, and the others by their client URLs.

pub mod handoff;
pub mod snapshot;

use std::time::Duration;

use quorate_client::proto::etcdserverpb as pb;
use quorate_client::{Client, ClientConfig, Error, TlsConfig};

use crate::failure::{Failure, Reason};

const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How members are reached.
#[derive(Debug, Clone)]
pub struct Members {
    /// The own member's client URL.
    pub own: String,
    pub tls: Option<TlsConfig>,
}

impl Members {
    /// A client of the own member.
    ///
    /// # Errors
    /// A URL or a file of certificates is wrong.
    pub fn own(&self) -> Result<Client, Failure> {
        self.at(&self.own)
    }

    /// A client of the member at `url`.
    ///
    /// # Errors
    /// As [`Members::own`].
    pub fn at(&self, url: &str) -> Result<Client, Failure> {
        let config = ClientConfig {
            tls: self.tls.clone(),
            dial_timeout: DIAL_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            ..ClientConfig::new([url])
        };
        Client::connect_lazy(config).map_err(unavailable)
    }
}

/// What one member says of itself.
///
/// # Errors
/// It does not answer.
pub async fn status(client: &Client) -> Result<pb::StatusResponse, Failure> {
    let request = pb::StatusRequest {};
    let status = client.read(request, async |client, request| {
        client.maintenance().status(request).await
    });
    status.await.map_err(unavailable)
}

/// The members, as the one that is asked knows them, or as the cluster does.
///
/// # Errors
/// It does not answer.
pub async fn list(client: &Client, linearizable: bool) -> Result<pb::MemberListResponse, Failure> {
    let request = pb::MemberListRequest { linearizable };
    let members = client.read(request, async |client, request| {
        client.cluster().member_list(request).await
    });
    members.await.map_err(unavailable)
}

/// A call that failed, as [`Reason::MemberUnavailable`].
pub fn unavailable(error: Error) -> Failure {
    Failure::new(Reason::MemberUnavailable, format!("the member: {error}"))
}

/// A raw call that failed.
pub fn unavailable_status(status: &tonic::Status) -> Failure {
    let text = format!("the member: {}", status.message());
    Failure::new(Reason::MemberUnavailable, text)
}
