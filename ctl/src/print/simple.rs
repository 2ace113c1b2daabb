//! The simple format: for people and scripts.

use super::rows::{self, Rows};
use super::{Answer, Health, header, prefix_end};
use crate::log::write_error;
use quorate_proto::authpb::Permission;
use quorate_proto::authpb::permission::Type as PermissionType;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::{KeyValue, event::EventType};

/// The text of an answer.
pub fn render(answer: Answer<'_>, hex: bool, value_only: bool) -> Vec<u8> {
    let printer = Printer { hex, value_only };
    match answer {
        Answer::Get(response) => printer.pairs(&response.kvs),
        Answer::Put(response) => printer.put(response),
        Answer::Delete(response) => printer.delete(response),
        Answer::Txn(response) => printer.txn(response),
        Answer::Watch(response) => printer.watch(response),
        Answer::TimeToLive(response, keys) => time_to_live(response, keys),
        Answer::Grant(r) => format!("lease {:016x} granted with TTL({}s)\n", r.id, r.ttl).into(),
        Answer::Revoke(id, _) => format!("lease {id:016x} revoked\n").into(),
        Answer::KeepAlive(r) => {
            format!("lease {:016x} keepalived with TTL({})\n", r.id, r.ttl).into()
        }
        Answer::Leases(response) => leases(response).into(),
        Answer::MemberList(response) => lines(&rows::members(response)),
        Answer::Health(list) => health(list).into(),
        Answer::Status(list) => lines(&rows::status(list)),
        Answer::HashKv(list) => lines(&rows::hash_kv(list)),
        Answer::MoveLeader(from, to, _) => {
            format!("Leadership transferred from {from:x} to {to:x}\n").into()
        }
        Answer::Alarm(response) => alarms(response).into(),
        Answer::Downgrade(action, r) => format!(
            "Downgrade {action} success, cluster version {}\n",
            r.version
        )
        .into(),
        Answer::AuthStatus(r) => format!(
            "Authentication Status: {}\nAuthRevision: {}\n",
            r.enabled, r.auth_revision
        )
        .into(),
        member @ (Answer::MemberAdd(_)
        | Answer::MemberRemove(..)
        | Answer::MemberUpdate(..)
        | Answer::MemberPromote(..)) => member_change(member).into(),
        other => access(other),
    }
}

struct Printer {
    hex: bool,
    value_only: bool,
}

impl Printer {
    fn pair(&self, out: &mut Vec<u8>, pair: &KeyValue) {
        if !self.value_only {
            self.line(out, &pair.key);
        }
        self.line(out, &pair.value);
    }

    fn line(&self, out: &mut Vec<u8>, bytes: &[u8]) {
        if self.hex {
            let digits: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            out.extend_from_slice(digits.as_bytes());
        } else {
            out.extend_from_slice(bytes);
        }
        out.push(b'\n');
    }

    fn pairs(&self, pairs: &[KeyValue]) -> Vec<u8> {
        let mut out = Vec::new();
        for pair in pairs {
            self.pair(&mut out, pair);
        }
        out
    }

    fn put(&self, response: &pb::PutResponse) -> Vec<u8> {
        let mut out = b"OK\n".to_vec();
        if let Some(pair) = &response.prev_kv {
            self.pair(&mut out, pair);
        }
        out
    }

    fn delete(&self, response: &pb::DeleteRangeResponse) -> Vec<u8> {
        let mut out = format!("{}\n", response.deleted).into_bytes();
        out.extend(self.pairs(&response.prev_kvs));
        out
    }

    fn txn(&self, response: &pb::TxnResponse) -> Vec<u8> {
        use pb::response_op::Response;
        let mut out = if response.succeeded {
            b"SUCCESS\n".to_vec()
        } else {
            b"FAILURE\n".to_vec()
        };
        for operation in &response.responses {
            out.push(b'\n');
            out.extend(match &operation.response {
                Some(Response::ResponseRange(inner)) => self.pairs(&inner.kvs),
                Some(Response::ResponsePut(inner)) => self.put(inner),
                Some(Response::ResponseDeleteRange(inner)) => self.delete(inner),
                Some(Response::ResponseTxn(inner)) => self.txn(inner),
                None => b"unexpected response \n".to_vec(),
            });
        }
        out
    }

    fn watch(&self, response: &pb::WatchResponse) -> Vec<u8> {
        let mut out = Vec::new();
        for event in &response.events {
            out.extend_from_slice(event_name(event.r#type).as_bytes());
            out.push(b'\n');
            if let Some(pair) = &event.prev_kv {
                self.pair(&mut out, pair);
            }
            self.pair(&mut out, &event.kv.clone().unwrap_or_default());
        }
        out
    }
}

/// `PUT` or `DELETE`; a number for what this version does not know.
pub fn event_name(kind: i32) -> String {
    match EventType::try_from(kind) {
        Ok(kind) => kind.as_str_name().to_owned(),
        Err(_) => kind.to_string(),
    }
}

/// `NOSPACE`, `CORRUPT`; a number for what this version does not know.
pub fn alarm_name(kind: i32) -> String {
    match pb::AlarmType::try_from(kind) {
        Ok(kind) => kind.as_str_name().to_owned(),
        Err(_) => kind.to_string(),
    }
}

fn time_to_live(response: &pb::LeaseTimeToLiveResponse, keys: bool) -> Vec<u8> {
    let (id, ttl, granted) = (response.id, response.ttl, response.granted_ttl);
    if granted == 0 && ttl == -1 {
        return format!("lease {id:016x} already expired\n").into();
    }
    let mut out =
        format!("lease {id:016x} granted with TTL({granted}s), remaining({ttl}s)").into_bytes();
    if keys {
        out.extend_from_slice(b", attached keys([");
        out.extend(response.keys.join(&b' '));
        out.extend_from_slice(b"])");
    }
    out.push(b'\n');
    out
}

fn leases(response: &pb::LeaseLeasesResponse) -> String {
    let mut text = format!("found {} leases\n", response.leases.len());
    for lease in &response.leases {
        text += &format!("{:016x}\n", lease.id);
    }
    text
}

fn lines(rows: &Rows) -> Vec<u8> {
    let lines = rows.rows.iter().map(|row| row.join(", ") + "\n");
    lines.collect::<String>().into()
}

/// Healthy endpoints; the others go to standard error.
fn health(list: &[Health]) -> String {
    let mut text = String::new();
    for Health {
        endpoint,
        took,
        error,
        ..
    } in list
    {
        if error.is_empty() {
            text +=
                &format!("{endpoint} is healthy: successfully committed proposal: took = {took}\n");
        } else {
            write_error(&format!(
                "{endpoint} is unhealthy: failed to commit proposal: {error}\n"
            ));
        }
    }
    text
}

fn alarms(response: &pb::AlarmResponse) -> String {
    let line = |alarm: &pb::AlarmMember| {
        let name = alarm_name(alarm.alarm);
        format!("memberID:{}  alarm:{name}\n", alarm.member_id)
    };
    response.alarms.iter().map(line).collect()
}

fn member_change(answer: Answer<'_>) -> String {
    let (id, what, reply) = match answer {
        Answer::MemberAdd(response) => {
            let member = response.member.clone().unwrap_or_default();
            let what = if member.is_learner {
                "added as learner to"
            } else {
                "added to"
            };
            (member.id, what, &response.header)
        }
        Answer::MemberRemove(id, response) => (id, "removed from", &response.header),
        Answer::MemberUpdate(id, response) => (id, "updated in", &response.header),
        Answer::MemberPromote(id, response) => (id, "promoted in", &response.header),
        _ => unreachable!("the caller gives changes of members alone"),
    };
    let cluster = header(reply).cluster_id;
    format!("Member {id:16x} {what} cluster {cluster:16x}\n")
}

fn access(answer: Answer<'_>) -> Vec<u8> {
    match answer {
        Answer::UserAdd(user, _) => sentence(&[b"User ", user, b" created"]),
        Answer::UserDelete(user, _) => sentence(&[b"User ", user, b" deleted"]),
        Answer::UserGet(user, response) => {
            let roles: String = response
                .roles
                .iter()
                .map(|role| format!(" {role}"))
                .collect();
            sentence(&[b"User: ", user, b"\nRoles:", roles.as_bytes()])
        }
        Answer::UserList(response) => list(&response.users),
        Answer::UserPassword(_) => sentence(&[b"Password updated"]),
        Answer::UserGrantRole(user, role, _) => {
            sentence(&[b"Role ", role, b" is granted to user ", user])
        }
        Answer::UserRevokeRole(user, role, _) => {
            sentence(&[b"Role ", role, b" is revoked from user ", user])
        }
        Answer::RoleAdd(role, _) => sentence(&[b"Role ", role, b" created"]),
        Answer::RoleDelete(role, _) => sentence(&[b"Role ", role, b" deleted"]),
        Answer::RoleGet(role, response) => permissions(role, &response.perm),
        Answer::RoleList(response) => list(&response.roles),
        Answer::RoleGrant(role, _) => sentence(&[b"Role ", role, b" updated"]),
        Answer::RoleRevoke(role, key, end, _) => revoked(role, key, end),
        _ => unreachable!("the caller has written the other answers"),
    }
}

fn sentence(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = parts.concat();
    out.push(b'\n');
    out
}

fn list(names: &[String]) -> Vec<u8> {
    names
        .iter()
        .map(|name| format!("{name}\n"))
        .collect::<String>()
        .into()
}

fn revoked(role: &[u8], key: &[u8], end: &[u8]) -> Vec<u8> {
    let tail = b" is revoked from role ";
    match end {
        b"" => sentence(&[b"Permission of key ", key, tail, role]),
        b"\0" => sentence(&[b"Permission of range [", key, b", <open ended>", tail, role]),
        end => sentence(&[b"Permission of range [", key, b", ", end, b")", tail, role]),
    }
}

fn permissions(role: &[u8], permissions: &[Permission]) -> Vec<u8> {
    let mut out = sentence(&[b"Role ", role]);
    if role == b"root" && permissions.is_empty() {
        out.extend_from_slice(b"KV Read:\n\t[, <open ended>\nKV Write:\n\t[, <open ended>\n");
        return out;
    }
    let kinds = [
        ("KV Read:\n", PermissionType::Read),
        ("KV Write:\n", PermissionType::Write),
    ];
    for (heading, kind) in kinds {
        out.extend_from_slice(heading.as_bytes());
        for permission in permissions {
            let granted = permission.perm_type();
            if granted == kind || granted == PermissionType::Readwrite {
                out.extend(permission_line(permission));
            }
        }
    }
    out
}

fn permission_line(permission: &Permission) -> Vec<u8> {
    let (key, end) = (permission.key.as_ref(), permission.range_end.as_ref());
    if end.is_empty() {
        return sentence(&[b"\t", key]);
    }
    let range = match end {
        b"\0" => [b"\t[", key, b", <open ended>"].concat(),
        end => [b"\t[", key, b", ", end, b")"].concat(),
    };
    if !key.is_empty() && prefix_end(key) == end {
        return sentence(&[&range, b" (prefix ", key, b")"]);
    }
    sentence(&[&range])
}
