//! What our `snapshot restore` writes beside the file: whose it is. etcdutl writes a write-ahead
//! log instead, which says the same.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use super::reader::io_error;

/// The name of the file in `member/`.
const NAME: &str = "restored.json";
const FORMAT: u32 = 1;
const FILE_MODE: u32 = 0o600;

/// The member and the cluster of a restored directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    pub member_id: u64,
    pub cluster_id: u64,
}

#[derive(Serialize, Deserialize)]
struct Text {
    format: u32,
    member_id: String,
    cluster_id: String,
}

impl Manifest {
    /// Reads the manifest in `member`; none when there is none.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read(member: &Path) -> Result<Option<Self>, Error> {
        let path = member.join(NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path, error)),
        };
        let manifest = || {
            let text: Text = serde_json::from_slice(&text).ok()?;
            (text.format == FORMAT).then_some(())?;
            Some(Self {
                member_id: u64::from_str_radix(&text.member_id, 16).ok()?,
                cluster_id: u64::from_str_radix(&text.cluster_id, 16).ok()?,
            })
        };
        let manifest = manifest().ok_or_else(|| Error::Damaged {
            path: path.display().to_string(),
            offset: 0,
            what: "no manifest of a restored directory that this version knows".into(),
        })?;
        Ok(Some(manifest))
    }

    /// Writes the manifest into `member`, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, member: &Path) -> Result<(), Error> {
        let path = member.join(NAME);
        let text = Text {
            format: FORMAT,
            member_id: format!("{:x}", self.member_id),
            cluster_id: format!("{:x}", self.cluster_id),
        };
        let mut text = serde_json::to_vec_pretty(&text).map_err(Error::sink)?;
        text.push(b'\n');
        let file = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(FILE_MODE)
            .open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        written.map_err(|error| io_error(&path, error))
    }
}
