//! What is written is read back, whatever it is; and what is damaged is refused, wherever it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use quorate_snapshot::{Digest, Entries, Error, File, Plan, Writer};

type Content = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn feed(content: &Content, out: &mut dyn Entries) -> Result<(), Error> {
    for (name, entries) in content {
        out.bucket(name)?;
        for (key, value) in entries {
            out.entry(key, value)?;
        }
    }
    Ok(())
}

fn write(content: &Content, path: &Path) {
    let mut plan = Plan::new();
    feed(content, &mut plan).unwrap();
    let file = fs::File::create(path).unwrap();
    let mut writer = Writer::new(plan, std::io::BufWriter::new(file)).unwrap();
    let total = writer.total_bytes();
    feed(content, &mut writer).unwrap();
    let (digest, mut file) = writer.finish().unwrap();
    file.write_all(&digest).unwrap();
    file.flush().unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), total + 32);
}

#[derive(Default)]
struct Collect {
    content: Content,
    bucket: Vec<u8>,
}

impl Entries for Collect {
    fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.bucket = name.to_vec();
        self.content.insert(name.to_vec(), BTreeMap::new());
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let bucket = self.content.get_mut(&self.bucket).unwrap();
        bucket.insert(key.to_vec(), value.to_vec());
        Ok(())
    }
}

fn read(path: &Path) -> Result<Content, Error> {
    let mut collect = Collect::default();
    File::open(path)?.walk(&mut collect)?;
    Ok(collect.content)
}

fn numbered(count: u64, value_bytes: usize) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let entry = |number: u64| {
        (
            number.to_be_bytes().to_vec(),
            vec![number as u8; value_bytes],
        )
    };
    (0..count).map(entry).collect()
}

fn check_round_trip(content: &Content) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    write(content, &path);
    let file = File::open(&path).unwrap();
    assert_eq!(file.digest(), Digest::Present);
    file.verify_digest().unwrap();
    assert!(read(&path).unwrap() == *content);
}

#[test]
fn sizes_at_the_edges_come_back() {
    check_round_trip(&Content::new());
    check_round_trip(&Content::from([(b"empty".to_vec(), BTreeMap::new())]));
    for value_bytes in [
        0,
        1,
        4080 - 24,
        4080 - 23,
        4096,
        16384 - 40,
        16384 - 39,
        70_000,
    ] {
        for count in [1, 2, 3, 500] {
            let content = [("a", numbered(count, value_bytes)), ("b", numbered(1, 0))];
            check_round_trip(&content.map(|(name, it)| (name.into(), it)).into());
        }
    }
}

#[test]
fn a_tree_of_three_levels_comes_back() {
    // A leaf takes 4 records of 4 KB, a branch about 170 leaves.
    let content = [(b"key".to_vec(), numbered(170 * 4 * 3 + 1, 4000))];
    check_round_trip(&content.into());
    // Long keys: a branch has few children, and takes more than one page.
    let long = |number: u64| {
        let mut key = vec![b'k'; 20_000];
        key.extend_from_slice(&number.to_be_bytes());
        (key, vec![b'v'; 10])
    };
    check_round_trip(&[(b"long".to_vec(), (0..70).map(long).collect())].into());
}

#[test]
fn a_value_of_many_pages_comes_back() {
    check_round_trip(&[(b"key".to_vec(), numbered(3, 1_500_000))].into());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn anything_comes_back(
        content in proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 1..20),
            proptest::collection::btree_map(
                proptest::collection::vec(any::<u8>(), 1..40),
                (any::<u8>(), prop_oneof![0usize..40, 0usize..6000]),
                0..200,
            ),
            0..8,
        )
    ) {
        let content = content.into_iter().map(|(name, entries)| {
            let entries = entries.into_iter();
            (name, entries.map(|(key, (byte, length))| (key, vec![byte; length])).collect())
        });
        check_round_trip(&content.collect());
    }
}

#[test]
fn every_flipped_bit_is_seen_by_the_hash_and_none_breaks_the_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    let content = [
        ("a", numbered(600, 30)),
        ("b", numbered(2, 5000)),
        ("c", numbered(0, 0)),
    ];
    let content: Content = content.map(|(name, it)| (name.into(), it)).into();
    write(&content, &path);
    let whole = fs::read(&path).unwrap();
    let damaged = directory.path().join("damaged");
    let mut refused = 0;
    // The heads of pages and elements, and a sample of the rest.
    let places = (0..whole.len()).filter(|at| at % 4096 < 200 || at % 41 == 0);
    for at in places {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&damaged, &bytes).unwrap();
        let Ok(file) = File::open(&damaged) else {
            refused += 1;
            continue;
        };
        assert!(
            matches!(file.verify_digest(), Err(Error::OtherDigest { .. })),
            "byte {at}"
        );
        match read(&damaged) {
            Err(Error::Damaged { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
            Ok(_) => {}
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    write(&[(b"key".to_vec(), numbered(900, 300))].into(), &path);
    let whole = fs::read(&path).unwrap();
    for length in [
        0,
        1,
        80,
        4095,
        4096,
        5000,
        8192,
        whole.len() / 2,
        whole.len() - 33,
    ] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = File::open(&path).err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{length}: {error}");
    }
    fs::write(&path, &whole[..whole.len() - 32]).unwrap();
    let without_hash = File::open(&path).unwrap();
    assert!(matches!(without_hash.verify_digest(), Err(Error::NoDigest)));
}

#[test]
fn a_page_of_zeros_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    write(&[(b"key".to_vec(), numbered(900, 300))].into(), &path);
    let whole = fs::read(&path).unwrap();
    let mut named = 0;
    for page in 2..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0);
        fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        assert!(matches!(
            file.verify_digest(),
            Err(Error::OtherDigest { .. })
        ));
        // A page in the midst of a long leaf holds values alone, which only the hash protects.
        if let Err(error) = read(&path) {
            let offset = format!("damaged at offset {}", page * 4096);
            named += usize::from(error.to_string().contains(&offset));
        }
    }
    assert!(named > 10, "{named}");
}

#[test]
fn a_second_pass_that_differs_is_refused() {
    let plan_of = |content: &Content| {
        let mut plan = Plan::new();
        feed(content, &mut plan).unwrap();
        plan
    };
    let planned: Content = [(b"key".to_vec(), numbered(900, 300))].into();
    for other in [
        [(b"key".to_vec(), numbered(2, 300))],
        [(b"key".to_vec(), numbered(1800, 300))],
        [(b"kez".to_vec(), numbered(900, 300))],
    ] {
        let mut writer = Writer::new(plan_of(&planned), Vec::new()).unwrap();
        let fed = feed(&other.into(), &mut writer);
        let ended = fed.and_then(|()| writer.finish().map(|_| ()));
        assert!(matches!(ended, Err(Error::Order(_))));
    }
    let mut writer = Writer::new(plan_of(&planned), Vec::new()).unwrap();
    writer.bucket(b"key").unwrap();
    writer.entry(b"b", b"").unwrap();
    assert!(matches!(writer.entry(b"a", b""), Err(Error::Order(_))));
    assert!(matches!(writer.entry(b"", b""), Err(Error::Content { .. })));
}
