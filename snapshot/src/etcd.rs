//! etcd's buckets: their names, and the form of what lies in them.
//!
//! etcd: server/storage/schema/, server/storage/mvcc/revision.go.

use bytes::Bytes;
use prost::Message;
use quorate_proto::mvccpb::KeyValue;
use serde::{Deserialize, Serialize};

use super::{Entries, Error};

pub const ALARM: &[u8] = b"alarm";
pub const AUTH: &[u8] = b"auth";
pub const AUTH_ROLES: &[u8] = b"authRoles";
pub const AUTH_USERS: &[u8] = b"authUsers";
pub const CLUSTER: &[u8] = b"cluster";
pub const KEY: &[u8] = b"key";
pub const LEASE: &[u8] = b"lease";
pub const MEMBERS: &[u8] = b"members";
pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
pub const META: &[u8] = b"meta";

/// All of them, in the order in which they lie in the file.
pub const BUCKETS: [&[u8]; 10] = [
    ALARM,
    AUTH,
    AUTH_ROLES,
    AUTH_USERS,
    CLUSTER,
    KEY,
    LEASE,
    MEMBERS,
    MEMBERS_REMOVED,
    META,
];
/// The newest storage version that is understood, major and minor.
const STORAGE_VERSION_MAX: (u64, u64) = (3, 7);

// Keys of the bucket `meta`.
pub const CONF_STATE: &[u8] = b"confState";
pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
pub const TERM: &[u8] = b"term";
// Keys of the bucket `auth`.
pub const AUTH_ENABLED: &[u8] = b"authEnabled";
pub const AUTH_REVISION: &[u8] = b"authRevision";
/// The key of the bucket `cluster`.
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";

const REVISION_BYTES: usize = 17;
const TOMBSTONE: u8 = b't';

/// A key of the bucket `key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    pub main: i64,
    pub sub: i64,
    pub is_tombstone: bool,
}

/// Writes a key of the bucket `key` into `buffer`.
pub fn encode_revision(revision: Revision, buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(&revision.main.to_be_bytes());
    buffer.push(b'_');
    buffer.extend_from_slice(&revision.sub.to_be_bytes());
    if revision.is_tombstone {
        buffer.push(TOMBSTONE);
    }
}

/// Reads what [`encode_revision`] wrote.
///
/// # Errors
/// When it is no revision.
pub fn decode_revision(key: &[u8]) -> Result<Revision, Error> {
    let revision = || {
        let (main, rest) = key.split_first_chunk::<8>()?;
        let (separator, rest) = rest.split_first()?;
        let (sub, mark) = rest.split_first_chunk::<8>()?;
        let revision = Revision {
            main: i64::from_be_bytes(*main),
            sub: i64::from_be_bytes(*sub),
            is_tombstone: mark == [TOMBSTONE],
        };
        let is_right = *separator == b'_'
            && (mark.is_empty() || revision.is_tombstone)
            && revision.main >= 0
            && revision.sub >= 0;
        is_right.then_some(revision)
    };
    revision().ok_or_else(|| {
        let shown = key.get(..REVISION_BYTES + 1).unwrap_or(key).escape_ascii();
        Error::content(KEY, format!("cannot parse revision key: \"{shown}\""))
    })
}

/// A compaction's mark in the bucket `meta`.
///
/// # Errors
/// When it is no revision.
pub fn decode_compaction(value: &[u8]) -> Result<i64, Error> {
    decode_revision(value).map(|revision| revision.main)
}

/// A number in the bucket `meta`.
///
/// # Errors
/// When it is none.
pub fn number(value: &[u8]) -> Result<u64, Error> {
    let number = value.try_into().map(u64::from_be_bytes);
    number.map_err(|_| Error::content(META, "a number that has not 8 bytes"))
}

/// Refuses a file of a newer etcd, which may hold what we do not know.
///
/// # Errors
/// When `value` is no storage version, or one that is newer than ours.
pub fn check_storage_version(value: &[u8]) -> Result<(), Error> {
    let shown = String::from_utf8_lossy(value);
    let version = parse_version(&shown);
    let version =
        version.ok_or_else(|| Error::content(META, format!("storage version {shown:?}")))?;
    let (major, minor) = STORAGE_VERSION_MAX;
    if version > STORAGE_VERSION_MAX {
        let what = format!("storage version {shown} is newer than {major}.{minor}");
        return Err(Error::content(META, what));
    }
    Ok(())
}

/// Major and minor of a version such as `3.7.0`.
pub fn parse_version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.').map(str::parse::<u64>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

/// The key of the record that `value` of the bucket `key` is.
///
/// # Errors
/// When it is no record.
pub fn user_key(value: &[u8]) -> Result<Bytes, Error> {
    record(value).map(|record| record.key)
}

/// The record that `value` of the bucket `key` is.
///
/// # Errors
/// When it is no record.
pub fn record(value: &[u8]) -> Result<KeyValue, Error> {
    KeyValue::decode(value)
        .map_err(|error| Error::content(KEY, format!("cannot unmarshal value: {error}")))
}

/// Writes the value of a tombstone of `key` into `buffer`: a record with nothing but its key.
pub fn encode_tombstone(key: &[u8], buffer: &mut Vec<u8>) {
    buffer.clear();
    prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, buffer);
    prost::encoding::encode_varint(key.len() as u64, buffer);
    buffer.extend_from_slice(key);
}

/// A value of the bucket `lease`, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Lease {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(int64, tag = "2")]
    pub ttl: i64,
    /// From the last checkpoint; 0 when there is none.
    #[prost(int64, tag = "3")]
    pub remaining_ttl: i64,
}

impl Lease {
    /// The value in the bucket `lease`.
    pub fn encoded(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

/// Reads a value of the bucket `lease`.
///
/// # Errors
/// When it is no lease.
pub fn lease(value: &[u8]) -> Result<Lease, Error> {
    Lease::decode(value).map_err(|error| Error::content(LEASE, format!("not a lease: {error}")))
}

/// A key of the bucket `lease`.
pub fn lease_key(id: i64) -> [u8; 8] {
    id.to_be_bytes()
}

/// A value of the bucket `members`. The fields are in etcd's order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: u64,
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    #[serde(
        rename = "isLearner",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

impl Member {
    /// The key in the bucket `members`.
    pub fn key(&self) -> String {
        format!("{:x}", self.id)
    }

    /// The value in the bucket `members`.
    ///
    /// # Errors
    /// Never, as far as serde knows.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(Error::sink)
    }

    /// Reads what [`Member::encode`] wrote.
    ///
    /// # Errors
    /// When it is no member.
    pub fn decode(value: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(value)
            .map_err(|error| Error::content(MEMBERS, format!("not a member: {error}")))
    }
}

/// A value of `confState` in the bucket `meta`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfState {
    #[serde(default)]
    pub voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<u64>,
    #[serde(default)]
    pub auto_leave: bool,
}

/// What lies beside the records and the leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    pub applied_index: u64,
    pub applied_term: u64,
    pub members: Vec<Member>,
    /// The revision of the last compaction, if there was one.
    pub scheduled_compact: Option<i64>,
    /// That of the last one of which everything is deleted.
    pub finished_compact: Option<i64>,
    /// Such as `3.7.0`.
    pub storage_version: String,
    pub auth_revision: u64,
    /// Encoded `etcdserverpb.AlarmMember`s, in any order.
    pub alarms: Vec<Vec<u8>>,
}

impl Head {
    /// The buckets before `key`.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn feed_before_keys(&self, out: &mut dyn Entries) -> Result<(), Error> {
        out.bucket(ALARM)?;
        let mut alarms: Vec<_> = self.alarms.iter().collect();
        alarms.sort_unstable();
        for alarm in alarms {
            out.entry(alarm, &[])?;
        }
        out.bucket(AUTH)?;
        out.entry(AUTH_REVISION, &self.auth_revision.to_be_bytes())?;
        out.bucket(AUTH_ROLES)?;
        out.bucket(AUTH_USERS)?;
        out.bucket(CLUSTER)?;
        out.entry(CLUSTER_VERSION, self.storage_version.as_bytes())
    }

    /// The buckets after `lease`.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn feed_after_leases(&self, out: &mut dyn Entries) -> Result<(), Error> {
        out.bucket(MEMBERS)?;
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by_key(|member| member.key());
        for member in members {
            out.entry(member.key().as_bytes(), &member.encode()?)?;
        }
        out.bucket(MEMBERS_REMOVED)?;
        out.bucket(META)?;
        let ids = |learners: bool| {
            let members = self.members.iter();
            let ids = members
                .filter(|it| it.is_learner == learners)
                .map(|it| it.id);
            ids.collect()
        };
        let conf_state = ConfState {
            voters: ids(false),
            learners: ids(true),
            auto_leave: false,
        };
        let conf_state = serde_json::to_vec(&conf_state).map_err(Error::sink)?;
        out.entry(CONF_STATE, &conf_state)?;
        out.entry(CONSISTENT_INDEX, &self.applied_index.to_be_bytes())?;
        let mut revision = Vec::with_capacity(REVISION_BYTES);
        for (name, main) in [
            (FINISHED_COMPACT, self.finished_compact),
            (SCHEDULED_COMPACT, self.scheduled_compact),
        ] {
            let Some(main) = main else { continue };
            encode_compaction(main, &mut revision);
            out.entry(name, &revision)?;
        }
        out.entry(STORAGE_VERSION, self.storage_version.as_bytes())?;
        out.entry(TERM, &self.applied_term.to_be_bytes())
    }
}

/// Writes a compaction's mark of the bucket `meta` into `buffer`.
pub fn encode_compaction(main: i64, buffer: &mut Vec<u8>) {
    let revision = Revision {
        main,
        sub: 0,
        is_tombstone: false,
    };
    encode_revision(revision, buffer);
}
