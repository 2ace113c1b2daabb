//! What etcd's write-ahead log says of a data directory: whose it is, and how far it goes.
//!
//! etcd: server/storage/wal/decoder.go, wal.go.

use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::Error;
use super::reader::io_error;

const TYPE_METADATA: i64 = 1;
const TYPE_ENTRY: i64 = 2;
const TYPE_CRC: i64 = 4;
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
    #[prost(uint64, tag = "3")]
    index: u64,
}

/// What a log says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wal {
    pub member_id: u64,
    pub cluster_id: u64,
    /// The index of the last entry; 0 when there is none.
    pub last_index: u64,
}

impl Wal {
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
            }
            _ => {}
        }
        Ok(())
    }
}
