//! What a request is taken to add to the store, in bytes, when the quota is looked at.
//!
//! etcd: server/storage/quota.go.

use super::kv::request_op::Request;
use super::kv::{PutRequest, RequestOp, TxnRequest};

/// A lease.
pub const LEASE: u64 = 64;
/// A pair beside its key and value.
const PAIR: u64 = 256;

pub fn of_put(request: &PutRequest) -> u64 {
    PAIR + request.key.len() as u64 + request.value.len() as u64
}

/// The dearer branch of a txn, with all that is nested in it.
pub fn of_txn(request: &TxnRequest) -> u64 {
    of_branch(&request.success).max(of_branch(&request.failure))
}

fn of_branch(operations: &[RequestOp]) -> u64 {
    let costs = operations.iter().map(|operation| match &operation.request {
        Some(Request::RequestPut(put)) => of_put(put),
        Some(Request::RequestTxn(nested)) => of_txn(nested),
        Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => 0,
    });
    costs.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_those_of_etcd() {
        let put = PutRequest {
            key: "abc".into(),
            value: "12345".into(),
            ..Default::default()
        };
        assert_eq!(of_put(&put), 264);
        let op = |request| RequestOp {
            request: Some(request),
        };
        let nested = TxnRequest {
            failure: vec![op(Request::RequestPut(put.clone()))],
            ..Default::default()
        };
        let txn = TxnRequest {
            success: vec![op(Request::RequestPut(put.clone()))],
            failure: vec![
                op(Request::RequestTxn(nested)),
                op(Request::RequestPut(put)),
            ],
            ..Default::default()
        };
        assert_eq!(of_txn(&txn), 528);
        assert_eq!(of_txn(&TxnRequest::default()), 0);
    }
}
