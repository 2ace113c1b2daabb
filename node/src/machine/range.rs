//! Range: fetch, filter, sort, cut.
//!
//! etcd: server/etcdserver/txn/range.go.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::header;
use super::revision::decode;
use crate::model::kv::range_request::{SortOrder, SortTarget};
use crate::model::kv::{KeyValue, RangeRequest, RangeResponse};
use crate::model::{KeyRange, Refusal};
use crate::storage::{Error, Found, Reader};

/// The answer to a Range in pieces that need no encoding.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct EncodedRange {
    /// `RangeResponse.kvs`, each with its field tag and length, one after the other.
    pub kvs: Bytes,
    pub more: bool,
    pub count: i64,
}

/// The number of `kvs` in `RangeResponse`.
const KVS_FIELD: u32 = 2;

/// The older revision that a request reads at; none is the current state.
pub(super) fn pinned(
    requested: i64,
    revision: i64,
    compacted: i64,
) -> Result<Option<i64>, Refusal> {
    if requested > revision {
        Err(Refusal::FutureRevision)
    } else if requested <= 0 || requested == revision {
        Ok(None)
    } else if requested < compacted {
        Err(Refusal::Compacted)
    } else {
        Ok(Some(requested))
    }
}

/// Answers `request`. Without `at` it reads the current state of `reader`.
pub(super) fn respond(
    reader: Reader<'_>,
    request: &RangeRequest,
    at: Option<i64>,
    current: i64,
) -> Result<RangeResponse, Error> {
    let range = KeyRange::new(&request.key, &request.range_end);
    if request.count_only {
        return Ok(RangeResponse {
            header: header(current),
            count: reader.count(&range, at)?,
            ..Default::default()
        });
    }
    let (mut kvs, count) = fetch(reader, &range, at, request)?;
    filter(&mut kvs, request);
    sort(&mut kvs, request);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        for pair in &mut kvs {
            pair.value = Bytes::new();
        }
    }
    Ok(RangeResponse {
        header: header(current),
        kvs,
        more,
        count,
    })
}

/// As [`respond`]; a plain request is spliced together from the records as they lie on disk.
pub(super) fn encode(
    reader: Reader<'_>,
    request: &RangeRequest,
    at: Option<i64>,
) -> Result<EncodedRange, Error> {
    let key_order = request.sort_target == SortTarget::Key as i32 && is_default_order(request);
    if request.count_only || request.keys_only || !key_order || has_filters(request) {
        let response = respond(reader, request, at, 0)?;
        let mut kvs = Vec::new();
        for pair in &response.kvs {
            encode_key(KVS_FIELD, WireType::LengthDelimited, &mut kvs);
            encode_varint(pair.encoded_len() as u64, &mut kvs);
            pair.encode_raw(&mut kvs);
        }
        return Ok(EncodedRange {
            kvs: kvs.into(),
            more: response.more,
            count: response.count,
        });
    }
    let range = KeyRange::new(&request.key, &request.range_end);
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let mut kvs = Vec::new();
    let mut fetched = 0;
    let rest = scan_limited(reader, &range, at, limit, &mut |_, found| {
        fetched += 1;
        reader.with_record(&found, |record| {
            encode_key(KVS_FIELD, WireType::LengthDelimited, &mut kvs);
            encode_varint(record.len() as u64, &mut kvs);
            kvs.extend_from_slice(record);
        })
    })?;
    let more = rest.is_some();
    let behind = rest.map_or(Ok(0), |rest| reader.count(&rest, at))?;
    Ok(EncodedRange {
        kvs: kvs.into(),
        more,
        count: fetched + behind,
    })
}

/// What [`scan_limited`] calls for each key.
type Each<'e> = dyn FnMut(&[u8], Found<'_>) -> Result<(), Error> + 'e;

/// Visits at most `limit` keys (0: all). Returns the part of the range that has more.
fn scan_limited(
    reader: Reader<'_>,
    range: &KeyRange,
    at: Option<i64>,
    limit: usize,
    visit: &mut Each<'_>,
) -> Result<Option<KeyRange>, Error> {
    let mut visited = 0;
    let mut next = None;
    reader.scan(range, at, &mut |key, found| {
        if limit > 0 && visited == limit {
            next = Some(Bytes::copy_from_slice(key));
            return Ok(false);
        }
        visited += 1;
        visit(key, found)?;
        Ok(true)
    })?;
    Ok(next.map(|start| match range {
        KeyRange::Between { end, .. } => KeyRange::Between {
            start,
            end: end.clone(),
        },
        KeyRange::One(_) | KeyRange::From(_) => KeyRange::From(start),
    }))
}

/// The pairs that the request's filters, sort and limit work on, and how many there are in all.
fn fetch(
    reader: Reader<'_>,
    range: &KeyRange,
    at: Option<i64>,
    request: &RangeRequest,
) -> Result<(Vec<KeyValue>, i64), Error> {
    // With an order of NONE, etcd cuts by key before it sorts by another target.
    let limit = if is_default_order(request) && !has_filters(request) && request.limit > 0 {
        usize::try_from(request.limit.saturating_add(1)).unwrap_or(usize::MAX)
    } else {
        0
    };
    // etcd answers these from its index, which knows no leases.
    let heads_only = request.keys_only && request.sort_target != SortTarget::Value as i32;
    let mut kvs = Vec::new();
    let rest = scan_limited(reader, range, at, limit, &mut |key, found| {
        if heads_only {
            let head = reader.load_head(&found)?;
            kvs.push(KeyValue {
                key: Bytes::copy_from_slice(key),
                create_revision: head.create_revision,
                mod_revision: head.mod_revision,
                version: head.version,
                ..Default::default()
            });
        } else {
            kvs.push(decode(reader.load(&found)?)?);
        }
        Ok(())
    })?;
    let behind = rest.map_or(Ok(0), |rest| reader.count(&rest, at))?;
    let total = i64::try_from(kvs.len()).unwrap_or(i64::MAX) + behind;
    Ok((kvs, total))
}

fn is_default_order(request: &RangeRequest) -> bool {
    request.sort_order == SortOrder::None as i32
        || (request.sort_target == SortTarget::Key as i32
            && request.sort_order == SortOrder::Ascend as i32)
}

fn has_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn filter(kvs: &mut Vec<KeyValue>, request: &RangeRequest) {
    let keeps = |revision: i64, min: i64, max: i64| {
        (min == 0 || revision >= min) && (max == 0 || revision <= max)
    };
    if has_filters(request) {
        kvs.retain(|pair| {
            let (min, max) = (request.min_mod_revision, request.max_mod_revision);
            let by_mod = keeps(pair.mod_revision, min, max);
            let (min, max) = (request.min_create_revision, request.max_create_revision);
            by_mod && keeps(pair.create_revision, min, max)
        });
    }
}

fn sort(kvs: &mut [KeyValue], request: &RangeRequest) {
    let order = |a: &KeyValue, b: &KeyValue| match SortTarget::try_from(request.sort_target) {
        Ok(SortTarget::Version) => a.version.cmp(&b.version),
        Ok(SortTarget::Create) => a.create_revision.cmp(&b.create_revision),
        Ok(SortTarget::Mod) => a.mod_revision.cmp(&b.mod_revision),
        Ok(SortTarget::Value) => a.value.cmp(&b.value),
        Ok(SortTarget::Key) | Err(_) => a.key.cmp(&b.key),
    };
    if request.sort_order == SortOrder::Descend as i32 {
        kvs.sort_by(|a, b| order(b, a));
    } else if request.sort_target != SortTarget::Key as i32 {
        kvs.sort_by(order);
    }
}
