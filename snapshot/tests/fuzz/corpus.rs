//! The files to begin with: what our writer makes, and what is kept in `corpus/`.
//!
//! A kept file lies there without its zeros: its length (8 bytes), then pieces: offset (4 bytes),
//! length (2 bytes), bytes; all numbers little endian. A page of bbolt's is mostly zeros.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_snapshot::{Entries, Error, File, Plan, StorageVersion, Writer, etcd, rewrite};

const CHUNK_BYTES: usize = 32;

fn folder() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&package).join("corpus")
}

/// All files, by name.
pub fn seeds(scratch: &Path) -> Vec<(String, Vec<u8>)> {
    let mut seeds = written(scratch);
    let mut names: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    for path in names {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        seeds.push((name, unpack(&fs::read(&path).unwrap())));
    }
    assert!(seeds.len() > 8, "the corpus is there");
    seeds
}

/// Adds a file to the corpus, under a name that says what comes of it, unless a smaller one has it.
pub fn keep(kind: &str, file: &[u8]) {
    let words = kind.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).take(12).collect();
    let path = folder().join(words.join("-"));
    let packed = pack(file);
    let is_smaller = |old: fs::Metadata| (packed.len() as u64) < old.len();
    if fs::metadata(&path).map_or(true, is_smaller) {
        fs::write(path, packed).unwrap();
    }
}

/// The form in which a file is kept.
pub fn pack(file: &[u8]) -> Vec<u8> {
    let mut packed = (file.len() as u64).to_le_bytes().to_vec();
    for (number, chunk) in file.chunks(CHUNK_BYTES).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            let offset = u32::try_from(number * CHUNK_BYTES).unwrap();
            packed.extend_from_slice(&offset.to_le_bytes());
            packed.extend_from_slice(&u16::try_from(chunk.len()).unwrap().to_le_bytes());
            packed.extend_from_slice(chunk);
        }
    }
    packed
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let (length, mut rest) = packed.split_first_chunk::<8>().unwrap();
    let mut file = vec![0; usize::try_from(u64::from_le_bytes(*length)).unwrap()];
    while let Some((offset, after)) = rest.split_first_chunk::<4>() {
        let (length, after) = after.split_first_chunk::<2>().unwrap();
        let (offset, length) = (u32::from_le_bytes(*offset), u16::from_le_bytes(*length));
        let (piece, after) = after.split_at(usize::from(length));
        file[offset as usize..][..piece.len()].copy_from_slice(piece);
        rest = after;
    }
    file
}

/// Files of our writer: small ones, a tree of two levels, values of many pages.
fn written(scratch: &Path) -> Vec<(String, Vec<u8>)> {
    let shapes = [(0, 0), (3, 20), (60, 300), (3, 9000), (100, 10)];
    let files = shapes.map(|(count, bytes)| {
        let path = scratch.join("seed");
        fs::write(&path, write(count, bytes)).unwrap();
        // By way of a rewrite, so that this is seen to work, too.
        let source = File::open(&path).unwrap();
        let (_, rewritten) = rewrite(&source, StorageVersion::Keep, Vec::new()).unwrap();
        let image = fs::read(&path).unwrap();
        assert_eq!(rewritten, image[..image.len() - 32]);
        (format!("{count} records of {bytes} bytes"), image)
    });
    files.into()
}

fn write(count: i64, bytes: usize) -> Vec<u8> {
    let mut plan = Plan::new();
    feed(count, bytes, &mut plan).unwrap();
    let mut writer = Writer::new(plan, Vec::new()).unwrap();
    feed(count, bytes, &mut writer).unwrap();
    let (digest, mut file) = writer.finish().unwrap();
    file.extend_from_slice(&digest);
    file
}

fn feed(count: i64, bytes: usize, out: &mut dyn Entries) -> Result<(), Error> {
    let head = etcd::Head {
        applied_index: 7,
        applied_term: 2,
        members: vec![etcd::Member {
            id: 5,
            name: "m".into(),
            ..etcd::Member::default()
        }],
        scheduled_compact: Some(count / 2),
        finished_compact: Some(count / 2),
        storage_version: "3.7.0".into(),
        ..etcd::Head::default()
    };
    head.feed_before_keys(out)?;
    out.bucket(etcd::KEY)?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for main in 2..count + 2 {
        let is_tombstone = main % 7 == 6;
        let revision = etcd::Revision {
            main,
            sub: 0,
            is_tombstone,
        };
        etcd::encode_revision(revision, &mut key);
        let name = format!("key-{}", main % 11);
        etcd::encode_tombstone(name.as_bytes(), &mut value);
        if !is_tombstone {
            // Field 5, the value, of fewer than 128 or fewer than 16,384 bytes.
            let length = [(bytes % 128) as u8 | 0x80, (bytes / 128) as u8];
            value.push(5 << 3 | 2);
            value.extend_from_slice(&length);
            value.resize(value.len() + bytes, b'v');
        }
        out.entry(&key, &value)?;
    }
    out.bucket(etcd::LEASE)?;
    let lease = etcd::Lease {
        id: 9,
        ttl: 60,
        remaining_ttl: 0,
    };
    out.entry(&etcd::lease_key(lease.id), &lease.encoded())?;
    head.feed_after_leases(out)
}
