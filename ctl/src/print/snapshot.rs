//! The status of a snapshot file.

use super::rows::Rows;
use super::{Format, table};
use crate::go::format_bytes;
use crate::outcome::{Exit, code};
use quorate_snapshot::Status;

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
        Format::Protobuf => {
            let text = "protobuf not supported as output format";
            return Err(Exit::new(code::BAD_FEATURE, text));
        }
    })
}
