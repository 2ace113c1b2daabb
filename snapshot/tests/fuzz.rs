//! Feeds the reader with damaged files whose hash is right, for a minute. Whatever a file holds,
//! the reader ends soon, does not panic, blames a place inside the file, and what it accepts is
//! in order and survives being written again.
//!
//! `QUORATE_FUZZ_SECONDS` sets how long (60), `QUORATE_FUZZ_SEED` where to begin: a failure names
//! the seed of its one case. `QUORATE_FUZZ_KEEP=1` adds the smallest file of each kind of outcome
//! to `corpus/`, which every run begins with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fuzz {
    pub mod corpus;
    pub mod mutate;
    pub mod oracle;
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuzz::mutate::{Random, mutate};
use fuzz::{corpus, oracle};

const SECONDS: u64 = 60;
/// A case takes well below a millisecond; so much is left to a machine that does other things.
const CASE_SECONDS_MAX: u64 = 60;
/// New kinds of outcome that are mutated further.
const POOL_MAX: usize = 400;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// What one run has seen.
struct Seen {
    cases: u64,
    accepted: u64,
    kinds: Vec<String>,
}

#[test]
fn no_file_breaks_the_reader() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("QUORATE_FUZZ_SEED").unwrap_or(now.as_secs() << 24);
    let seconds = number("QUORATE_FUZZ_SECONDS").unwrap_or(SECONDS);
    println!("QUORATE_FUZZ_SEED={seed}, {seconds} s");
    let current = Arc::new(AtomicU64::new(seed));
    let (done, wait) = channel();
    let shared = Arc::clone(&current);
    let worker = std::thread::spawn(move || {
        let seen = run(seed, Duration::from_secs(seconds), &shared);
        done.send(()).unwrap();
        seen
    });
    let mut last = (seed, Instant::now());
    loop {
        match wait.recv_timeout(Duration::from_millis(200)) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let case = current.load(Ordering::Relaxed);
        if case != last.0 {
            last = (case, Instant::now());
        }
        let stuck = last.1.elapsed() > Duration::from_secs(CASE_SECONDS_MAX);
        assert!(!stuck, "the reader does not end: QUORATE_FUZZ_SEED={case}");
    }
    let seen = worker.join().expect("what went wrong is told above");
    println!(
        "{} cases, {} accepted, {} kinds of outcome:\n{}",
        seen.cases,
        seen.accepted,
        seen.kinds.len(),
        seen.kinds.join("\n")
    );
    // A fuzzer whose files are all refused at the door, or all accepted, finds nothing.
    assert!(seen.kinds.len() >= 15 || seconds < 5, "too few kinds");
    assert!(seen.accepted > seen.cases / 200, "too few are accepted");
    assert!(seen.accepted < seen.cases, "nothing is refused");
}

fn run(seed: u64, length: Duration, current: &AtomicU64) -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let mut seen = Seen {
        cases: 0,
        accepted: 0,
        kinds: Vec::new(),
    };
    let mut pool = corpus::seeds(folder.path());
    for (name, file) in &pool {
        let kind = judge(file, &path, name);
        seen.accepted += u64::from(kind.is_none());
        seen.kinds.extend(kind);
    }
    seen.kinds.sort();
    seen.kinds.dedup();
    let keep = std::env::var_os("QUORATE_FUZZ_KEEP").is_some();
    let start = Instant::now();
    let at_once = pool.len();
    while start.elapsed() < length {
        let case = seed.wrapping_add(seen.cases);
        current.store(case, Ordering::Relaxed);
        let mut random = Random::new(case);
        // What a seed does must not depend on what was found before it: half of the cases, and the
        // first one, begin with a file of the corpus.
        let is_of_corpus = random.below(2) == 0 || seen.cases == 0;
        let begins = if is_of_corpus { at_once } else { pool.len() };
        let mut file = pool[random.below(begins)].1.clone();
        mutate(&mut file, &mut random);
        let kind = judge(&file, &path, &format!("QUORATE_FUZZ_SEED={case}"));
        seen.cases += 1;
        let Some(kind) = kind else {
            seen.accepted += 1;
            continue;
        };
        if keep {
            corpus::keep(&kind, &file);
        }
        if let Err(place) = seen.kinds.binary_search(&kind) {
            seen.kinds.insert(place, kind);
            if pool.len() < POOL_MAX {
                pool.push((format!("found by {case}"), file));
            }
        }
    }
    seen
}

/// Checks one file; why it is refused, if it is.
fn judge(file: &[u8], path: &Path, name: &str) -> Option<String> {
    std::fs::write(path, file).unwrap();
    match catch_unwind(AssertUnwindSafe(|| oracle::check(file, path))) {
        Ok(kind) => kind,
        Err(panic) => {
            let kept = std::env::temp_dir().join(format!("quorate-fuzz-{}", std::process::id()));
            std::fs::write(&kept, corpus::pack(file)).unwrap();
            let kept = kept.display();
            eprintln!("{name} breaks the reader; {kept} belongs into snapshot/corpus");
            std::panic::resume_unwind(panic)
        }
    }
}
