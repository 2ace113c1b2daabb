//! Every check at the door, in etcd's order and with etcd's refusals.
//!
//! What has passed here cannot be wrong in form; what depends on the state (a lease that does not
//! exist, a compacted revision) is for the machine to say.

pub mod kv;
pub mod lease;
pub mod member;
pub mod txn;

use prost::Message;

use crate::model::Refusal;

/// What etcd wraps around a request before it measures it: the tag and length of the request, and
/// a header with a 64-bit request ID.
const RAFT_OVERHEAD_BYTES: usize = 14;

/// Refuses a proposal that is larger than `--max-request-bytes` once it is encoded as etcd would
/// encode it.
///
/// etcd: server/etcdserver/v3_server.go, processInternalRaftRequestOnce.
pub fn check_size(request: &impl Message, limit_bytes: usize) -> Result<(), Refusal> {
    let body = request.encoded_len();
    let size = RAFT_OVERHEAD_BYTES + 1 + prost::length_delimiter_len(body) + body;
    if size > limit_bytes {
        return Err(Refusal::RequestTooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::kv::PutRequest;
    use crate::model::limits::REQUEST_BYTES_MAX;

    fn put(value_bytes: usize) -> PutRequest {
        PutRequest {
            key: Bytes::from_static(b"k"),
            value: Bytes::from(vec![b'x'; value_bytes]),
            ..Default::default()
        }
    }

    #[test]
    fn the_limit_is_on_the_encoded_request() {
        // A value of 1,572,824 bytes under a short key passed on a real etcd.
        assert_eq!(check_size(&put(1_572_824), REQUEST_BYTES_MAX), Ok(()));
        assert_eq!(
            check_size(&put(REQUEST_BYTES_MAX - 20), REQUEST_BYTES_MAX),
            Err(Refusal::RequestTooLarge)
        );
        assert_eq!(
            check_size(&put(1_600_000), REQUEST_BYTES_MAX),
            Err(Refusal::RequestTooLarge)
        );
    }
}
