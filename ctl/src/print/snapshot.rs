//! The status and the hash of a snapshot file.

use super::rows::Rows;
use super::{Format, table};
use crate::go::format_bytes;
use crate::outcome::{Exit, code};
use quorate_snapshot::{HashKv, Status};

/// A file's status in `format`, as etcdutl prints it.
///
/// # Errors
/// When there is no such format for it.
pub fn snapshot_status(status: &Status, format: Format) -> Result<String, Exit> {
    let Status {
        hash,
        revision,
        total_keys,
        total_bytes,
        ..
    } = status;
    let version = status.version.as_deref().unwrap_or_default();
    let cells = vec![
        format!("{hash:x}"),
        revision.to_string(),
        total_keys.to_string(),
        format_bytes(*total_bytes),
        version.to_owned(),
    ];
    Ok(match format {
        Format::Simple => cells.join(", ") + "\n",
        Format::Table => table::draw(&Rows {
            headings: &["hash", "revision", "total keys", "total size", "version"],
            rows: vec![cells],
        }),
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {total_keys}\n\
             \"Size\" : {total_bytes}\n\"Version\" : {version}\n"
        ),
        Format::Json => format!(
            "{{\"hash\":{hash},\"revision\":{revision},\"totalKey\":{total_keys},\
             \"totalSize\":{total_bytes},\"version\":\"{version}\"}}\n"
        ),
        Format::Protobuf => return Err(no_protobuf()),
    })
}

/// The hash of a file's records in `format`, as etcdutl prints it.
///
/// # Errors
/// When there is no such format for it.
pub fn snapshot_hash(found: &HashKv, format: Format) -> Result<String, Exit> {
    let HashKv {
        hash,
        revision,
        compacted,
    } = found;
    let cells = vec![
        hash.to_string(),
        revision.to_string(),
        compacted.to_string(),
    ];
    Ok(match format {
        Format::Simple => cells.join(", ") + "\n",
        Format::Table => table::draw(&Rows {
            headings: &["hash", "hash revision", "compact revision"],
            rows: vec![cells],
        }),
        Format::Fields => format!(
            "\"Hash\" : {hash}\n\"Hash revision\" : {revision}\n\
             \"Compact revision\" : {compacted}\n"
        ),
        Format::Json => format!(
            "{{\"hash\":{hash},\"hashRevision\":{revision},\"compactRevision\":{compacted}}}\n"
        ),
        Format::Protobuf => return Err(no_protobuf()),
    })
}

fn no_protobuf() -> Exit {
    Exit::new(code::BAD_FEATURE, "protobuf not supported as output format")
}
