//! The JSON format: Go's encoding of the answer's structs, on one line.

use super::{Answer, Health, header};
use crate::go::{Array, Object};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::{Event, KeyValue};

/// The text of an answer.
pub fn render(answer: Answer<'_>, hex: bool) -> String {
    let text = match answer {
        Answer::Get(response) => range(response),
        Answer::Put(response) => put(response),
        Answer::Delete(response) => delete(response),
        Answer::Txn(response) => txn(response),
        Answer::Watch(response) => watch(response),
        Answer::Health(list) => list_of(list.iter().map(health)),
        Answer::Status(list) => list_of(list.iter().map(|(endpoint, status)| {
            let object = Object::new().text_always("Endpoint", endpoint);
            object.raw("Status", self::status(status)).finish()
        })),
        Answer::HashKv(list) => list_of(list.iter().map(|(endpoint, hash)| {
            let object = Object::new().text_always("Endpoint", endpoint);
            object.raw("HashKV", hash_kv(hash)).finish()
        })),
        Answer::Alarm(response) => {
            let alarms = response.alarms.iter().map(|alarm| {
                let object = Object::new().plain("memberID", alarm.member_id);
                object.plain("alarm", alarm.alarm).finish()
            });
            with_header(&response.header)
                .list("alarms", alarms.collect())
                .finish()
        }
        Answer::MoveLeader(_, _, response) => with_header(&response.header).finish(),
        Answer::Downgrade(_, response) => {
            let object = with_header(&response.header);
            object.text("version", &response.version).finish()
        }
        other => lease(other)
            .or_else(|| member(other, hex))
            .unwrap_or_else(|| access(other)),
    };
    text + "\n"
}

/// A list; Go writes one without elements as `null`.
fn list_of(values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.collect();
    if values.is_empty() {
        return "null".into();
    }
    values.into_iter().collect::<Array>().finish()
}

fn header_object(header: &pb::ResponseHeader) -> Object {
    Object::new()
        .plain("cluster_id", header.cluster_id)
        .plain("member_id", header.member_id)
        .plain("revision", header.revision)
        .plain("raft_term", header.raft_term)
}

fn with_header(header: &Option<pb::ResponseHeader>) -> Object {
    let header = header.as_ref().map(|header| header_object(header).finish());
    Object::new().some("header", header)
}

fn pair(pair: &KeyValue) -> String {
    Object::new()
        .bytes("key", &pair.key)
        .plain("create_revision", pair.create_revision)
        .plain("mod_revision", pair.mod_revision)
        .plain("version", pair.version)
        .bytes("value", &pair.value)
        .plain("lease", pair.lease)
        .finish()
}

fn range(response: &pb::RangeResponse) -> String {
    with_header(&response.header)
        .list("kvs", response.kvs.iter().map(pair).collect())
        .plain("more", response.more)
        .plain("count", response.count)
        .finish()
}

fn put(response: &pb::PutResponse) -> String {
    let previous = response.prev_kv.as_ref().map(pair);
    with_header(&response.header)
        .some("prev_kv", previous)
        .finish()
}

fn delete(response: &pb::DeleteRangeResponse) -> String {
    with_header(&response.header)
        .plain("deleted", response.deleted)
        .list("prev_kvs", response.prev_kvs.iter().map(pair).collect())
        .finish()
}

fn txn(response: &pb::TxnResponse) -> String {
    use pb::response_op::Response;
    let operation = |operation: &pb::ResponseOp| {
        let object = Object::new();
        let object = match &operation.response {
            Some(Response::ResponseRange(inner)) => object.raw("response_range", range(inner)),
            Some(Response::ResponsePut(inner)) => object.raw("response_put", put(inner)),
            Some(Response::ResponseDeleteRange(inner)) => {
                object.raw("response_delete_range", delete(inner))
            }
            Some(Response::ResponseTxn(inner)) => object.raw("response_txn", txn(inner)),
            None => object,
        };
        Object::new().raw("Response", object.finish()).finish()
    };
    with_header(&response.header)
        .plain("succeeded", response.succeeded)
        .list(
            "responses",
            response.responses.iter().map(operation).collect(),
        )
        .finish()
}

/// The struct of etcd's client library, whose fields have no JSON names.
fn watch(response: &pb::WatchResponse) -> String {
    let event = |event: &Event| {
        Object::new()
            .plain("type", event.r#type)
            .some("kv", event.kv.as_ref().map(pair))
            .some("prev_kv", event.prev_kv.as_ref().map(pair))
            .finish()
    };
    let header = response.header.as_ref();
    let header = header.map_or_else(|| "null".into(), |header| header_object(header).finish());
    Object::new()
        .raw("Header", header)
        .list_or_null("Events", response.events.iter().map(event).collect())
        .raw("CompactRevision", response.compact_revision)
        .raw("Canceled", response.canceled)
        .raw("Created", response.created)
        .text_always("CancelReason", &response.cancel_reason)
        .finish()
}

fn health(health: &Health) -> String {
    Object::new()
        .text_always("endpoint", &health.endpoint)
        .raw("health", health.health)
        .text_always("took", &health.took)
        .text("error", &health.error)
        .finish()
}

fn status(status: &pb::StatusResponse) -> String {
    let downgrade = status.downgrade_info.as_ref().map(|info| {
        let object = Object::new().plain("enabled", info.enabled);
        object.text("targetVersion", &info.target_version).finish()
    });
    with_header(&status.header)
        .text("version", &status.version)
        .plain("dbSize", status.db_size)
        .plain("leader", status.leader)
        .plain("raftIndex", status.raft_index)
        .plain("raftTerm", status.raft_term)
        .plain("raftAppliedIndex", status.raft_applied_index)
        .list("errors", Array::of_texts(&status.errors))
        .plain("dbSizeInUse", status.db_size_in_use)
        .plain("isLearner", status.is_learner)
        .text("storageVersion", &status.storage_version)
        .plain("dbSizeQuota", status.db_size_quota)
        .some("downgradeInfo", downgrade)
        .finish()
}

fn hash_kv(response: &pb::HashKvResponse) -> String {
    with_header(&response.header)
        .plain("hash", response.hash)
        .plain("compact_revision", response.compact_revision)
        .plain("hash_revision", response.hash_revision)
        .finish()
}

/// Answers about leases: the library's structs, the header's fields among their own.
fn lease(answer: Answer<'_>) -> Option<String> {
    let start = |given: &Option<pb::ResponseHeader>| header_object(&header(given));
    let object = match answer {
        Answer::Grant(response) => start(&response.header)
            .raw("ID", response.id)
            .raw("TTL", response.ttl)
            .text_always("Error", &response.error),
        Answer::KeepAlive(response) => start(&response.header)
            .raw("ID", response.id)
            .raw("TTL", response.ttl),
        Answer::Revoke(_, response) => with_header(&response.header),
        Answer::TimeToLive(response, _) => start(&response.header)
            .raw("id", response.id)
            .raw("ttl", response.ttl)
            .raw("granted-ttl", response.granted_ttl)
            .list_or_null("keys", Array::of_bytes(&response.keys)),
        Answer::Leases(response) => {
            let id = |lease: &pb::LeaseStatus| Object::new().raw("id", lease.id).finish();
            let leases = response.leases.iter().map(id).collect();
            start(&response.header).list_or_empty("leases", leases)
        }
        _ => return None,
    };
    Some(object.finish())
}

/// Answers about members; with `--hex` their IDs are hexadecimal texts.
fn member(answer: Answer<'_>, hex: bool) -> Option<String> {
    let (reply, added, members) = match answer {
        Answer::MemberAdd(r) => (&r.header, r.member.as_ref(), &r.members),
        Answer::MemberRemove(_, r) => (&r.header, None, &r.members),
        Answer::MemberUpdate(_, r) => (&r.header, None, &r.members),
        Answer::MemberPromote(_, r) => (&r.header, None, &r.members),
        Answer::MemberList(r) => (&r.header, None, &r.members),
        _ => return None,
    };
    let one = |member: &pb::Member| {
        let id = member.id;
        let object = if hex {
            Object::new().raw("ID", format_args!("\"{id:x}\""))
        } else {
            Object::new().plain("ID", id)
        };
        object
            .text("name", &member.name)
            .list("peerURLs", Array::of_texts(&member.peer_ur_ls))
            .list("clientURLs", Array::of_texts(&member.client_ur_ls))
            .plain("isLearner", member.is_learner)
            .finish()
    };
    let all = members.iter().map(one).collect();
    if !hex {
        let object = with_header(reply).some("member", added.map(one));
        return Some(object.list("members", all).finish());
    }
    let header = header(reply);
    let hex_header = Object::new()
        .raw("cluster_id", format_args!("\"{:x}\"", header.cluster_id))
        .raw("member_id", format_args!("\"{:x}\"", header.member_id))
        .plain("revision", header.revision)
        .plain("raft_term", header.raft_term)
        .finish();
    let object = Object::new().raw("header", hex_header);
    let object = object.some("member", added.map(one));
    Some(object.list_or_empty("members", all).finish())
}

/// Answers about users and roles.
fn access(answer: Answer<'_>) -> String {
    let object = match answer {
        Answer::AuthStatus(response) => with_header(&response.header)
            .plain("enabled", response.enabled)
            .plain("authRevision", response.auth_revision),
        Answer::UserGet(_, response) => {
            with_header(&response.header).list("roles", Array::of_texts(&response.roles))
        }
        Answer::UserList(response) => {
            with_header(&response.header).list("users", Array::of_texts(&response.users))
        }
        Answer::RoleList(response) => {
            with_header(&response.header).list("roles", Array::of_texts(&response.roles))
        }
        Answer::RoleGet(_, response) => {
            let permissions = response.perm.iter().map(|permission| {
                Object::new()
                    .plain("permType", permission.perm_type)
                    .bytes("key", &permission.key)
                    .bytes("range_end", &permission.range_end)
                    .finish()
            });
            with_header(&response.header).list("perm", permissions.collect())
        }
        Answer::UserAdd(_, response) => with_header(&response.header),
        Answer::UserDelete(_, response) => with_header(&response.header),
        Answer::UserPassword(response) => with_header(&response.header),
        Answer::UserGrantRole(_, _, response) => with_header(&response.header),
        Answer::UserRevokeRole(_, _, response) => with_header(&response.header),
        Answer::RoleAdd(_, response) => with_header(&response.header),
        Answer::RoleDelete(_, response) => with_header(&response.header),
        Answer::RoleGrant(_, response) => with_header(&response.header),
        Answer::RoleRevoke(_, _, _, response) => with_header(&response.header),
        _ => unreachable!("the caller has written the other answers"),
    };
    object.finish()
}
