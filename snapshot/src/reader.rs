//! Opens a file: finds its meta page, tells how large it is, checks the trailing hash.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::format::{META_BYTES, Meta, PAGE_BYTES_MAX, PAGE_BYTES_MIN};
use super::walk::Walk;
use super::{Entries, Error};

const DIGEST_BYTES: u64 = 32;
/// A bbolt file is a multiple of this, so that what is left over is a hash.
///
/// etcd: client/v3/snapshot/v3_snapshot.go (hasChecksum).
const SECTOR_BYTES: u64 = 512;
const READ_BYTES: usize = 256 * 1024;

/// Whether a file has its SHA-256 behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// A snapshot has.
    Present,
    /// The file of a member (`member/snap/db`) has not.
    Missing,
}

/// A file that is open for reading.
pub struct File {
    file: fs::File,
    path: PathBuf,
    meta: Meta,
    /// Bytes without the trailing hash.
    image_bytes: u64,
    digest: Digest,
}

impl File {
    /// Opens `path` and reads what a bbolt file begins with.
    ///
    /// # Errors
    /// When it cannot be read, is no bbolt file, or is shorter than it says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| io_error(path, source);
        let file = fs::File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let digest = match length % SECTOR_BYTES {
            DIGEST_BYTES => Digest::Present,
            _ => Digest::Missing,
        };
        let image_bytes = match digest {
            Digest::Present => length - DIGEST_BYTES,
            Digest::Missing => length,
        };
        let meta = find_meta(&file, path, image_bytes)?;
        let used = u128::from(meta.high_water) * meta.page_bytes as u128;
        if used > u128::from(image_bytes) {
            return Err(Error::Damaged {
                path: path.display().to_string(),
                offset: image_bytes,
                what: format!("it ends here, but its pages take {used} bytes"),
            });
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            meta,
            image_bytes,
            digest,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of the pages that are or were in use: what bbolt calls the size of the database.
    pub fn used_bytes(&self) -> u64 {
        self.meta.high_water * self.meta.page_bytes as u64
    }

    /// Compares the trailing SHA-256 with the content. Reads the whole file.
    ///
    /// # Errors
    /// [`Error::NoDigest`] and [`Error::OtherDigest`], in etcdutl's words.
    pub fn verify_digest(&self) -> Result<(), Error> {
        if self.digest == Digest::Missing {
            return Err(Error::NoDigest);
        }
        let io = |source| io_error(&self.path, source);
        let mut image = fs::File::open(&self.path)
            .map_err(io)?
            .take(self.image_bytes);
        let mut hash = Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match image.read(&mut buffer).map_err(io)? {
                0 => break,
                read => hash.update(&buffer[..read]),
            }
        }
        let mut expected = [0; DIGEST_BYTES as usize];
        self.file
            .read_exact_at(&mut expected, self.image_bytes)
            .map_err(io)?;
        let found: [u8; 32] = hash.finalize().into();
        if found != expected {
            return Err(Error::OtherDigest { expected, found });
        }
        Ok(())
    }

    /// Hands everything that the file holds to `entries`, and checks each page on the way.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the offset of what is wrong, a failed read, or whatever `entries`
    /// returns.
    pub fn walk(&self, entries: &mut dyn Entries) -> Result<(), Error> {
        Walk::new(self).run(entries)
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Reads `length` bytes at `offset`, which lie inside the pages in use, into `buffer`.
    pub(crate) fn read_at(
        &self,
        offset: u64,
        length: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        buffer.resize(length, 0);
        let read = self.file.read_exact_at(buffer, offset);
        read.map_err(|source| io_error(&self.path, source))
    }

    pub(crate) fn damaged(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::Damaged {
            path: self.path.display().to_string(),
            offset,
            what: what.into(),
        }
    }
}

pub fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}

/// The valid meta page of the last commit. The second one lies behind the first page, whose size
/// only a valid meta page tells.
fn find_meta(file: &fs::File, path: &Path, image_bytes: u64) -> Result<Meta, Error> {
    let at = |offset: u64| -> Result<Result<Meta, String>, Error> {
        if offset + META_BYTES as u64 > image_bytes {
            return Ok(Err("the file is too short for a meta page".into()));
        }
        let mut page = [0; META_BYTES];
        let read = file.read_exact_at(&mut page, offset);
        read.map_err(|source| io_error(path, source))?;
        Ok(Meta::decode(&page))
    };
    let first = at(0)?;
    let second = match &first {
        Ok(meta) => at(meta.page_bytes as u64)?.ok(),
        Err(_) => {
            let mut found = None;
            let mut page_bytes = PAGE_BYTES_MIN;
            while page_bytes <= PAGE_BYTES_MAX && found.is_none() {
                let meta = at(page_bytes as u64)?.ok();
                found = meta.filter(|meta| meta.page_bytes == page_bytes);
                page_bytes *= 2;
            }
            found
        }
    };
    match (first, second) {
        (Ok(first), Some(second)) if second.transaction > first.transaction => Ok(second),
        (Ok(first), _) => Ok(first),
        (Err(_), Some(second)) => Ok(second),
        (Err(what), None) => Err(Error::Damaged {
            path: path.display().to_string(),
            offset: 0,
            what: format!("{what}: this is no snapshot of etcd's"),
        }),
    }
}
