//! Answers of the server in the five output formats.

mod fields;
mod json;
mod protobuf;
mod rows;
mod simple;
mod snapshot;
mod table;

pub use simple::event_name;
pub use snapshot::{snapshot_hash, snapshot_status};

use crate::outcome::{Exit, code};
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use std::io::Write as _;

/// The value of `--write-out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people and scripts.
    Simple,
    /// One field a line.
    Fields,
    /// JSON.
    Json,
    /// The answer as it came.
    Protobuf,
    /// A table.
    Table,
}

impl Format {
    /// Reads the name of a format.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "simple" => Self::Simple,
            "fields" => Self::Fields,
            "json" => Self::Json,
            "protobuf" => Self::Protobuf,
            "table" => Self::Table,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Fields => "fields",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Table => "table",
        }
    }
}

/// The health of one endpoint.
#[derive(Debug)]
pub struct Health {
    /// The endpoint as it was given.
    pub endpoint: String,
    /// Whether it answered a linearizable read and has no alarm.
    pub health: bool,
    /// How long that took; empty when there was no connection at all.
    pub took: String,
    /// What is wrong; empty when nothing is.
    pub error: String,
}

/// An answer, with what of the question its text repeats.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// Of `get`, `lock` and `elect`.
    Get(&'a pb::RangeResponse),
    /// Of `put`.
    Put(&'a pb::PutResponse),
    /// Of `del`.
    Delete(&'a pb::DeleteRangeResponse),
    /// Of `txn`.
    Txn(&'a pb::TxnResponse),
    /// Of `watch`.
    Watch(&'a pb::WatchResponse),
    /// Of `lease grant`.
    Grant(&'a pb::LeaseGrantResponse),
    /// Of `lease revoke ID`.
    Revoke(i64, &'a pb::LeaseRevokeResponse),
    /// Of `lease keep-alive`.
    KeepAlive(&'a pb::LeaseKeepAliveResponse),
    /// Of `lease timetolive`, with `--keys` or without.
    TimeToLive(&'a pb::LeaseTimeToLiveResponse, bool),
    /// Of `lease list`.
    Leases(&'a pb::LeaseLeasesResponse),
    /// Of `member add`.
    MemberAdd(&'a pb::MemberAddResponse),
    /// Of `member remove ID`.
    MemberRemove(u64, &'a pb::MemberRemoveResponse),
    /// Of `member update ID`.
    MemberUpdate(u64, &'a pb::MemberUpdateResponse),
    /// Of `member promote ID`.
    MemberPromote(u64, &'a pb::MemberPromoteResponse),
    /// Of `member list`.
    MemberList(&'a pb::MemberListResponse),
    /// Of `endpoint health`.
    Health(&'a [Health]),
    /// Of `endpoint status`.
    Status(&'a [(String, pb::StatusResponse)]),
    /// Of `endpoint hashkv`.
    HashKv(&'a [(String, pb::HashKvResponse)]),
    /// Of `move-leader`: from, to.
    MoveLeader(u64, u64, &'a pb::MoveLeaderResponse),
    /// Of `alarm list` and `alarm disarm`.
    Alarm(&'a pb::AlarmResponse),
    /// Of `downgrade validate|enable|cancel`.
    Downgrade(&'static str, &'a pb::DowngradeResponse),
    /// Of `auth status`.
    AuthStatus(&'a pb::AuthStatusResponse),
    /// Of `user add USER`.
    UserAdd(&'a [u8], &'a pb::AuthUserAddResponse),
    /// Of `user delete USER`.
    UserDelete(&'a [u8], &'a pb::AuthUserDeleteResponse),
    /// Of `user get USER`.
    UserGet(&'a [u8], &'a pb::AuthUserGetResponse),
    /// Of `user list`.
    UserList(&'a pb::AuthUserListResponse),
    /// Of `user passwd`.
    UserPassword(&'a pb::AuthUserChangePasswordResponse),
    /// Of `user grant-role USER ROLE`.
    UserGrantRole(&'a [u8], &'a [u8], &'a pb::AuthUserGrantRoleResponse),
    /// Of `user revoke-role USER ROLE`.
    UserRevokeRole(&'a [u8], &'a [u8], &'a pb::AuthUserRevokeRoleResponse),
    /// Of `role add ROLE`.
    RoleAdd(&'a [u8], &'a pb::AuthRoleAddResponse),
    /// Of `role delete ROLE`.
    RoleDelete(&'a [u8], &'a pb::AuthRoleDeleteResponse),
    /// Of `role get ROLE`.
    RoleGet(&'a [u8], &'a pb::AuthRoleGetResponse),
    /// Of `role list`.
    RoleList(&'a pb::AuthRoleListResponse),
    /// Of `role grant-permission ROLE`.
    RoleGrant(&'a [u8], &'a pb::AuthRoleGrantPermissionResponse),
    /// Of `role revoke-permission ROLE KEY END`.
    RoleRevoke(
        &'a [u8],
        &'a [u8],
        &'a [u8],
        &'a pb::AuthRoleRevokePermissionResponse,
    ),
}

/// How answers are written.
#[derive(Debug, Clone, Copy)]
pub struct Display {
    /// `--write-out`.
    pub format: Format,
    /// `--hex`.
    pub hex: bool,
    /// `--print-value-only`.
    pub value_only: bool,
}

impl Display {
    /// Writes an answer to standard output.
    ///
    /// # Errors
    /// When the format does not have this answer, or standard output is closed.
    pub fn show(self, answer: Answer<'_>) -> Result<(), Exit> {
        let bytes = self.render(answer)?;
        emit(&bytes)
    }

    /// The bytes of an answer.
    ///
    /// # Errors
    /// When the format does not have this answer.
    pub fn render(self, answer: Answer<'_>) -> Result<Vec<u8>, Exit> {
        let bytes = match self.format {
            Format::Simple => Some(simple::render(answer, self.hex, self.value_only)),
            Format::Fields => fields::render(answer, self.hex),
            Format::Json => Some(json::render(answer, self.hex).into_bytes()),
            Format::Protobuf => protobuf::render(answer)?,
            Format::Table => table::render(answer),
        };
        bytes.ok_or_else(|| {
            let text = format!("{} not supported as output format", self.format.name());
            Exit::new(code::BAD_FEATURE, text)
        })
    }
}

/// Writes to standard output at once.
///
/// # Errors
/// When it cannot be written to.
pub fn emit(bytes: &[u8]) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Writes one line to standard output.
///
/// # Errors
/// When it cannot be written to.
pub fn emit_line(line: &str) -> Result<(), Exit> {
    emit(format!("{line}\n").as_bytes())
}

/// The header of an answer, or an empty one.
fn header(header: &Option<pb::ResponseHeader>) -> pb::ResponseHeader {
    header.unwrap_or_default()
}

/// The key behind the last key that starts with `prefix`; a zero byte when there is none.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end.into();
        }
        end.pop();
    }
    Bytes::from_static(b"\0")
}
