//! Checks of Range, Put and DeleteRange.
//!
//! etcd: server/etcdserver/api/v3rpc/key.go.

use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tonic::Status;

use crate::api::status::status;
use crate::model::Refusal;
use crate::model::kv::{DeleteRangeRequest, PutRequest, RangeRequest};

/// Checks a Range.
pub fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// Checks a RangeStream, which takes neither sorts nor revision filters.
pub fn range_stream(request: &RangeRequest) -> Result<(), Status> {
    range(request).map_err(status)?;
    let in_key_order = request.sort_order == SortOrder::None as i32
        || (request.sort_target == SortTarget::Key as i32
            && request.sort_order == SortOrder::Ascend as i32);
    if !in_key_order {
        return Err(Status::unimplemented(
            "RangeStream does not support custom sort orders",
        ));
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(Status::unimplemented(
            "RangeStream does not support revision filters",
        ));
    }
    Ok(())
}

/// Checks a Put.
pub fn put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// Checks a DeleteRange.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn key() -> Bytes {
        Bytes::from_static(b"k")
    }

    #[test]
    fn a_range_needs_a_key_and_known_sorts() {
        let good = RangeRequest {
            key: key(),
            ..Default::default()
        };
        assert_eq!(range(&good), Ok(()));
        assert_eq!(range(&RangeRequest::default()), Err(Refusal::EmptyKey));
        let order = RangeRequest {
            sort_order: 3,
            ..good.clone()
        };
        let target = RangeRequest {
            sort_target: 5,
            ..good.clone()
        };
        let negative = RangeRequest {
            sort_target: -1,
            ..good
        };
        for request in [order, target, negative] {
            assert_eq!(range(&request), Err(Refusal::InvalidSortOption));
        }
    }

    #[test]
    fn a_put_keeps_its_options_apart() {
        let put_with = |value: &'static str, lease, ignore_value, ignore_lease| {
            put(&PutRequest {
                key: key(),
                value: Bytes::from_static(value.as_bytes()),
                lease,
                ignore_value,
                ignore_lease,
                ..Default::default()
            })
        };
        assert_eq!(put(&PutRequest::default()), Err(Refusal::EmptyKey));
        assert_eq!(put_with("v", 7, false, false), Ok(()));
        assert_eq!(put_with("", 7, true, false), Ok(()));
        assert_eq!(put_with("v", 0, false, true), Ok(()));
        assert_eq!(put_with("v", 0, true, false), Err(Refusal::ValueProvided));
        assert_eq!(put_with("", 7, false, true), Err(Refusal::LeaseProvided));
        // Both are wrong: the value is looked at first.
        assert_eq!(put_with("v", 7, true, true), Err(Refusal::ValueProvided));
    }

    #[test]
    fn a_delete_needs_a_key() {
        assert_eq!(
            delete_range(&DeleteRangeRequest::default()),
            Err(Refusal::EmptyKey)
        );
    }

    #[test]
    fn a_range_stream_takes_key_order_only() {
        let with = |sort_order, sort_target, min_mod_revision| {
            range_stream(&RangeRequest {
                key: key(),
                sort_order,
                sort_target,
                min_mod_revision,
                ..Default::default()
            })
            .map_err(|status| (status.code(), status.message().to_owned()))
        };
        let refused = |text: &str| Err((tonic::Code::Unimplemented, text.to_owned()));
        assert_eq!(with(0, 0, 0), Ok(()));
        assert_eq!(with(1, 0, 0), Ok(()));
        let order = "RangeStream does not support custom sort orders";
        assert_eq!(with(2, 0, 0), refused(order));
        assert_eq!(with(1, 3, 0), refused(order));
        assert_eq!(with(0, 3, 0), Ok(()));
        assert_eq!(
            with(0, 0, 1),
            refused("RangeStream does not support revision filters")
        );
    }
}
