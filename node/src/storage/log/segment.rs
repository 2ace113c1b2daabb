//! The log's directory and its segment files: names, creation, recycling, the lock.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

use crate::storage::Error;

/// Files kept for reuse; more are removed.
const SPARES_MAX: usize = 2;

/// An open segment. Readers hold it while they read, so it is recycled only when nobody does.
#[derive(Debug)]
pub struct SegmentFile {
    file: File,
    path: PathBuf,
    length: u64,
    /// The file held older records: its blocks need no zeroing before a cheap sync.
    recycled: bool,
}

impl SegmentFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn recycled(&self) -> bool {
        self.recycled
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|e| failed(&self.path, e))
    }

    /// Reads as much of `buffer` as the file has from `offset` on.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Error> {
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(&self.path, e)),
            }
        }
        Ok(read)
    }

    /// Makes the written data durable. A failure is final: the kernel may have dropped the data,
    /// and a second call would claim success.
    pub fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(|e| failed(&self.path, e))
    }
}

/// The directory that holds the segments, locked against a second process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
    spares: Vec<PathBuf>,
    spares_made: u64,
    /// Held for as long as the log is open.
    _lock: File,
}

impl Directory {
    /// Opens or creates the directory (mode 0700) and takes its lock.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let created = !path.exists();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| failed(path, e))?;
        if created {
            let parent = path.canonicalize().map_err(|e| failed(path, e))?;
            if let Some(parent) = parent.parent() {
                let handle = File::open(parent).map_err(|e| failed(parent, e))?;
                handle.sync_all().map_err(|e| failed(parent, e))?;
            }
        }
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| failed(&lock_path, e))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::InUse {
                    path: path.display().to_string(),
                });
            }
            Err(e) => return Err(failed(&lock_path, e.into())),
        }
        Ok(Self {
            path: path.to_owned(),
            handle: File::open(path).map_err(|e| failed(path, e))?,
            spares: Vec::new(),
            spares_made: 0,
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory to look at it alone: nothing is made, locked or removed.
    pub fn look(path: &Path) -> Result<Self, Error> {
        let open = || File::open(path).map_err(|e| failed(path, e));
        Ok(Self {
            path: path.to_owned(),
            handle: open()?,
            spares: Vec::new(),
            spares_made: 0,
            _lock: open()?,
        })
    }

    /// The numbers of the segments in order.
    pub fn numbers(&self) -> Result<Vec<u32>, Error> {
        let mut numbers = Vec::new();
        let listing = std::fs::read_dir(&self.path).map_err(|e| failed(&self.path, e))?;
        for item in listing {
            let name = item.map_err(|e| failed(&self.path, e))?.file_name();
            numbers.extend(name.to_str().and_then(segment_number));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The numbers of the segments in order. Finds the spare files too, and removes those that
    /// are not of `segment_bytes`.
    pub fn list(&mut self, segment_bytes: u64) -> Result<Vec<u32>, Error> {
        let listing = std::fs::read_dir(&self.path).map_err(|e| failed(&self.path, e))?;
        for item in listing {
            let item = item.map_err(|e| failed(&self.path, e))?;
            let name = item.file_name();
            if name.to_str().is_some_and(|name| name.starts_with("spare-")) {
                let path = item.path();
                let length = item.metadata().map_err(|e| failed(&path, e))?.len();
                if length == segment_bytes && self.spares.len() < SPARES_MAX {
                    self.spares.push(path);
                } else {
                    std::fs::remove_file(&path).map_err(|e| failed(&path, e))?;
                }
            }
        }
        self.numbers()
    }

    pub fn open_segment(&self, number: u32) -> Result<Arc<SegmentFile>, Error> {
        let path = self.segment_path(number);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| failed(&path, e))?;
        let length = file.metadata().map_err(|e| failed(&path, e))?.len();
        Ok(Arc::new(SegmentFile {
            file,
            path,
            length,
            recycled: false,
        }))
    }

    /// Makes segment `number` of `length` bytes, which begins with `head`. It appears under its
    /// name only once `head` is durable.
    pub fn create_segment(
        &mut self,
        number: u32,
        length: u64,
        segment_bytes: u64,
        head: &[u8],
    ) -> Result<Arc<SegmentFile>, Error> {
        let spare = if length == segment_bytes {
            self.spares.pop()
        } else {
            None
        };
        let recycled = spare.is_some();
        let from = match spare {
            Some(path) => path,
            None => self.next_spare_path(),
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(!recycled)
            .mode(0o600)
            .open(&from)
            .map_err(|e| failed(&from, e))?;
        if !recycled {
            allocate(&file, length).map_err(|e| failed(&from, e))?;
        }
        file.write_all_at(head, 0).map_err(|e| failed(&from, e))?;
        file.sync_all().map_err(|e| failed(&from, e))?;
        let path = self.segment_path(number);
        std::fs::rename(&from, &path).map_err(|e| failed(&path, e))?;
        self.sync()?;
        Ok(Arc::new(SegmentFile {
            file,
            path,
            length,
            recycled,
        }))
    }

    /// Takes segment `number` out of the log: keeps the file for reuse if nobody reads it.
    pub fn retire_segment(
        &mut self,
        segment: Arc<SegmentFile>,
        segment_bytes: u64,
    ) -> Result<(), Error> {
        let path = segment.path.clone();
        let reusable = segment.length == segment_bytes
            && self.spares.len() < SPARES_MAX
            && Arc::into_inner(segment).is_some();
        if reusable {
            let spare = self.next_spare_path();
            std::fs::rename(&path, &spare).map_err(|e| failed(&path, e))?;
            self.spares.push(spare);
        } else {
            std::fs::remove_file(&path).map_err(|e| failed(&path, e))?;
        }
        // Before the file is written again, and before a younger segment goes.
        self.sync()
    }

    fn segment_path(&self, number: u32) -> PathBuf {
        self.path.join(format!("{number:08x}.log"))
    }

    /// A name that no file has.
    fn next_spare_path(&mut self) -> PathBuf {
        loop {
            self.spares_made += 1;
            let path = self.path.join(format!("spare-{:08x}", self.spares_made));
            if !path.exists() {
                return path;
            }
        }
    }

    fn sync(&self) -> Result<(), Error> {
        self.handle.sync_all().map_err(|e| failed(&self.path, e))
    }
}

fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".log")?;
    (number.len() == 8)
        .then(|| u32::from_str_radix(number, 16).ok())
        .flatten()
}

fn allocate(file: &File, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(length),
        Err(e) => Err(e.into()),
    }
}

pub fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.display().to_string(),
        source,
    }
}
