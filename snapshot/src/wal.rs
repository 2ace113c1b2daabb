//! What etcd's write-ahead log says of a data directory: whose it is, and how far it goes.
//!
//! etcd: server/storage/wal/decoder.go, wal.go.

use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::reader::io_error;
use super::rewrite::Version;
use super::{Error, etcd};

const TYPE_METADATA: i64 = 1;
const TYPE_ENTRY: i64 = 2;
const TYPE_CRC: i64 = 4;
const TYPE_SNAPSHOT: i64 = 5;
/// The type of a raft entry that holds a request.
const ENTRY_NORMAL: i32 = 0;
/// Since when etcd knows a request to test downgrades.
const DOWNGRADE_TEST_SINCE: Version = (3, 6);
/// No record of etcd's is larger.
const RECORD_BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(uint32, tag = "2")]
    crc: u32,
    #[prost(bytes = "bytes", optional, tag = "3")]
    data: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(uint64, tag = "1")]
    member_id: u64,
    #[prost(uint64, tag = "2")]
    cluster_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", optional, tag = "4")]
    data: Option<Bytes>,
}

/// Of all requests, the only one that an etcd below 3.6 does not know.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, optional, tag = "9900")]
    downgrade_version_test: Option<DowngradeVersionTest>,
}

#[derive(Clone, PartialEq, Message)]
struct DowngradeVersionTest {
    #[prost(string, tag = "1")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    #[prost(uint64, tag = "1")]
    index: u64,
}

/// What a log says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wal {
    pub member_id: u64,
    pub cluster_id: u64,
    /// The index of the last entry; 0 when there is none.
    pub last_index: u64,
    /// Entries that need a certain version of etcd, 3.6 or newer.
    versions: Vec<(u64, Version)>,
    /// The entry at which the last raft snapshot was made.
    snapshot_index: u64,
}

impl Wal {
    /// The version that an etcd must have to understand the entries behind the last raft snapshot;
    /// none when any does.
    ///
    /// etcd: server/storage/wal/version.go.
    pub fn minimal_version(&self) -> Option<Version> {
        let behind = self.versions.iter();
        let behind = behind.filter(|(index, _)| *index > self.snapshot_index);
        behind.map(|(_, version)| *version).max()
    }

    /// Reads every record of the log in `directory`.
    ///
    /// # Errors
    /// When it cannot be read, holds no log, or is damaged before its end.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let mut names: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(directory).map_err(|error| io_error(directory, error))? {
            let path = entry.map_err(|error| io_error(directory, error))?.path();
            if path.extension().is_some_and(|extension| extension == "wal") {
                names.push(path);
            }
        }
        names.sort();
        let mut wal = Self::default();
        let mut named = false;
        let mut crc = 0;
        for (number, path) in names.iter().enumerate() {
            let is_last = number + 1 == names.len();
            wal.read_file(path, is_last, &mut crc, &mut named)?;
        }
        if !named {
            return Err(Error::Damaged {
                path: directory.display().to_string(),
                offset: 0,
                what: "no write-ahead log of etcd's names a member and a cluster here".into(),
            });
        }
        Ok(wal)
    }

    fn read_file(
        &mut self,
        path: &Path,
        is_last: bool,
        crc: &mut u32,
        named: &mut bool,
    ) -> Result<(), Error> {
        let file = fs::File::open(path).map_err(|error| io_error(path, error))?;
        let length = file
            .metadata()
            .map_err(|error| io_error(path, error))?
            .len();
        let mut file = BufReader::new(file);
        let mut offset = 0;
        loop {
            let damaged = |what: String| Error::Damaged {
                path: path.display().to_string(),
                offset,
                what,
            };
            if length - offset < 8 {
                return Ok(());
            }
            let mut head = [0; 8];
            let read = file.read_exact(&mut head);
            read.map_err(|error| io_error(path, error))?;
            let head = u64::from_le_bytes(head);
            // What is preallocated and not yet written.
            if head == 0 {
                return Ok(());
            }
            let data_bytes = head & 0x00ff_ffff_ffff_ffff;
            let padding = if head >> 63 == 1 { head >> 56 & 0x7 } else { 0 };
            let end = offset + 8 + data_bytes + padding;
            if end > length || data_bytes > RECORD_BYTES_MAX {
                // A torn last write was never acknowledged.
                return if is_last {
                    Ok(())
                } else {
                    Err(damaged("a record that is longer than its file".into()))
                };
            }
            let bytes = usize::try_from(data_bytes + padding).unwrap_or(usize::MAX);
            let mut record = vec![0; bytes];
            let read = file.read_exact(&mut record);
            read.map_err(|error| io_error(path, error))?;
            record.truncate(usize::try_from(data_bytes).unwrap_or(usize::MAX));
            let record = Record::decode(Bytes::from(record))
                .map_err(|error| damaged(format!("no record: {error}")))?;
            self.take(&record, crc, named).map_err(damaged)?;
            offset = end;
        }
    }

    fn take(&mut self, record: &Record, crc: &mut u32, named: &mut bool) -> Result<(), String> {
        if record.kind == TYPE_CRC {
            if *crc != 0 && *crc != record.crc {
                return Err("the checksum of the file before is another".into());
            }
            *crc = record.crc;
            return Ok(());
        }
        let data = record.data.as_deref().unwrap_or_default();
        *crc = crc32c::crc32c_append(*crc, data);
        if *crc != record.crc {
            return Err("the checksum of a record is wrong".into());
        }
        match record.kind {
            TYPE_METADATA => {
                let metadata = Metadata::decode(data).map_err(|error| error.to_string())?;
                self.member_id = metadata.member_id;
                self.cluster_id = metadata.cluster_id;
                *named = true;
            }
            TYPE_ENTRY => {
                let entry = Entry::decode(data).map_err(|error| error.to_string())?;
                self.last_index = entry.index;
                self.look_at(&entry);
            }
            TYPE_SNAPSHOT => {
                let snapshot = Snapshot::decode(data).map_err(|error| error.to_string())?;
                self.snapshot_index = snapshot.index;
            }
            _ => {}
        }
        Ok(())
    }

    fn look_at(&mut self, entry: &Entry) {
        // An entry at the place of another replaces it and all behind it.
        self.versions.retain(|(index, _)| *index < entry.index);
        if entry.kind != ENTRY_NORMAL {
            return;
        }
        let data = entry.data.as_deref().unwrap_or_default();
        // What is no request is one of etcd's old API v2, which every version knows.
        let request = Request::decode(data).unwrap_or_default();
        if let Some(test) = request.downgrade_version_test {
            let version = etcd::parse_version(&test.version).unwrap_or_default();
            let version = version.max(DOWNGRADE_TEST_SINCE);
            self.versions.push((entry.index, version));
        }
    }
}
