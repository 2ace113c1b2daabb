//! This member tells the others its name and client URLs, once after each start that changed them.
//!
//! etcd: server/etcdserver/server.go, `publishV3`.

use std::sync::Arc;
use std::time::Duration;

use crate::model::kv::{Command, MemberAttributes, command};
use crate::replica::Replica;

/// The pause before another attempt.
const RETRY: Duration = Duration::from_millis(10);

pub async fn run(replica: Arc<Replica>) {
    loop {
        if let Err(refusal) = replica.barrier().await {
            tracing::debug!(%refusal, "cannot publish yet");
            tokio::time::sleep(RETRY).await;
            continue;
        }
        match is_published(&replica) {
            Ok(true) => return,
            Ok(false) => {}
            // The members are read anew; a failing disk is noticed by those who write.
            Err(error) => tracing::error!(%error, "cannot read the members"),
        }
        let config = replica.config();
        let attributes = MemberAttributes {
            member_id: replica.member_id(),
            name: config.name.clone(),
            client_urls: config.client_urls.clone(),
        };
        let command = Command {
            kind: Some(command::Kind::MemberAttributes(attributes)),
        };
        // Publishing twice is harmless.
        if let Err(refusal) = replica.propose(command).await {
            tracing::warn!(%refusal, "failed to publish local member to cluster");
            tokio::time::sleep(RETRY).await;
        } else {
            tracing::info!(name = config.name, "published local member to cluster");
        }
    }
}

/// Whether the members know this member's name and client URLs.
///
/// # Errors
/// When the disk fails.
pub fn is_published(replica: &Replica) -> Result<bool, crate::storage::Error> {
    let members = replica.view().members()?;
    let config = replica.config();
    let me = members
        .iter()
        .find(|member| member.id == replica.member_id());
    // One that is no member has nothing to say.
    Ok(me.is_none_or(|me| me.name == config.name && me.client_urls == config.client_urls))
}
