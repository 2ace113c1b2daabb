//! Checks of Txn: the number of operations, each operation, and keys that are written twice.
//!
//! etcd: server/etcdserver/api/v3rpc/key.go (checkTxnRequest, checkIntervals), server/etcdserver/
//! txn/txn.go (IsTxnReadonly, IsTxnSerializable).

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use quorate_proto::etcdserverpb::request_op::Request;

use super::kv;
use crate::model::Refusal;
use crate::model::kv::{DeleteRangeRequest, RequestOp, TxnRequest};

/// Checks a Txn with all that is nested in it. `ops_max` is `--max-txn-ops`.
pub fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    check(request, ops_max)?;
    // Only now, so that the number of operations is bounded.
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

/// Whether a txn can be answered without the log: both branches hold nothing but ranges. A nested
/// txn makes it a write, even if it only reads.
pub fn is_read_only(request: &TxnRequest) -> bool {
    both_branches(request).all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Whether a read-only txn may be answered from this member's own state. One without operations
/// counts as serializable.
pub fn is_serializable(request: &TxnRequest) -> bool {
    both_branches(request)
        .all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

fn both_branches(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// The form of every compare and operation. The deeper a txn is nested, the fewer operations it
/// may have: each level takes its widest list from the budget.
fn check(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    let widest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let Some(budget) = ops_max.checked_sub(widest) else {
        return Err(Refusal::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for op in both_branches(request) {
        match &op.request {
            Some(Request::RequestRange(range)) => kv::range(range)?,
            Some(Request::RequestPut(put)) => kv::put(put)?,
            Some(Request::RequestDeleteRange(delete)) => kv::delete_range(delete)?,
            Some(Request::RequestTxn(nested)) => check(nested, budget)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What a list of operations writes.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Deletes<'a>,
}

/// Refuses a list of operations in which a key is put twice, or put and deleted. The branches of
/// a nested txn exclude each other, so both may put the same key.
fn writes(ops: &[RequestOp]) -> Result<Writes<'_>, Refusal> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            all.deletes.insert(delete);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(nested)) = &op.request {
            let success = writes(&nested.success)?;
            let failure = writes(&nested.failure)?;
            for key in &success.puts {
                if !all.puts.insert(key) || all.deletes.contains(key) {
                    return Err(Refusal::DuplicateKey);
                }
            }
            for key in &failure.puts {
                let elsewhere = !all.puts.insert(key) && !success.puts.contains(key);
                if elsewhere || all.deletes.contains(key) {
                    return Err(Refusal::DuplicateKey);
                }
            }
            all.deletes.merge(success.deletes);
            all.deletes.merge(failure.deletes);
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            let key = put.key.as_ref();
            if !all.puts.insert(key) || all.deletes.contains(key) {
                return Err(Refusal::DuplicateKey);
            }
        }
    }
    Ok(all)
}

/// The deleted ranges, merged so that none overlap: start → end, half-open.
#[derive(Default)]
struct Deletes<'a> {
    single: HashSet<&'a [u8]>,
    ranges: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Deletes<'a> {
    /// etcd compares with the raw `range_end`. A delete of all keys from one on (`range_end` is a
    /// zero byte) is therefore an empty range here, and a put beside it passes. Clients may lean
    /// on that hole, so it stays.
    fn insert(&mut self, delete: &'a DeleteRangeRequest) {
        let (start, end) = (delete.key.as_ref(), delete.range_end.as_ref());
        if end.is_empty() {
            self.single.insert(start);
        } else if start < end {
            self.insert_range(start, end);
        }
    }

    fn insert_range(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        // Only the last range that starts at or before us can reach into us from the left.
        if let Some((left, left_end)) = self.ranges.range(..=start).next_back()
            && *left_end >= start
        {
            start = left;
            end = end.max(left_end);
        }
        while let Some((right, right_end)) = self.ranges.range(start..).next()
            && *right <= end
        {
            end = end.max(right_end);
            let right = *right;
            self.ranges.remove(right);
        }
        self.ranges.insert(start, end);
    }

    fn merge(&mut self, other: Self) {
        self.single.extend(other.single);
        for (start, end) in other.ranges {
            self.insert_range(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.single.contains(key)
            || self
                .ranges
                .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
                .next_back()
                .is_some_and(|(_, end)| key < *end)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_proto::etcdserverpb::{Compare, PutRequest, RangeRequest};

    use super::*;
    use crate::model::limits::TXN_OPS_MAX;

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn put(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            ..Default::default()
        }))
    }

    fn delete(key: &'static str, range_end: &'static [u8]) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(range_end),
            prev_kv: false,
        }))
    }

    fn range(key: &'static str, serializable: bool) -> RequestOp {
        op(Request::RequestRange(RangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            serializable,
            ..Default::default()
        }))
    }

    fn branches(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            compare: Vec::new(),
            success,
            failure,
        }
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(branches(success, failure)))
    }

    fn checked(success: Vec<RequestOp>) -> Result<(), Refusal> {
        // The same list must get the same answer in either branch.
        let answer = txn(&branches(success.clone(), Vec::new()), TXN_OPS_MAX);
        assert_eq!(txn(&branches(Vec::new(), success), TXN_OPS_MAX), answer);
        answer
    }

    #[test]
    fn every_list_counts_for_itself_up_to_128() {
        let gets = |count| vec![range("k", false); count];
        assert_eq!(checked(gets(128)), Ok(()));
        assert_eq!(checked(gets(129)), Err(Refusal::TooManyOps));
        assert_eq!(txn(&branches(gets(128), gets(128)), TXN_OPS_MAX), Ok(()));
        let compares = |count| TxnRequest {
            compare: vec![
                Compare {
                    key: "k".into(),
                    ..Default::default()
                };
                count
            ],
            ..Default::default()
        };
        assert_eq!(txn(&compares(128), TXN_OPS_MAX), Ok(()));
        assert_eq!(txn(&compares(129), TXN_OPS_MAX), Err(Refusal::TooManyOps));
    }

    #[test]
    fn a_nested_txn_has_what_its_parent_left() {
        let gets = |count| vec![range("k", false); count];
        let below = |mut ops: Vec<RequestOp>, count| {
            ops.push(nested(gets(count), Vec::new()));
            checked(ops)
        };
        assert_eq!(below(gets(99), 28), Ok(()));
        assert_eq!(below(gets(99), 29), Err(Refusal::TooManyOps));
        assert_eq!(below(gets(127), 0), Ok(()));
    }

    #[test]
    fn operations_are_checked_one_by_one() {
        let no_key = TxnRequest {
            compare: vec![Compare::default()],
            ..Default::default()
        };
        assert_eq!(txn(&no_key, TXN_OPS_MAX), Err(Refusal::EmptyKey));
        assert_eq!(checked(vec![put("")]), Err(Refusal::EmptyKey));
        assert_eq!(
            checked(vec![nested(vec![delete("", b"")], Vec::new())]),
            Err(Refusal::EmptyKey)
        );
        assert_eq!(
            checked(vec![RequestOp { request: None }]),
            Err(Refusal::KeyNotFound)
        );
        // A wrong form is told before a key that is written twice.
        assert_eq!(
            checked(vec![put("k"), put("k"), RequestOp { request: None }]),
            Err(Refusal::KeyNotFound)
        );
    }

    #[test]
    fn a_key_is_written_once() {
        let twice = Err(Refusal::DuplicateKey);
        assert_eq!(checked(vec![put("k"), put("k")]), twice);
        assert_eq!(checked(vec![put("k"), put("l"), range("k", false)]), Ok(()));
        assert_eq!(checked(vec![delete("k", b""), put("k")]), twice);
        assert_eq!(checked(vec![put("b"), delete("a", b"c")]), twice);
        assert_eq!(checked(vec![put("c"), delete("a", b"c")]), Ok(()));
        assert_eq!(checked(vec![delete("a", b"c"), delete("b", b"d")]), Ok(()));
        let merged = vec![delete("e", b"f"), delete("a", b"c"), delete("b", b"e")];
        for (key, answer) in [("d", twice.clone()), ("f", Ok(())), ("e", twice)] {
            let mut ops = merged.clone();
            ops.push(put(key));
            assert_eq!(checked(ops), answer, "{key}");
        }
    }

    #[test]
    fn nested_branches_exclude_each_other_but_not_their_parent() {
        let twice = Err(Refusal::DuplicateKey);
        let either = nested(vec![put("k")], vec![put("k")]);
        assert_eq!(checked(vec![either.clone()]), Ok(()));
        assert_eq!(checked(vec![either.clone(), put("k")]), twice);
        assert_eq!(checked(vec![either.clone(), delete("k", b"")]), twice);
        assert_eq!(checked(vec![either.clone(), either]), twice);
        let deleting = nested(vec![delete("a", b"z")], Vec::new());
        assert_eq!(checked(vec![deleting, put("k")]), twice);
    }

    #[test]
    fn a_delete_without_an_end_hides_from_the_check() {
        assert_eq!(checked(vec![delete("a", b"\0"), put("b")]), Ok(()));
    }

    #[test]
    fn what_is_served_without_the_log() {
        let read = |success: Vec<RequestOp>| {
            let request = branches(success, Vec::new());
            (is_read_only(&request), is_serializable(&request))
        };
        assert_eq!(read(vec![]), (true, true));
        assert_eq!(read(vec![range("k", true)]), (true, true));
        assert_eq!(
            read(vec![range("k", true), range("k", false)]),
            (true, false)
        );
        assert_eq!(read(vec![range("k", true), put("k")]), (false, false));
        assert_eq!(read(vec![nested(Vec::new(), Vec::new())]), (false, false));
    }
}
