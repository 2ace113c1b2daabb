//! The compares of a txn.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::model::KeyRange;
use crate::model::kv::Compare;
use crate::model::kv::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::storage::layout::Head;
use crate::storage::{Error, Reader, Record};

/// Whether every compare holds.
///
/// etcd: server/etcdserver/txn/txn.go.
pub(super) fn all_hold(reader: Reader<'_>, compares: &[Compare]) -> Result<bool, Error> {
    for compare in compares {
        if !holds(reader, compare)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the compare holds for every key that it names. A missing key has zeros everywhere,
/// but no value: a compare of values is false.
fn holds(reader: Reader<'_>, compare: &Compare) -> Result<bool, Error> {
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let by_value = compare.target == CompareTarget::Value as i32;
    let mut any = false;
    let mut all = true;
    reader.scan(&range, None, &mut |_, found| {
        any = true;
        let order = if by_value {
            compare_value(compare, &reader.load(&found)?)?
        } else {
            compare_head(compare, &reader.load_head(&found)?)
        };
        all = satisfies(compare.result, order);
        Ok(all)
    })?;
    if any {
        return Ok(all);
    }
    let missing = Head {
        create_revision: 0,
        mod_revision: 0,
        sub: 0,
        version: 0,
        lease: 0,
    };
    Ok(!by_value && satisfies(compare.result, compare_head(compare, &missing)))
}

fn compare_value(compare: &Compare, record: &Bytes) -> Result<Ordering, Error> {
    let record =
        Record::parse(record).ok_or_else(|| Error::Engine("a record cannot be read".to_owned()))?;
    let target: &[u8] = match &compare.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => &[],
    };
    Ok(record.value.cmp(target))
}

/// Compares a number; a target of the wrong kind counts as 0.
fn compare_head(compare: &Compare, head: &Head) -> Ordering {
    let union = compare.target_union.as_ref();
    let (have, want) = match (CompareTarget::try_from(compare.target), union) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(want))) => (head.version, *want),
        (Ok(CompareTarget::Version), _) => (head.version, 0),
        (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(want))) => {
            (head.create_revision, *want)
        }
        (Ok(CompareTarget::Create), _) => (head.create_revision, 0),
        (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(want))) => {
            (head.mod_revision, *want)
        }
        (Ok(CompareTarget::Mod), _) => (head.mod_revision, 0),
        (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(want))) => (head.lease, *want),
        (Ok(CompareTarget::Lease), _) => (head.lease, 0),
        // Values are compared elsewhere; an unknown target is equal, as in etcd.
        (Ok(CompareTarget::Value) | Err(_), _) => (0, 0),
    };
    have.cmp(&want)
}

/// An unknown result always holds, as in etcd.
fn satisfies(result: i32, order: Ordering) -> bool {
    match CompareResult::try_from(result) {
        Ok(CompareResult::Equal) => order == Ordering::Equal,
        Ok(CompareResult::NotEqual) => order != Ordering::Equal,
        Ok(CompareResult::Greater) => order == Ordering::Greater,
        Ok(CompareResult::Less) => order == Ordering::Less,
        Err(_) => true,
    }
}
