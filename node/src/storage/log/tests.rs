//! The log under cuts, flips, stale segments and failing disks.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::faults::Faults;
use super::record::HEADER_BYTES;
use super::*;

const SMALL: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(20);

fn options() -> Options {
    Options {
        segment_bytes: SMALL,
        ..Options::default()
    }
}

fn open(path: &Path) -> (Log, Recovered) {
    Log::open(path, options()).expect("a sound log")
}

/// For tests that open a log thousands of times.
fn open_unsynced(path: &Path) -> (Log, Recovered) {
    let options = Options {
        fsync: false,
        ..options()
    };
    Log::open(path, options).expect("a sound log")
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    Entry {
        term,
        index,
        kind: u8::try_from(index % 3).unwrap(),
        payload: Bytes::from(vec![index as u8 ^ term as u8; bytes]),
    }
}

/// A completion and the way to wait for it.
fn waiter() -> (Completion, mpsc::Receiver<Result<(), Error>>) {
    let (sender, receiver) = mpsc::channel();
    let done: Completion = Box::new(move |result| sender.send(result).expect("still waiting"));
    (done, receiver)
}

fn append(log: &Log, entries: Vec<Entry>) {
    let (done, waits) = waiter();
    log.append(entries, done).expect("appended");
    waits.recv_timeout(PATIENCE).unwrap().expect("durable");
}

fn vote(log: &Log, term: u64, leader: u64) -> Vote {
    let vote = Vote {
        term,
        leader,
        committed: term.is_multiple_of(2),
    };
    let (done, waits) = waiter();
    log.save_vote(vote, done).expect("queued");
    waits.recv_timeout(PATIENCE).unwrap().expect("durable");
    vote
}

fn all(log: &Log) -> Vec<Entry> {
    log.read(0..u64::MAX, usize::MAX).expect("readable")
}

/// What a kill -9 at this moment would leave: the files, without the lock.
fn copy(from: &Path) -> TempDir {
    'again: loop {
        let to = tempfile::tempdir().unwrap();
        for item in std::fs::read_dir(from).unwrap() {
            let item = item.unwrap();
            if item.file_name() == "LOCK" {
                continue;
            }
            match std::fs::copy(item.path(), to.path().join(item.file_name())) {
                Ok(_) => {}
                // Purged just now: look again.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue 'again,
                Err(e) => panic!("{e}"),
            }
        }
        return to;
    }
}

fn segment_names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".log"))
        .collect();
    names.sort();
    names
}

/// Where the records in the last segment end.
fn tail_offset(path: &Path) -> u64 {
    let mut directory = Directory::open(path).unwrap();
    let numbers = directory.list(SMALL).unwrap();
    replay(&directory, &numbers, Identity::default())
        .unwrap()
        .tail
        .offset
}

#[test]
fn everything_comes_back_after_a_close_and_after_a_kill() {
    let home = tempfile::tempdir().unwrap();
    let (log, recovered) = open(home.path());
    assert_eq!(recovered.last, None);
    let entries: Vec<Entry> = (0..200).map(|index| entry(3, index, 100)).collect();
    for chunk in entries.chunks(7) {
        append(&log, chunk.to_vec());
    }
    let saved = vote(&log, 4, 9);
    let killed = copy(home.path());
    log.close().unwrap();
    assert!(segment_names(home.path()).len() > 5, "many segments");
    for path in [home.path(), killed.path()] {
        let (log, recovered) = open(path);
        assert_eq!(recovered.vote, Some(saved));
        assert_eq!(recovered.entries, 0..200);
        assert_eq!(recovered.torn_bytes, 0);
        assert_eq!(
            recovered.last,
            Some(LogPosition {
                term: 3,
                index: 199
            })
        );
        assert_eq!(all(&log), entries);
        assert_eq!(log.read(50..60, usize::MAX).unwrap(), entries[50..60]);
        // Bounded by bytes, but never nothing.
        assert_eq!(log.read(50..60, 400).unwrap().len(), 2);
        assert_eq!(log.read(50..60, 0).unwrap(), entries[50..51]);
    }
}

#[test]
fn a_committed_index_is_saved_without_being_asked_twice() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path());
    append(&log, vec![entry(1, 0, 10)]);
    let committed = LogPosition { term: 1, index: 0 };
    log.save_committed(committed).unwrap();
    assert_eq!(log.committed(), Some(committed));
    // It is written soon, though nothing else happens.
    let deadline = std::time::Instant::now() + PATIENCE;
    while open(copy(home.path()).path()).1.committed != Some(committed) {
        assert!(std::time::Instant::now() < deadline, "never written");
        std::thread::yield_now();
    }
}

/// Three acknowledged groups, then two more that a test may tear.
fn log_with_tail(path: &Path) -> (Vec<Entry>, u64) {
    let (log, _) = open(path);
    let entries: Vec<Entry> = (0..5).map(|index| entry(1, index, 40)).collect();
    append(&log, entries[..2].to_vec());
    vote(&log, 1, 1);
    append(&log, vec![entries[2].clone()]);
    log.close().unwrap();
    let sure = tail_offset(path);
    let (log, _) = open(path);
    let (done, waits) = waiter();
    log.append(entries[3..].to_vec(), done).unwrap();
    waits.recv_timeout(PATIENCE).unwrap().unwrap();
    log.close().unwrap();
    (entries, sure)
}

#[test]
fn a_log_cut_at_every_byte_keeps_what_is_whole() {
    let home = tempfile::tempdir().unwrap();
    let (entries, sure) = log_with_tail(home.path());
    let end = tail_offset(home.path());
    let bytes = std::fs::read(home.path().join("00000001.log")).unwrap();
    for garbage in [None, Some(0u8), Some(0xa5)] {
        let mut kept_before = 3;
        for cut in sure..=end {
            let torn = tempfile::tempdir().unwrap();
            let mut bytes = bytes.clone();
            match garbage {
                None => bytes.truncate(cut as usize),
                Some(byte) => bytes[cut as usize..].fill(byte),
            }
            std::fs::write(torn.path().join("00000001.log"), &bytes).unwrap();
            let (log, recovered) = open_unsynced(torn.path());
            let kept = recovered.entries.end as usize;
            assert!(kept >= kept_before, "cut at {cut}: only {kept} entries");
            assert_eq!(all(&log), entries[..kept], "cut at {cut}");
            assert_eq!(recovered.vote.map(|v| v.leader), Some(1));
            kept_before = kept;
            if cut % 8 != 0 {
                continue;
            }
            // The log goes on from there, and nothing of the torn write returns.
            append(&log, vec![entry(9, kept as u64, 40)]);
            drop(log);
            let (log, recovered) = open_unsynced(torn.path());
            assert_eq!(recovered.entries, 0..kept as u64 + 1, "cut at {cut}");
            assert_eq!(all(&log)[kept], entry(9, kept as u64, 40));
        }
        assert_eq!(kept_before, 5);
    }
}

#[test]
fn a_flipped_bit_in_acknowledged_records_is_damage() {
    let home = tempfile::tempdir().unwrap();
    let (entries, _) = log_with_tail(home.path());
    let end = tail_offset(home.path());
    let name = "00000001.log";
    let bytes = std::fs::read(home.path().join(name)).unwrap();
    // The closing watermark is the last record: losing it loses nothing.
    let watermark = end - HEADER_BYTES as u64;
    for at in 0..end {
        let flipped = tempfile::tempdir().unwrap();
        let mut bytes = bytes.clone();
        bytes[at as usize] ^= 1 << (at % 8);
        std::fs::write(flipped.path().join(name), &bytes).unwrap();
        match Log::open(flipped.path(), options()) {
            Err(Error::Damaged { path, offset, .. }) => {
                assert!(at < watermark, "byte {at} says nothing");
                assert!(path.ends_with(name) && offset <= at, "byte {at}: {offset}");
                assert!(at - offset < 256, "byte {at}: {offset} is far off");
            }
            Err(other) => panic!("byte {at}: {other}"),
            Ok((log, _)) => {
                assert!(at >= watermark, "byte {at}: damage was not seen");
                assert_eq!(all(&log), entries);
            }
        }
    }
}

#[test]
fn damage_and_loss_of_older_segments_is_seen() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path());
    for index in 0..100 {
        append(&log, vec![entry(1, index, 200)]);
    }
    log.close().unwrap();
    let names = segment_names(home.path());
    assert!(names.len() > 3);
    for (number, name) in names.iter().enumerate().take(names.len() - 1) {
        let flipped = copy(home.path());
        let file = flipped.path().join(name);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let error = Log::open(flipped.path(), options()).err().unwrap();
        assert!(error.to_string().contains(name), "{error}");

        let lacking = copy(home.path());
        std::fs::remove_file(lacking.path().join(name)).unwrap();
        let error = Log::open(lacking.path(), options()).err();
        assert!(
            matches!(error, Some(Error::Damaged { .. })),
            "segment {number} is gone"
        );
    }
}

#[test]
fn a_member_with_a_past_does_not_begin_a_new_log() {
    let home = tempfile::tempdir().unwrap();
    let options = Options {
        must_exist: true,
        ..options()
    };
    let error = Log::open(home.path(), options.clone()).err().unwrap();
    assert!(error.to_string().contains("are gone"), "{error}");
    drop(open(home.path()));
    Log::open(home.path(), options).unwrap();
}

#[test]
fn a_torn_group_is_cut_though_its_end_was_written() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path());
    append(&log, vec![entry(1, 0, 40)]);
    log.close().unwrap();
    let start = tail_offset(home.path());
    let (log, _) = open(home.path());
    let start = start + record::record_bytes(16) as u64;
    append(&log, (1..9).map(|index| entry(1, index, 40)).collect());
    // Before a later record proves that the group was durable.
    let torn = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(home.path().join("00000001.log")).unwrap();
    let group = 8 * record::record_bytes(40);
    bytes[start as usize..][..48].fill(0);
    bytes[start as usize + group..].fill(0);
    std::fs::write(torn.path().join("00000001.log"), &bytes).unwrap();
    drop(log);
    let (log, recovered) = open(torn.path());
    assert_eq!(recovered.entries, 0..1);
    assert!(recovered.torn_bytes as usize >= group - 88, "{recovered:?}");
    // The same entry again, in the same place: the stale ones behind it stay void.
    append(&log, vec![entry(1, 1, 40)]);
    drop(log);
    assert_eq!(open(torn.path()).1.entries, 0..2);
}

#[test]
fn stale_records_in_recycled_segments_are_never_read() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path());
    let mut next = 0;
    let mut recycled = 0;
    for round in 0..30 {
        for _ in 0..20 {
            append(&log, vec![entry(1, next, 150)]);
            next += 1;
        }
        let position = LogPosition {
            term: 1,
            index: next - 5,
        };
        log.purge(position).unwrap();
        vote(&log, round, 1);
        let killed = copy(home.path());
        recycled += std::fs::read_dir(killed.path())
            .unwrap()
            .filter(|item| {
                let name = item.as_ref().unwrap().file_name();
                name.to_str().unwrap().starts_with("spare-")
            })
            .count();
        let (after, recovered) = open(killed.path());
        assert_eq!(recovered.entries, next - 4..next, "round {round}");
        assert_eq!(recovered.purged, Some(position));
        assert_eq!(recovered.torn_bytes, 0);
        let expected: Vec<Entry> = (next - 4..next).map(|i| entry(1, i, 150)).collect();
        assert_eq!(all(&after), expected);
        assert!(segment_names(home.path()).len() < 5, "purged files go");
    }
    assert!(recycled > 10, "segments were kept for reuse: {recycled}");
}

#[test]
fn an_entry_larger_than_a_segment_gets_its_own() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path());
    let entries = vec![entry(1, 0, 10), entry(1, 1, 50_000), entry(1, 2, 10)];
    append(&log, entries.clone());
    drop(log);
    let (log, _) = open(home.path());
    assert_eq!(all(&log), entries);
}

#[test]
fn completions_come_in_order_and_together() {
    let home = tempfile::tempdir().unwrap();
    let flushes = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = Arc::clone(&flushes);
    let options = Options {
        on_flush: Some(Arc::new(move |flush: Flush| {
            assert!(flush.bytes > 0);
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        })),
        ..Options::default()
    };
    let (log, _) = Log::open(home.path(), options).unwrap();
    let (sender, receiver) = mpsc::channel();
    for index in 0..500 {
        let sender = sender.clone();
        let done: Completion = Box::new(move |result| {
            result.expect("durable");
            sender.send(index).unwrap();
        });
        log.append(vec![entry(1, index, 10)], done).unwrap();
        // Readable at once.
        assert_eq!(log.read(index..index + 1, 0).unwrap().len(), 1);
    }
    for index in 0..500 {
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok(index));
    }
    let flushes = flushes.load(std::sync::atomic::Ordering::SeqCst);
    assert!(flushes < 400, "no group commit: {flushes} syncs");
}

#[test]
fn a_failed_sync_is_final() {
    let home = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let options = Options {
        faults: faults.clone(),
        ..options()
    };
    let (log, _) = Log::open(home.path(), options).unwrap();
    append(&log, vec![entry(1, 0, 10)]);
    faults.set_failing(true);
    let (done, waits) = waiter();
    log.append(vec![entry(1, 1, 10)], done).unwrap();
    assert!(waits.recv_timeout(PATIENCE).unwrap().is_err());
    // Even if the disk works again.
    faults.set_failing(false);
    let (done, waits) = waiter();
    let refused = log.append(vec![entry(1, 2, 10)], done);
    assert!(refused.unwrap_err().to_string().contains("injected"));
    assert!(waits.recv_timeout(PATIENCE).is_err(), "not called");
    assert!(log.save_committed(LogPosition::default()).is_err());
    let (called, ready) = mpsc::channel();
    log.when_writable(Box::new(move || called.send(()).unwrap()));
    ready
        .recv_timeout(PATIENCE)
        .expect("nobody is left waiting");
    assert!(log.close().is_err());
}

#[test]
fn a_full_queue_asks_to_wait_until_the_disk_has_caught_up() {
    let home = tempfile::tempdir().unwrap();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let options = Options {
        fsync: false,
        on_flush: Some(Arc::new(move |_| {
            held.lock().recv_timeout(PATIENCE).expect("released");
        })),
        ..Options::default()
    };
    let (log, _) = Log::open(home.path(), options).unwrap();
    let payload = Bytes::from(vec![7; QUEUE_BYTES_MAX / 4]);
    let mut waits = Vec::new();
    for index in 0..5 {
        let (done, waiting) = waiter();
        let entry = Entry {
            payload: payload.clone(),
            ..entry(1, index, 0)
        };
        log.append(vec![entry], done).unwrap();
        waits.push(waiting);
    }
    let (called, ready) = mpsc::channel();
    log.when_writable(Box::new(move || called.send(()).unwrap()));
    assert!(ready.try_recv().is_err(), "there is no room yet");
    // A group and the ends of the segments that it fills.
    for _ in 0..10 {
        release.send(()).unwrap();
    }
    ready.recv_timeout(PATIENCE).expect("room at last");
    for waiting in waits {
        waiting.recv_timeout(PATIENCE).unwrap().unwrap();
    }
}

#[test]
fn a_lost_directory_fails_the_log() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path());
    append(&log, vec![entry(1, 0, 10)]);
    std::fs::remove_dir_all(home.path()).unwrap();
    let (done, waits) = waiter();
    log.append(vec![entry(1, 1, 5000)], done).unwrap();
    assert!(waits.recv_timeout(PATIENCE).unwrap().is_err());
    assert!(log.close().is_err());
}

#[test]
fn one_process_and_one_member_own_a_directory() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let identity = |member_id| Options {
        identity: Identity {
            member_id,
            cluster_id: 0xc,
        },
        ..options()
    };
    let (log, _) = Log::open(&path, identity(0xa)).unwrap();
    let error = Log::open(&path, identity(0xa)).err().unwrap();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(log);
    let error = Log::open(&path, identity(0xb)).err().unwrap();
    assert!(
        error.to_string().contains("member a of cluster c"),
        "{error}"
    );
    Log::open(&path, identity(0xa)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for item in std::fs::read_dir(&path).unwrap() {
        assert_eq!(mode(&item.unwrap().path()), 0o600);
    }
}

#[test]
fn entries_that_do_not_follow_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = open(home.path());
    append(&log, vec![entry(1, 0, 10), entry(1, 1, 10)]);
    for misfit in [
        vec![entry(1, 3, 1)],
        vec![entry(1, 1, 1)],
        vec![entry(1, 2, 1), entry(1, 4, 1)],
    ] {
        let (done, _waits) = waiter();
        assert!(log.append(misfit, done).is_err());
    }
    assert_eq!(log.entries(), 0..2);
    append(&log, vec![entry(1, 2, 10)]);
}

#[test]
fn old_entries_leave_the_memory_but_not_the_log() {
    let home = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(home.path(), Options::default()).unwrap();
    let size = CACHE_BYTES_MAX / 8;
    for index in 0..12 {
        append(&log, vec![entry(1, index, size)]);
    }
    assert!(!log.is_cached(0) && log.is_cached(11));
    for index in 0..12 {
        assert_eq!(log.read(index..12, 1).unwrap(), vec![entry(1, index, size)]);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { entries: usize, bytes: usize },
    Vote,
    Commit,
    Truncate { keep: u64 },
    Purge { keep: u64 },
    Install { ahead: u64 },
    Reopen,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6usize, 0..900usize).prop_map(|(entries, bytes)| Step::Append { entries, bytes }),
        1 => Just(Step::Vote),
        1 => Just(Step::Commit),
        2 => (0..8u64).prop_map(|keep| Step::Truncate { keep }),
        2 => (0..8u64).prop_map(|keep| Step::Purge { keep }),
        1 => (0..3u64).prop_map(|ahead| Step::Install { ahead }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

/// The log as a Vec.
#[derive(Default)]
struct Model {
    entries: Vec<Entry>,
    purged: Option<LogPosition>,
    vote: Option<Vote>,
    committed: Option<LogPosition>,
}

impl Model {
    fn next(&self) -> u64 {
        let after_purged = self.purged.map_or(0, |p| p.index + 1);
        self.entries.last().map_or(after_purged, |e| e.index + 1)
    }

    fn purge(&mut self, position: LogPosition) {
        if self.purged.is_none_or(|p| p.index < position.index) {
            self.purged = Some(position);
            self.entries.retain(|e| e.index > position.index);
        }
    }

    fn check(&self, log: &Log) {
        assert_eq!(log.read(0..u64::MAX, usize::MAX).unwrap(), self.entries);
        assert_eq!(log.purged(), self.purged);
        assert_eq!(log.vote(), self.vote);
        let last = self.entries.last().map(|e| LogPosition {
            term: e.term,
            index: e.index,
        });
        assert_eq!(log.last(), last.or(self.purged));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_a_vec(steps in proptest::collection::vec(step(), 1..60)) {
        let mut home = tempfile::tempdir().unwrap();
        let mut log = open(home.path()).0;
        let mut model = Model::default();
        let mut term = 1;
        for step in steps {
            match step {
                Step::Append { entries, bytes } => {
                    let next = model.next();
                    let new: Vec<Entry> = (next..next + entries as u64)
                        .map(|index| entry(term, index, bytes))
                        .collect();
                    model.entries.extend(new.clone());
                    append(&log, new);
                }
                Step::Vote => {
                    term += 1;
                    model.vote = Some(vote(&log, term, 1));
                }
                Step::Commit => {
                    model.committed = log.last();
                    if let Some(last) = log.last() {
                        log.save_committed(last).unwrap();
                    }
                }
                Step::Truncate { keep } => {
                    let first = model.next() - model.entries.len() as u64;
                    let from = (first + keep).min(model.next());
                    model.entries.retain(|e| e.index < from);
                    log.truncate_after(from.checked_sub(1)).unwrap();
                }
                Step::Purge { keep } => {
                    let drop = model.entries.len().saturating_sub(keep as usize);
                    if let Some(last) = drop.checked_sub(1).map(|at| model.entries[at].clone()) {
                        let position = LogPosition { term: last.term, index: last.index };
                        model.purge(position);
                        log.purge(position).unwrap();
                    }
                }
                Step::Install { ahead } => {
                    let position = LogPosition { term, index: model.next() + ahead };
                    model.purge(position);
                    log.purge(position).unwrap();
                }
                Step::Reopen => {
                    drop(log);
                    log = open(home.path()).0;
                    prop_assert_eq!(log.committed(), model.committed);
                }
                Step::Kill => {
                    // A vote is behind all that came before it.
                    model.vote = Some(vote(&log, term, 2));
                    let killed = copy(home.path());
                    drop(log);
                    log = open(killed.path()).0;
                    home = killed;
                }
            }
            model.check(&log);
        }
    }
}
