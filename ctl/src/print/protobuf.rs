//! The protobuf format: the answer's own bytes, with no end of line.

use super::Answer;
use crate::outcome::{Exit, code};
use prost::Message as _;
use quorate_proto::etcdserverpb as pb;

/// The bytes of an answer; nothing when the format does not have it.
///
/// Of most lease calls etcdctl writes the header alone, and of `lease revoke` nothing but an
/// error: what its client library hands out there is not the message itself. Scripts see the same
/// here.
///
/// # Errors
/// For `lease revoke`.
pub fn render(answer: Answer<'_>) -> Result<Option<Vec<u8>>, Exit> {
    let only = |header: &Option<pb::ResponseHeader>| super::header(header).encode_to_vec();
    Ok(Some(match answer {
        Answer::Get(response) => response.encode_to_vec(),
        Answer::Put(response) => response.encode_to_vec(),
        Answer::Delete(response) => response.encode_to_vec(),
        Answer::Txn(response) => response.encode_to_vec(),
        Answer::Watch(response) => watch(response).encode_to_vec(),
        Answer::Grant(response) => only(&response.header),
        Answer::KeepAlive(response) => only(&response.header),
        Answer::TimeToLive(response, _) => only(&response.header),
        Answer::Leases(response) => only(&response.header),
        Answer::Revoke(..) => {
            let text = "marshal unsupported for type *clientv3.LeaseRevokeResponse";
            return Err(Exit::new(code::BAD_FEATURE, text));
        }
        Answer::Health(_) | Answer::Status(_) | Answer::HashKv(_) => return Ok(None),
        other => administration(other),
    }))
}

/// A watch answer without the fields etcdctl's client does not hand on.
fn watch(response: &pb::WatchResponse) -> pb::WatchResponse {
    pb::WatchResponse {
        watch_id: 0,
        cancel_reason: String::new(),
        fragment: false,
        ..response.clone()
    }
}

fn administration(answer: Answer<'_>) -> Vec<u8> {
    match answer {
        Answer::MemberAdd(response) => response.encode_to_vec(),
        Answer::MemberRemove(_, response) => response.encode_to_vec(),
        Answer::MemberUpdate(_, response) => response.encode_to_vec(),
        Answer::MemberPromote(_, response) => response.encode_to_vec(),
        Answer::MemberList(response) => response.encode_to_vec(),
        Answer::MoveLeader(_, _, response) => response.encode_to_vec(),
        Answer::Alarm(response) => response.encode_to_vec(),
        Answer::Downgrade(_, response) => response.encode_to_vec(),
        Answer::AuthStatus(response) => response.encode_to_vec(),
        Answer::UserAdd(_, response) => response.encode_to_vec(),
        Answer::UserDelete(_, response) => response.encode_to_vec(),
        Answer::UserGet(_, response) => response.encode_to_vec(),
        Answer::UserList(response) => response.encode_to_vec(),
        Answer::UserPassword(response) => response.encode_to_vec(),
        Answer::UserGrantRole(_, _, response) => response.encode_to_vec(),
        Answer::UserRevokeRole(_, _, response) => response.encode_to_vec(),
        Answer::RoleAdd(_, response) => response.encode_to_vec(),
        Answer::RoleDelete(_, response) => response.encode_to_vec(),
        Answer::RoleGet(_, response) => response.encode_to_vec(),
        Answer::RoleList(response) => response.encode_to_vec(),
        Answer::RoleGrant(_, response) => response.encode_to_vec(),
        Answer::RoleRevoke(_, _, _, response) => response.encode_to_vec(),
        _ => unreachable!("the caller has written the other answers"),
    }
}
