//! Calls to one member. Each has a deadline of its own: a member that is silent costs no more.

use std::time::Duration;

use quorate_client::proto::etcdserverpb as pb;
use quorate_client::{Client, ClientConfig, Error, TlsConfig};

use crate::model::{AlarmKind, Listed, ListedMember, Voice};

/// How long one question may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a change of members, or making space, may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a defragmentation may take.
const DEFRAGMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// Where a member is reached.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The member's name.
    pub name: String,
    /// Its Pod's address.
    pub address: String,
    /// The name in its certificate: `<member>.<cluster>-peer.<namespace>.svc`.
    pub server_name: String,
    /// How to speak TLS; None: plain.
    pub tls: Option<TlsConfig>,
}

/// A member that is spoken to.
#[derive(Debug, Clone)]
pub struct Door {
    /// The member's name.
    pub name: String,
    client: Client,
    reach: Reach,
}

impl Door {
    /// Begins to connect.
    ///
    /// # Errors
    /// The certificates cannot be used, or the address is none.
    pub fn open(reach: Reach) -> Result<Self, Error> {
        let name = reach.name.clone();
        let client = Client::connect_lazy(configuration(reach.clone(), CHANGE_TIMEOUT))?;
        Ok(Self {
            name,
            client,
            reach,
        })
    }

    /// What the member says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn voice(&self) -> Result<Voice, Error> {
        let call = async |client: Client, request| client.maintenance().status(request).await;
        let status = self
            .ask(self.client.read(pb::StatusRequest {}, call))
            .await?;
        let header = status.header.unwrap_or_default();
        Ok(Voice {
            cluster_id: header.cluster_id,
            id: header.member_id,
            leader: status.leader,
            raft_index: status.raft_index,
            applied_index: status.raft_applied_index,
            learner: status.is_learner,
            db_size_bytes: status.db_size,
            version: status.version,
            errors: status.errors,
        })
    }

    /// The members, linearizably, named by the first label of their peer URLs.
    ///
    /// # Errors
    /// No quorum answers.
    pub async fn list(&self) -> Result<Listed, Error> {
        let request = pb::MemberListRequest { linearizable: true };
        let call = async |client: Client, request| client.cluster().member_list(request).await;
        let answer = self.ask(self.client.read(request, call)).await?;
        let listed = |member: pb::Member| ListedMember {
            id: member.id,
            name: host_label(&member),
            learner: member.is_learner,
        };
        Ok(Listed {
            cluster_id: answer.header.unwrap_or_default().cluster_id,
            members: answer.members.into_iter().map(listed).collect(),
        })
    }

    /// The alarms that are raised.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn alarms(&self) -> Result<Vec<(u64, AlarmKind)>, Error> {
        let request = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Get.into(),
            ..pb::AlarmRequest::default()
        };
        let call = async |client: Client, request| client.maintenance().alarm(request).await;
        let answer = self.ask(self.client.read(request, call)).await?;
        let kind = |alarm: pb::AlarmMember| match alarm.alarm() {
            pb::AlarmType::Nospace => Some((alarm.member_id, AlarmKind::NoSpace)),
            pb::AlarmType::Corrupt => Some((alarm.member_id, AlarmKind::Corrupt)),
            pb::AlarmType::None => None,
        };
        Ok(answer.alarms.into_iter().filter_map(kind).collect())
    }

    /// Adds a learner and answers its ID and the members, the new one among them.
    ///
    /// # Errors
    /// The cluster refuses, or the outcome is unknown.
    pub async fn add_learner(&self, peer_url: &str) -> Result<(u64, Vec<pb::Member>), Error> {
        let request = pb::MemberAddRequest {
            peer_ur_ls: vec![peer_url.to_owned()],
            is_learner: true,
        };
        let call = async |client: Client, request| client.cluster().member_add(request).await;
        let answer = self.client.write(request, call).await?;
        Ok((answer.member.unwrap_or_default().id, answer.members))
    }

    /// The members as messages, linearizably.
    ///
    /// # Errors
    /// No quorum answers.
    pub async fn members(&self) -> Result<Vec<pb::Member>, Error> {
        let request = pb::MemberListRequest { linearizable: true };
        let call = async |client: Client, request| client.cluster().member_list(request).await;
        Ok(self.ask(self.client.read(request, call)).await?.members)
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// The cluster refuses (the learner has not caught up), or the outcome is unknown.
    pub async fn promote(&self, id: u64) -> Result<(), Error> {
        let request = pb::MemberPromoteRequest { id };
        let call = async |client: Client, request| client.cluster().member_promote(request).await;
        self.client.write(request, call).await.map(drop)
    }

    /// Removes a member.
    ///
    /// # Errors
    /// The cluster refuses, or the outcome is unknown.
    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        let request = pb::MemberRemoveRequest { id };
        let call = async |client: Client, request| client.cluster().member_remove(request).await;
        self.client.write(request, call).await.map(drop)
    }

    /// Hands leadership over; to be asked of the leader.
    ///
    /// # Errors
    /// This member does not lead, or the other did not take over in time.
    pub async fn move_leader(&self, to: u64) -> Result<(), Error> {
        let request = pb::MoveLeaderRequest { target_id: to };
        let call = async |client: Client, request| client.maintenance().move_leader(request).await;
        self.client.write(request, call).await.map(drop)
    }

    /// Compacts to the current revision.
    ///
    /// # Errors
    /// The member does not answer, or refuses.
    pub async fn compact(&self) -> Result<(), Error> {
        let answer = self
            .ask(async { self.client.get("a").count_only().await })
            .await?;
        let request = pb::CompactionRequest {
            revision: answer.header.unwrap_or_default().revision,
            physical: true,
        };
        let call = async |client: Client, request| client.kv().compact(request).await;
        match self.client.write(request, call).await {
            Err(Error::Refused { text, .. }) if text.contains("has been compacted") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Defragments this member.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn defragment(&self) -> Result<(), Error> {
        let client = Client::connect_lazy(configuration(self.reach.clone(), DEFRAGMENT_TIMEOUT))?;
        let call = async |client: Client, request| client.maintenance().defragment(request).await;
        let request = pb::DefragmentRequest {};
        client.write(request, call).await.map(drop)
    }

    /// Disarms the alarm about space of a member.
    ///
    /// # Errors
    /// The member does not answer.
    pub async fn disarm_no_space(&self, member_id: u64) -> Result<(), Error> {
        let request = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Deactivate.into(),
            member_id,
            alarm: pb::AlarmType::Nospace.into(),
        };
        let call = async |client: Client, request| client.maintenance().alarm(request).await;
        self.client.write(request, call).await.map(drop)
    }

    /// A question, with the time that one may take.
    async fn ask<A>(&self, answer: impl Future<Output = Result<A, Error>>) -> Result<A, Error> {
        match tokio::time::timeout(CALL_TIMEOUT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Unreachable {
                text: format!("{} did not answer within {CALL_TIMEOUT:?}", self.name),
            }),
        }
    }
}

/// The name of a member, out of its peer URL: that of its Pod, whether or not it ever started.
pub fn host_label(member: &pb::Member) -> String {
    let first = member.peer_ur_ls.first().map_or("", String::as_str);
    let host = first.split_once("://").map_or(first, |(_, rest)| rest);
    let label = host.split(['.', ':', '/']).next().unwrap_or_default();
    label.to_owned()
}

fn configuration(reach: Reach, limit: Duration) -> ClientConfig {
    let scheme = if reach.tls.is_some() { "https" } else { "http" };
    let host = match reach.address.contains(':') {
        true => format!("[{}]", reach.address),
        false => reach.address.clone(),
    };
    ClientConfig {
        endpoints: vec![format!("{scheme}://{host}:{}", super::CLIENT_PORT)],
        dial_timeout: CALL_TIMEOUT,
        request_timeout: limit,
        tls: reach.tls,
        ..ClientConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_named_by_its_peer_url() {
        let named = |url: &str| {
            host_label(&pb::Member {
                peer_ur_ls: vec![url.to_owned()],
                ..pb::Member::default()
            })
        };
        assert_eq!(named("https://db-x1.db-peer.ns.svc:2380"), "db-x1");
        assert_eq!(named("http://db-x1:2380"), "db-x1");
        assert_eq!(host_label(&pb::Member::default()), "");
    }
}
