//! What must hold of every file, however damaged.

use std::io::Write as _;
use std::path::Path;

use quorate_snapshot::{
    Digest, Entries, Error, File, HashKv, Restore, Status, StorageVersion, etcd, restore, rewrite,
    storage_version,
};
use sha2::{Digest as _, Sha256};

/// Everything in order, and checks that it is.
#[derive(Default, PartialEq, Eq)]
struct Content {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    buckets: Vec<(Vec<u8>, usize)>,
    bytes: usize,
}

impl Entries for Content {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        let last = self.buckets.last().map(|last| last.0.as_slice());
        assert!(last < Some(name), "buckets ascend");
        self.buckets.push((name.to_vec(), self.entries.len()));
        self.bytes += name.len();
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let first = self.buckets.last().expect("a bucket began").1;
        let last = self.entries[first..].last().map(|last| last.0.as_slice());
        assert!(last < Some(key), "keys ascend");
        self.bytes += key.len() + value.len();
        self.entries.push((key.to_vec(), value.to_vec()));
        Ok(())
    }
}

/// Reads the file at `path`, which holds `bytes`, in every way; why it is refused, if it is.
pub fn check(bytes: &[u8], path: &Path) -> Option<String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return Some(refused(&error, bytes)),
    };
    assert!(file.used_bytes() <= bytes.len() as u64);
    match (file.digest(), file.verify_digest()) {
        (Digest::Missing, Err(Error::NoDigest)) => {}
        (Digest::Present, verified) => {
            let (image, digest) = bytes.split_at(bytes.len() - 32);
            let is_right = Sha256::digest(image).as_slice() == digest;
            assert_eq!(verified.is_ok(), is_right, "{verified:?}");
        }
        (Digest::Missing, other) => panic!("{other:?}"),
    }
    let mut content = Content::default();
    let walked = file.walk(&mut content);
    let rewritten = rewrite(&file, StorageVersion::Keep, Vec::new());
    others(&file, bytes, walked.is_ok());
    if let Err(error) = walked {
        assert!(rewritten.is_err(), "a rewrite accepts what a walk refuses");
        return Some(refused(&error, bytes));
    }
    match rewritten {
        Ok((total, image)) => {
            assert_eq!(total, image.len() as u64);
            let other = path.with_extension("rewritten");
            let mut out = std::fs::File::create(&other).unwrap();
            out.write_all(&image).unwrap();
            let mut again = Content::default();
            File::open(&other).unwrap().walk(&mut again).unwrap();
            assert!(again == content, "what was written again is another");
            None
        }
        // What bbolt would not take, such as a key of no bytes.
        Err(Error::Content { what, .. }) if what.contains("bbolt takes") => {
            Some(format!("rewrite: {}", signature("bbolt takes")))
        }
        Err(error) => panic!("a walk accepts what a rewrite refuses: {error}"),
    }
}

/// What reads a file for its own ends: it may refuse what is in the file, and no more.
fn others(file: &File, bytes: &[u8], is_whole: bool) {
    let member = etcd::Member {
        id: 1,
        ..etcd::Member::default()
    };
    let changes = Restore {
        members: vec![member],
        bump_revision: 3,
    };
    let ended = [
        Status::of(file).map(drop),
        HashKv::of(file, 0).map(drop),
        HashKv::of(file, 3).map(drop),
        storage_version(file).map(drop),
        restore(file, &changes, std::io::sink()).map(drop),
    ];
    for ended in ended {
        match ended {
            Ok(()) => assert!(is_whole, "a damaged file was read to its end"),
            Err(Error::Content { .. } | Error::Compacted | Error::Future) => {}
            Err(error @ Error::Damaged { .. }) => {
                assert!(!is_whole, "a whole file is damaged: {error}");
                refused(&error, bytes);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Checks a refusal; what kind it is.
fn refused(error: &Error, bytes: &[u8]) -> String {
    let Error::Damaged { offset, what, .. } = error else {
        panic!("not a damage: {error}");
    };
    assert!(*offset <= bytes.len() as u64, "offset {offset}: {what}");
    signature(what)
}

/// A text without its numbers, which may be hexadecimal.
fn signature(text: &str) -> String {
    let mut signature = String::new();
    for character in text.chars() {
        match character {
            '0'..='9' | 'a'..='f' | 'x' if signature.ends_with('#') => {}
            '0'..='9' => signature.push('#'),
            other => signature.push(other),
        }
    }
    signature
}
