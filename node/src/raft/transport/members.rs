//! Asks a cluster who its members are, before this one knows its own ID.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate_proto::quorate::peer::MembersRequest;
use quorate_proto::quorate::peer::peer_client::PeerClient;
use quorate_tls::Dialer;

use super::grpc::{connector, endpoint};
use crate::model::member::Member;

/// How long one member may take to be connected to.
const ASK_CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// A cluster as one of its members knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteCluster {
    pub id: u64,
    pub members: Vec<Member>,
}

impl RemoteCluster {
    /// Asks the members at `peer_urls`, all at once, until one answers with members; none when
    /// nobody does within `limit`.
    pub async fn ask(
        dialer: &Dialer,
        peer_urls: &[String],
        linearizable: bool,
        limit: Duration,
    ) -> Option<Self> {
        let mut asked: FuturesUnordered<_> = peer_urls
            .iter()
            .map(|url| async move { (url, ask_one(dialer, url, linearizable).await) })
            .collect();
        let answered = async {
            while let Some((url, answer)) = asked.next().await {
                match answer {
                    Ok(cluster) if !cluster.members.is_empty() => return Some(cluster),
                    Ok(_) => tracing::debug!(url, "a peer knows no members yet"),
                    Err(error) => tracing::debug!(url, error, "failed to get cluster response"),
                }
            }
            None
        };
        tokio::time::timeout(limit, answered).await.unwrap_or(None)
    }
}

async fn ask_one(dialer: &Dialer, url: &str, linearizable: bool) -> Result<RemoteCluster, String> {
    let endpoint = endpoint(url)?.connect_timeout(ASK_CONNECT_LIMIT);
    let channel = endpoint
        .connect_with_connector(connector(dialer.clone(), url, false))
        .await;
    let mut client = PeerClient::new(channel.map_err(|error| error.to_string())?);
    let answer = client.members(MembersRequest { linearizable }).await;
    let answer = answer.map_err(|status| status.message().to_owned())?;
    let answer = answer.into_inner();
    Ok(RemoteCluster {
        id: answer.cluster_id,
        members: answer.members.into_iter().map(Member::from).collect(),
    })
}
