//! The fields format: `"Name" : value`, one a line.

use super::simple::{alarm_name, event_name};
use super::{Answer, header};
use crate::go::quote;
use quorate_proto::authpb::permission::Type as PermissionType;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;
use std::fmt::Display;

/// The text of an answer; nothing when the format does not have it.
pub fn render(answer: Answer<'_>, hex: bool) -> Option<Vec<u8>> {
    let mut out = Fields {
        text: String::new(),
        hex,
    };
    match answer {
        Answer::Get(response) => out.get(response),
        Answer::Put(response) => out.put(response),
        Answer::Delete(response) => out.delete(response),
        Answer::Txn(response) => out.txn(response),
        Answer::Watch(response) => out.watch(response),
        Answer::MemberList(response) => out.members(response),
        Answer::Health(list) => {
            for health in list {
                out.quoted("Endpoint", health.endpoint.as_bytes());
                out.line("Health", health.health);
                out.line("Took", &health.took);
                out.line("Error", &health.error);
                out.blank();
            }
        }
        Answer::Status(list) => {
            for (endpoint, status) in list {
                out.status(endpoint, status);
            }
        }
        Answer::HashKv(list) => {
            for (endpoint, hash) in list {
                out.header(&hash.header);
                out.quoted("Endpoint", endpoint.as_bytes());
                out.line("Hash", hash.hash);
                out.line("HashRevision", hash.hash_revision);
                out.blank();
            }
        }
        Answer::Alarm(response) => {
            out.header(&response.header);
            for alarm in &response.alarms {
                out.id("MemberID", alarm.member_id);
                out.line("AlarmType", alarm_name(alarm.alarm));
                out.blank();
            }
        }
        other => {
            if !out.lease(other) && !out.access(other) {
                return None;
            }
        }
    }
    Some(out.text.into_bytes())
}

struct Fields {
    text: String,
    hex: bool,
}

impl Fields {
    fn line(&mut self, name: &str, value: impl Display) {
        self.text += &format!("\"{name}\" : {value}\n");
    }

    fn quoted(&mut self, name: &str, value: &[u8]) {
        self.line(name, quote(value));
    }

    fn blank(&mut self) {
        self.text.push('\n');
    }

    /// The ID of a cluster or member.
    fn id(&mut self, name: &str, id: u64) {
        if self.hex {
            self.line(name, format_args!("{id:x}"));
        } else {
            self.line(name, id);
        }
    }

    fn lease_id(&mut self, name: &str, id: i64) {
        if self.hex {
            self.line(name, format_args!("{id:016x}"));
        } else {
            self.line(name, id);
        }
    }

    fn header(&mut self, given: &Option<pb::ResponseHeader>) {
        let header = header(given);
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        if header.revision > 0 {
            self.line("Revision", header.revision);
        }
        self.line("RaftTerm", header.raft_term);
    }

    fn pair(&mut self, prefix: &str, pair: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &pair.key);
        self.line(&format!("{prefix}CreateRevision"), pair.create_revision);
        self.line(&format!("{prefix}ModRevision"), pair.mod_revision);
        self.line(&format!("{prefix}Version"), pair.version);
        self.quoted(&format!("{prefix}Value"), &pair.value);
        self.lease_id(&format!("{prefix}Lease"), pair.lease);
    }

    fn get(&mut self, response: &pb::RangeResponse) {
        self.header(&response.header);
        for pair in &response.kvs {
            self.pair("", pair);
        }
        self.line("More", response.more);
        self.line("Count", response.count);
    }

    fn put(&mut self, response: &pb::PutResponse) {
        self.header(&response.header);
        if let Some(pair) = &response.prev_kv {
            self.pair("Prev", pair);
        }
    }

    fn delete(&mut self, response: &pb::DeleteRangeResponse) {
        self.header(&response.header);
        self.line("Deleted", response.deleted);
        for pair in &response.prev_kvs {
            self.pair("Prev", pair);
        }
    }

    fn txn(&mut self, response: &pb::TxnResponse) {
        use pb::response_op::Response;
        self.header(&response.header);
        self.line("Succeeded", response.succeeded);
        for operation in &response.responses {
            match &operation.response {
                Some(Response::ResponseRange(inner)) => self.get(inner),
                Some(Response::ResponsePut(inner)) => self.put(inner),
                Some(Response::ResponseDeleteRange(inner)) => self.delete(inner),
                Some(Response::ResponseTxn(inner)) => self.txn(inner),
                None => self.quoted("Unknown", b"<nil>"),
            }
        }
    }

    fn watch(&mut self, response: &pb::WatchResponse) {
        self.header(&response.header);
        for event in &response.events {
            self.line("Type", event_name(event.r#type));
            if let Some(pair) = &event.prev_kv {
                self.pair("Prev", pair);
            }
            self.pair("", &event.kv.clone().unwrap_or_default());
        }
    }

    /// Writes an answer about a lease; false when it is none.
    fn lease(&mut self, answer: Answer<'_>) -> bool {
        match answer {
            Answer::Grant(response) => {
                self.header(&response.header);
                self.lease_id("ID", response.id);
                self.line("TTL", response.ttl);
            }
            Answer::KeepAlive(response) => {
                self.header(&response.header);
                self.lease_id("ID", response.id);
                self.line("TTL", response.ttl);
            }
            Answer::Revoke(_, response) => self.header(&response.header),
            Answer::TimeToLive(response, _) => {
                self.header(&response.header);
                self.lease_id("ID", response.id);
                self.line("TTL", response.ttl);
                self.line("GrantedTTL", response.granted_ttl);
                for key in &response.keys {
                    self.quoted("Key", key);
                }
            }
            Answer::Leases(response) => {
                self.header(&response.header);
                for lease in &response.leases {
                    self.lease_id("ID", lease.id);
                }
            }
            _ => return false,
        }
        true
    }

    fn members(&mut self, response: &pb::MemberListResponse) {
        self.header(&response.header);
        for member in &response.members {
            self.id("ID", member.id);
            self.quoted("Name", member.name.as_bytes());
            for url in &member.peer_ur_ls {
                self.quoted("PeerURL", url.as_bytes());
            }
            for url in &member.client_ur_ls {
                self.quoted("ClientURL", url.as_bytes());
            }
            self.line("IsLearner", member.is_learner);
            self.blank();
        }
    }

    fn status(&mut self, endpoint: &str, status: &pb::StatusResponse) {
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        self.header(&status.header);
        self.quoted("Version", status.version.as_bytes());
        self.quoted("StorageVersion", status.storage_version.as_bytes());
        self.line("DBSize", status.db_size);
        self.line("DBSizeInUse", status.db_size_in_use);
        self.line("DBSizeQuota", status.db_size_quota);
        self.line("Leader", status.leader);
        self.line("IsLearner", status.is_learner);
        self.line("RaftIndex", status.raft_index);
        self.line("RaftAppliedIndex", status.raft_applied_index);
        self.line("Errors", format_args!("[{}]", status.errors.join(" ")));
        self.quoted("Endpoint", endpoint.as_bytes());
        self.quoted(
            "DowngradeTargetVersion",
            downgrade.target_version.as_bytes(),
        );
        self.line("DowngradeEnabled", downgrade.enabled);
        self.blank();
    }

    /// Writes an answer about users and roles; false when it is none.
    fn access(&mut self, answer: Answer<'_>) -> bool {
        match answer {
            Answer::UserAdd(_, response) => self.header(&response.header),
            Answer::UserDelete(_, response) => self.header(&response.header),
            Answer::UserPassword(response) => self.header(&response.header),
            Answer::UserGrantRole(_, _, response) => self.header(&response.header),
            Answer::UserRevokeRole(_, _, response) => self.header(&response.header),
            Answer::RoleAdd(_, response) => self.header(&response.header),
            Answer::RoleDelete(_, response) => self.header(&response.header),
            Answer::RoleGrant(_, response) => self.header(&response.header),
            Answer::RoleRevoke(_, _, _, response) => self.header(&response.header),
            Answer::RoleGet(_, response) => {
                self.header(&response.header);
                for permission in &response.perm {
                    let kind = permission_name(permission.perm_type);
                    self.text += &format!("\"PermType\" :  {kind}\n");
                    self.quoted("Key", &permission.key);
                    self.quoted("RangeEnd", &permission.range_end);
                }
            }
            Answer::RoleList(response) => {
                self.header(&response.header);
                let roles = response.roles.iter();
                let roles: String = roles
                    .map(|role| format!(" {}", quote(role.as_bytes())))
                    .collect();
                self.text += &format!("\"Roles\" :{roles}\n");
            }
            _ => return false,
        }
        true
    }
}

fn permission_name(kind: i32) -> String {
    match PermissionType::try_from(kind) {
        Ok(kind) => kind.as_str_name().to_owned(),
        Err(_) => kind.to_string(),
    }
}
