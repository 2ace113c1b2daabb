//! Transactions: the path is chosen first, then everything on it is checked, then it runs.
//!
//! etcd: server/etcdserver/txn/txn.go.

use super::compare::all_hold;
use super::revision::{Revision, check_put};
use super::view::ReadError;
use super::{Applied, Machine, header, range};
use crate::model::Refusal;
use crate::model::kv::request_op::Request;
use crate::model::kv::response_op::Response;
use crate::model::kv::{
    RangeRequest, RangeResponse, Reply, RequestOp, ResponseHeader, ResponseOp, TxnRequest,
    TxnResponse,
};
use crate::storage::{Batch, Error, Reader};

/// Which branch each txn takes: the outer one first, then the nested ones of its branch, in order.
type Path = Vec<bool>;

impl Machine {
    pub(super) fn txn(
        &mut self,
        batch: &mut Batch,
        request: &TxnRequest,
    ) -> Result<Applied, Error> {
        let mut path = Path::new();
        choose(batch.reader(), request, &mut path)?;
        let mut steps = path.iter().copied();
        let mut reads_history = false;
        let checked = self.check(batch.reader(), request, &mut steps, &mut reads_history)?;
        if let Some(refusal) = checked {
            return Ok(Applied::refused(refusal));
        }
        if reads_history {
            // Older revisions are read from the store itself: what earlier commands of the batch
            // wrote must be there.
            batch.commit_pending()?;
        }
        let mut revision = Revision::begin(batch, self.revision);
        let mut steps = path.iter().copied();
        let mut response = execute(&mut revision, request, &mut steps)?;
        Ok(self.end(revision, |revision| {
            response.header = header(revision);
            Reply::Txn(response)
        }))
    }

    /// Checks each operation on the path against the state before the txn; none if all may go on.
    fn check(
        &self,
        reader: Reader<'_>,
        request: &TxnRequest,
        steps: &mut impl Iterator<Item = bool>,
        reads_history: &mut bool,
    ) -> Result<Option<Refusal>, Error> {
        for operation in branch(request, steps.next()) {
            let refusal = match &operation.request {
                Some(Request::RequestRange(range)) => {
                    *reads_history |= range.revision > 0;
                    check_range(range, self.revision, self.compacted)
                }
                Some(Request::RequestPut(put)) => check_put(reader, put)?,
                Some(Request::RequestTxn(nested)) => {
                    self.check(reader, nested, steps, reads_history)?
                }
                Some(Request::RequestDeleteRange(_)) | None => None,
            };
            if refusal.is_some() {
                return Ok(refusal);
            }
        }
        Ok(None)
    }
}

fn branch(request: &TxnRequest, succeeded: Option<bool>) -> &[RequestOp] {
    if succeeded == Some(true) {
        &request.success
    } else {
        &request.failure
    }
}

/// Evaluates all compares on the state before the txn.
fn choose(reader: Reader<'_>, request: &TxnRequest, path: &mut Path) -> Result<(), Error> {
    let succeeded = all_hold(reader, &request.compare)?;
    path.push(succeeded);
    for operation in branch(request, Some(succeeded)) {
        if let Some(Request::RequestTxn(nested)) = &operation.request {
            choose(reader, nested, path)?;
        }
    }
    Ok(())
}

/// Unlike a Range of its own, one in a txn is refused for a negative revision once the store is
/// compacted; etcd does so.
fn check_range(request: &RangeRequest, revision: i64, compacted: i64) -> Option<Refusal> {
    if request.revision == 0 {
        None
    } else if request.revision > revision {
        Some(Refusal::FutureRevision)
    } else if request.revision < compacted {
        Some(Refusal::Compacted)
    } else {
        None
    }
}

fn execute(
    revision: &mut Revision<'_>,
    request: &TxnRequest,
    steps: &mut impl Iterator<Item = bool>,
) -> Result<TxnResponse, Error> {
    let succeeded = steps.next();
    let operations = branch(request, succeeded);
    let mut responses = Vec::with_capacity(operations.len());
    for operation in operations {
        let response = match &operation.request {
            Some(Request::RequestRange(request)) => {
                Some(Response::ResponseRange(read(revision, request)?))
            }
            Some(Request::RequestPut(request)) => {
                Some(Response::ResponsePut(revision.put(request)?))
            }
            Some(Request::RequestDeleteRange(request)) => Some(Response::ResponseDeleteRange(
                revision.delete_range(request)?,
            )),
            Some(Request::RequestTxn(nested)) => {
                Some(Response::ResponseTxn(execute(revision, nested, steps)?))
            }
            None => None,
        };
        responses.push(ResponseOp { response });
    }
    Ok(TxnResponse {
        // A nested txn's header stays empty; the outer one's is set at the end.
        header: Some(ResponseHeader::default()),
        succeeded: succeeded == Some(true),
        responses,
    })
}

fn read(revision: &Revision<'_>, request: &RangeRequest) -> Result<RangeResponse, Error> {
    let current = revision.visible();
    if request.revision > 0 {
        let at = Some(request.revision);
        return range::respond(revision.batch.committed(), request, at, current);
    }
    range::respond(revision.batch.reader(), request, None, current)
}

/// Answers a txn whose branches hold nothing but ranges, without the log.
pub(super) fn read_only(
    reader: Reader<'_>,
    request: &TxnRequest,
    revision: i64,
    compacted: i64,
) -> Result<TxnResponse, ReadError> {
    let succeeded = all_hold(reader, &request.compare)?;
    let operations = branch(request, Some(succeeded));
    let mut ranges = Vec::with_capacity(operations.len());
    for operation in operations {
        match &operation.request {
            Some(Request::RequestRange(range)) => ranges.push(range),
            _ => return Err(Error::Engine("a read was asked to write".into()).into()),
        }
    }
    let refusal = ranges
        .iter()
        .find_map(|range| check_range(range, revision, compacted));
    if let Some(refusal) = refusal {
        return Err(refusal.into());
    }
    let mut responses = Vec::with_capacity(ranges.len());
    for request in ranges {
        let at = Some(request.revision).filter(|at| *at > 0 && *at < revision);
        let response = range::respond(reader, request, at, revision)?;
        responses.push(ResponseOp {
            response: Some(Response::ResponseRange(response)),
        });
    }
    Ok(TxnResponse {
        header: header(revision),
        succeeded,
        responses,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::model::kv::compare::{CompareResult, CompareTarget, TargetUnion};
    use crate::model::kv::{Compare, DeleteRangeRequest, PutRequest};

    fn operation(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn put_op(key: &'static str, value: &'static str, lease: i64) -> RequestOp {
        operation(Request::RequestPut(PutRequest {
            key: key.into(),
            value: value.into(),
            lease,
            ..Default::default()
        }))
    }

    fn range_op(key: &'static str, revision: i64) -> RequestOp {
        operation(Request::RequestRange(range(key, b"", revision)))
    }

    fn on_success(success: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            success,
            ..Default::default()
        }
    }

    fn compare(target: CompareTarget, result: CompareResult, union: TargetUnion) -> Compare {
        Compare {
            key: "a".into(),
            target: target as i32,
            result: result as i32,
            target_union: Some(union),
            ..Default::default()
        }
    }

    fn run(rig: &mut Rig, request: TxnRequest) -> TxnResponse {
        match rig.apply(txn(request)).outcome.unwrap() {
            Reply::Txn(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn revision_of(response: &ResponseOp) -> i64 {
        let header = match response.response.as_ref().unwrap() {
            Response::ResponseRange(it) => it.header,
            Response::ResponsePut(it) => it.header,
            Response::ResponseDeleteRange(it) => it.header,
            Response::ResponseTxn(it) => it.header,
        };
        header.unwrap().revision
    }

    #[test]
    fn nested_headers_show_the_revision_at_their_point() {
        let mut rig = Rig::new();
        rig.put("a", "1");
        let nested = on_success(vec![range_op("a", 0), put_op("c", "1", 0)]);
        let miss = DeleteRangeRequest {
            key: "none".into(),
            ..Default::default()
        };
        let request = on_success(vec![
            range_op("a", 0),
            operation(Request::RequestDeleteRange(miss.clone())),
            put_op("b", "1", 0),
            operation(Request::RequestDeleteRange(miss)),
            range_op("a", 0),
            operation(Request::RequestTxn(nested)),
        ]);
        let response = run(&mut rig, request);
        let revisions: Vec<_> = response.responses.iter().map(revision_of).collect();
        assert_eq!(revisions, [2, 2, 3, 3, 3, 0]);
        assert_eq!(response.header.unwrap().revision, 3);
        match response.responses[5].response.as_ref().unwrap() {
            Response::ResponseTxn(nested) => {
                let revisions: Vec<_> = nested.responses.iter().map(revision_of).collect();
                assert_eq!(revisions, [3, 3]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_path_is_fixed_before_anything_runs() {
        let mut rig = Rig::new();
        let exists = compare(
            CompareTarget::Version,
            CompareResult::Greater,
            TargetUnion::Version(0),
        );
        let nested = TxnRequest {
            compare: vec![exists],
            success: vec![],
            failure: vec![put_op("old", "", 0)],
        };
        let request = on_success(vec![
            put_op("a", "1", 0),
            operation(Request::RequestTxn(nested)),
        ]);
        run(&mut rig, request);
        assert_eq!(rig.list("", b"\0", 0), "a=1@2 old=@2");
    }

    #[test]
    fn one_bad_operation_refuses_all() {
        let mut rig = Rig::new();
        rig.put("a", "1");
        rig.put("a", "2");
        rig.apply(compact(3));
        for (bad, refusal) in [
            (put_op("b", "", 99), Refusal::LeaseNotFound),
            (range_op("a", 4), Refusal::FutureRevision),
            (range_op("a", 2), Refusal::Compacted),
            // Unlike in a Range of its own.
            (range_op("a", -1), Refusal::Compacted),
        ] {
            let request = on_success(vec![put_op("x", "1", 0), bad]);
            assert_eq!(rig.apply(txn(request)).outcome, Err(refusal));
        }
        assert_eq!(rig.list("x", b"", 0), "");
        assert_eq!(rig.view().revision, 3);
        assert_eq!(rig.list("a", b"", -1), "a=2@3");
    }

    #[test]
    fn an_older_revision_is_the_state_before_the_txn() {
        let mut rig = Rig::new();
        rig.put("a", "1");
        // The older revision was written by an earlier command of the same batch.
        let request = on_success(vec![
            put_op("a", "3", 0),
            range_op("a", 3),
            range_op("a", 0),
        ]);
        let applied = rig.apply_all(vec![put("a", "2", 0), txn(request)]);
        match applied[1].outcome.as_ref().unwrap() {
            Reply::Txn(response) => {
                let shown: Vec<_> = response.responses[1..]
                    .iter()
                    .map(|it| match it.response.as_ref().unwrap() {
                        Response::ResponseRange(range) => show(&range.kvs),
                        other => panic!("{other:?}"),
                    })
                    .collect();
                assert_eq!(shown, ["a=2@3", "a=3@4"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn compares_on_missing_keys_and_wrong_targets() {
        let mut rig = Rig::new();
        let mut holds = |it: Compare| {
            let request = TxnRequest {
                compare: vec![it],
                ..Default::default()
            };
            run(&mut rig, request).succeeded
        };
        let value = TargetUnion::Value("x".into());
        assert!(!holds(compare(
            CompareTarget::Value,
            CompareResult::NotEqual,
            value.clone()
        )));
        assert!(holds(compare(
            CompareTarget::Lease,
            CompareResult::Equal,
            TargetUnion::Lease(0)
        )));
        // A target of the wrong kind is 0.
        assert!(holds(compare(
            CompareTarget::Mod,
            CompareResult::Equal,
            value
        )));
        assert!(holds(Compare {
            result: 77,
            ..Default::default()
        }));
    }

    #[test]
    fn reads_alone_need_no_machine() {
        let mut rig = Rig::new();
        rig.put("a", "1");
        rig.put("a", "2");
        let request = on_success(vec![range_op("a", 0), range_op("a", 2)]);
        let response = rig.view().txn(&request).unwrap();
        assert_eq!(response.header.unwrap().revision, 3);
        assert_eq!(response, run(&mut rig, request));
        let writes = on_success(vec![put_op("a", "3", 0)]);
        assert!(rig.view().txn(&writes).is_err());
    }
}
