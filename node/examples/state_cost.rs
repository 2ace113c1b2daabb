//! What applying and reading cost a member, without raft and doors:
//! `cargo run --release -p quorate --example state_cost [puts]`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for developers"
)]

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quorate::machine::compaction::{ScrubProgress, scrub_slice};
use quorate::machine::view::View;
use quorate::machine::{Machine, Position};
use quorate::model::kv::{Command, CompactionRequest, PutRequest, RangeRequest, command::Kind};
use quorate::storage::Db;

const KEYS: usize = 100_000;
const BATCH: usize = 64;

/// Measures wall and CPU time (background threads too) of one kind of work.
struct Meter {
    wall: Instant,
    cpu_us: u128,
}

impl Meter {
    fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu_us: cpu_us(),
        }
    }

    fn report(&self, what: &str, operations: usize) {
        println!(
            "{what:28} {:9.2} us wall {:9.2} us cpu an operation, {} MiB resident",
            self.wall.elapsed().as_micros() as f64 / operations as f64,
            (cpu_us() - self.cpu_us) as f64 / operations as f64,
            resident_kib() / 1024,
        );
    }
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// User and system time so far, from clock ticks of 10 ms.
fn cpu_us() -> u128 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let mut fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11);
    let mut ticks = || fields.next().unwrap().parse::<u128>().unwrap();
    (ticks() + ticks()) * 10_000
}

/// Keys in scattered order, as clients' are.
fn key(number: usize) -> Bytes {
    let number = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % KEYS;
    format!("/registry/pods/default/{number:08}").into()
}

fn puts(db: &Arc<Db>, machine: &mut Machine, round: usize) {
    let value: Vec<u8> = (0..256u32).map(|it| (it * 197 % 251) as u8).collect();
    let meter = Meter::start();
    for first in (0..KEYS).step_by(BATCH) {
        let mut batch = db.batch();
        let index = batch.progress().applied.index + 1;
        for number in first..(first + BATCH).min(KEYS) {
            let kind = Some(Kind::Put(PutRequest {
                key: key(number + round * 7_777_777),
                value: value.clone().into(),
                ..Default::default()
            }));
            let applied = machine.apply(&mut batch, &Command { kind }).unwrap();
            assert!(applied.outcome.is_ok());
        }
        batch.finish_entry(Position { term: 1, index });
        db.commit(batch).unwrap();
        drop(View::of(db));
    }
    meter.report(&format!("put, round {round}"), KEYS);
}

fn reads(view: &View) {
    let meter = Meter::start();
    for number in 0..KEYS {
        let request = RangeRequest {
            key: key(number),
            ..Default::default()
        };
        assert!(view.range_encoded(&request).unwrap().count <= 1);
    }
    meter.report("get", KEYS);
    let whole = |count_only, limit, revision| RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        count_only,
        limit,
        revision,
        ..Default::default()
    };
    for (what, request) in [
        ("count, a key", whole(true, 0, 0)),
        ("page of 500, a key counted", whole(false, 500, 0)),
        ("whole list, a key", whole(false, 0, 0)),
        ("old list, a key", whole(false, 0, view.revision / 2)),
    ] {
        let meter = Meter::start();
        let answer = view.range_encoded(&request).unwrap();
        meter.report(what, usize::try_from(answer.count).unwrap());
    }
    let meter = Meter::start();
    view.hash_kv(0).unwrap();
    meter.report("HashKV, a record", usize::try_from(view.revision).unwrap());
}

fn compaction(db: &Arc<Db>, machine: &mut Machine) {
    let revision = machine.revision() - 10;
    let kind = Some(Kind::Compaction(CompactionRequest {
        revision,
        physical: true,
    }));
    let mut batch = db.batch();
    machine.apply(&mut batch, &Command { kind }).unwrap();
    db.commit(batch).unwrap();
    let meter = Meter::start();
    while let ScrubProgress::More { .. } = scrub_slice(db, 1_000).unwrap() {}
    meter.report("scrub, a record", usize::try_from(revision).unwrap());
    println!("bytes, in use: {:?}", db.size_bytes().unwrap());
    let meter = Meter::start();
    db.compact().unwrap();
    meter.report("compact", 1);
    println!("bytes, in use: {:?}", db.size_bytes().unwrap());
}

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let db = Db::open(&path).unwrap();
    let mut machine = Machine::load(&db).unwrap();
    println!("empty: {} MiB resident", resident_kib() / 1024);
    let puts_only = std::env::args().nth(1).is_some_and(|it| it == "puts");
    for round in 0..if puts_only { 8 } else { 3 } {
        puts(&db, &mut machine, round);
    }
    if puts_only {
        return;
    }
    reads(&View::of(&db));
    compaction(&db, &mut machine);
    drop(db);
    let meter = Meter::start();
    drop(Db::open(&path).unwrap());
    meter.report("open and close", 1);
}
