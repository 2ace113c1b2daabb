//! Load on a cluster through its Service, and the verdict on what it saw.

use super::lab::DEADLINE;
use super::space::Space;
use crate::check;
use crate::history::{History, MemberHash};
use crate::rpc::{self, MaintenanceClient};
use crate::traffic::{CALL_TIMEOUT, Traffic};
use crate::wait;
use crate::watcher::full_log_over;
use anyhow::{Context, Result, ensure};
use quorate_proto::etcdserverpb as pb;
use quorate_tls::Identity;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Clients that write and read at the same time.
const CLIENTS: usize = 6;

/// Calls that must be acknowledged before a test goes on.
const SOME: usize = 60;

/// Clients at work on one cluster.
#[derive(Debug)]
pub struct Load<'s> {
    space: &'s Space<'s>,
    cluster: String,
    identity: Option<Arc<Identity>>,
    history: Arc<History>,
    traffic: Traffic,
}

impl<'s> Load<'s> {
    /// Starts it, and waits until calls are acknowledged.
    ///
    /// # Errors
    /// When none is.
    pub async fn start(space: &'s Space<'s>, cluster: &str) -> Result<Self> {
        let identity = space.identity(cluster).await?;
        let service = space.service(cluster);
        let channel = |_| service.channel(identity.as_ref(), Some(CALL_TIMEOUT));
        let channels = (0..CLIENTS).map(channel).collect::<Result<_>>()?;
        let history = Arc::new(History::default());
        let load = Self {
            space,
            cluster: cluster.to_owned(),
            identity,
            traffic: Traffic::over(&history, channels, cluster, 1),
            history,
        };
        load.more().await?;
        Ok(load)
    }

    /// Waits until more calls are acknowledged than now.
    ///
    /// # Errors
    /// When there are no more.
    pub async fn more(&self) -> Result<()> {
        let target = self.history.acknowledged() + SOME;
        wait::until("acknowledged calls", DEADLINE, async || {
            Ok((self.history.acknowledged() >= target).then_some(()))
        })
        .await
    }

    /// Ends the load and judges it: all calls against the log, and all members against each other.
    ///
    /// # Errors
    /// When any promise was broken; the message names the first ones.
    pub async fn finish(self) -> Result<()> {
        self.more().await?;
        self.traffic.stop().await?;
        let service = self.space.service(&self.cluster);
        let members = service.endpoints();
        ensure!(!members.is_empty(), "no member is ready");
        let mut revision = 0;
        let channel = |address: Ipv4Addr, timeout: u64| {
            let timeout = (timeout > 0).then(|| Duration::from_secs(timeout));
            service.member(address, self.identity.as_ref(), timeout)
        };
        for address in &members {
            let read = pb::RangeRequest {
                key: "x".into(),
                ..Default::default()
            };
            let answer = wait::until("a linearizable read", DEADLINE, async || {
                let mut kv = rpc::kv(channel(*address, 2)?);
                Ok(kv.range(read.clone()).await.ok())
            });
            let header = answer.await?.into_inner().header.context("a header")?;
            revision = revision.max(header.revision);
        }
        let mut logs = Vec::new();
        let mut hashes = Vec::new();
        for address in &members {
            logs.push(full_log_over(channel(*address, 0)?, revision).await?);
            let request = pb::HashKvRequest { revision };
            let mut client = MaintenanceClient::new(channel(*address, 10)?);
            let answer = client.hash_kv(request).await?.into_inner();
            hashes.push(MemberHash::of(&address.to_string(), &answer));
        }
        ensure!(
            logs.iter().all(|log| *log == logs[0]),
            "the members' logs differ"
        );
        check::calls(&self.history.records(), &logs[0]).into_result()?;
        check::hashes(&hashes).into_result()?;
        eprintln!(
            "{}/{}: {} calls, {} acknowledged, revision {revision}, {} members agree",
            self.space.name,
            self.cluster,
            self.history.records().len(),
            self.history.acknowledged(),
            members.len()
        );
        Ok(())
    }
}
