//! `lock` and `elect`: held until interrupted, until the lease is lost, or until a command ends.

use super::child::run_to_end;
use super::group;
use super::holding::{Place, Session};
use super::setup::Setup;
use super::watch_stream::{Notice, WatchStream};
use crate::cli::{Call, Command, Flag, Kind};
use crate::outcome::Exit;
use crate::print::{Answer, Display, prefix_end};
use crate::rpc::{Rpc, RpcError};
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::mvccpb::event::EventType;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long the lease of `elect` lives, in seconds (client/v3/concurrency/session.go).
const ELECT_TTL_S: i64 = 60;

/// `lock`.
pub static LOCK: Command = Command {
    usage: "lock <lockname> [exec-command arg1 arg2 ...]",
    short: "Acquires a named lock",
    group: group::CONCURRENCY,
    flags: &[Flag::of(Kind::Int, "ttl", "10", "timeout for session")],
    run: Some(|call| Box::pin(lock(call))),
    ..Command::EMPTY
};

/// `elect`.
pub static ELECT: Command = Command {
    usage: "elect <election-name> [proposal]",
    short: "Observes and participates in leader election",
    group: group::CONCURRENCY,
    flags: &[Flag::off("listen", "observation mode").letter('l')],
    run: Some(|call| Box::pin(elect(call))),
    ..Command::EMPTY
};

/// Interrupt and terminate.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Exit> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn one(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Enters the queue and waits for its turn; leaves it when interrupted.
async fn take_turn(
    session: &Session,
    signals: &mut Signals,
    name: &[u8],
    value: &[u8],
) -> Result<(Place, bool), Exit> {
    let place = session.enter(name, value).await.map_err(Exit::error)?;
    tokio::select! {
        turn = place.wait_for_turn() => match turn {
            Ok(waited) => Ok((place, waited)),
            Err(error) => {
                place.leave().await.map_err(Exit::error)?;
                Err(Exit::error(error))
            }
        },
        () = signals.one() => {
            place.leave().await.map_err(Exit::error)?;
            Err(Exit::error("context canceled"))
        }
    }
}

async fn lock(mut call: Call) -> Result<(), Exit> {
    let Some((name, command)) = call.arguments.split_first() else {
        let text = "lock takes a lock name argument and an optional command to execute";
        return Err(Exit::bad_arguments(text));
    };
    let (name, command) = (name.clone(), command.to_vec());
    let ttl_s = call.flags.int("ttl");
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let mut signals = Signals::new()?;
    let ttl_s = if ttl_s > 0 { ttl_s } else { ELECT_TTL_S };
    let session = Session::new(&rpc, ttl_s).await.map_err(Exit::error)?;
    let (place, waited) = take_turn(&session, &mut signals, &name, b"").await?;

    let held = place.read().await.map_err(Exit::error)?;
    if held.kvs.is_empty() {
        return Err(Exit::error("mutex: session is expired"));
    }
    if !command.is_empty() {
        let revision = if waited {
            held.header.unwrap_or_default().revision
        } else {
            place.entered_at
        };
        return run_locked(&place, revision, &command).await;
    }
    setup.display.show(Answer::Get(&held))?;
    tokio::select! {
        () = signals.one() => place.leave().await.map_err(Exit::error),
        () = session.lost() => Err(Exit::error("session expired")),
    }
}

async fn run_locked(place: &Place, revision: i64, command: &[Vec<u8>]) -> Result<(), Exit> {
    let program = OsStr::from_bytes(&command[0]);
    let mut child = tokio::process::Command::new(program);
    child
        .args(command[1..].iter().map(|word| OsStr::from_bytes(word)))
        .env("ETCD_LOCK_KEY", OsStr::from_bytes(&place.key))
        .env("ETCD_LOCK_REV", revision.to_string())
        .stdin(std::process::Stdio::null());
    let ended = run_to_end(program, child).await;
    let left = place.leave().await;
    if let Err(reason) = ended {
        let code = reason
            .strip_prefix("exit status ")
            .and_then(|code| code.parse().ok());
        return Err(match code {
            Some(code) => Exit::new(code, reason),
            None => Exit::error(reason),
        });
    }
    left.map_err(Exit::error)
}

async fn elect(mut call: Call) -> Result<(), Exit> {
    let listen = call.flags.bool("listen");
    let (name, proposal) = match call.arguments.as_slice() {
        [name] if listen => (name.clone(), None),
        [name, proposal] if !listen => (name.clone(), Some(proposal.clone())),
        [_] => return Err(Exit::bad_arguments("no proposal argument but -l not set")),
        [_, _] => return Err(Exit::bad_arguments("proposal given but -l is set")),
        _ => {
            return Err(Exit::bad_arguments(
                "elect takes one election name argument and an optional proposal argument",
            ));
        }
    };
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let mut signals = Signals::new()?;
    let Some(proposal) = proposal else {
        return tokio::select! {
            () = signals.one() => Ok(()),
            ended = observe(&rpc, setup.display, &name) => {
                ended?;
                Err(Exit::error("elect: observer lost"))
            }
        };
    };
    let session = Session::new(&rpc, ELECT_TTL_S).await.map_err(Exit::error)?;
    let (place, _) = take_turn(&session, &mut signals, &name, &proposal).await?;
    let leading = place.read().await.map_err(Exit::error)?;
    setup.display.show(Answer::Get(&leading))?;
    tokio::select! {
        () = signals.one() => place.leave().await.map_err(Exit::error),
        () = session.lost() => Err(Exit::error("elect: session expired")),
    }
}

/// Prints every leader of an election, and every new proclamation of one.
async fn observe(rpc: &Rpc, display: Display, name: &[u8]) -> Result<(), Exit> {
    let prefix = Bytes::from([name, b"/"].concat());
    loop {
        let oldest = pb::RangeRequest {
            key: prefix.clone(),
            range_end: prefix_end(&prefix),
            limit: 1,
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Create.into(),
            ..Default::default()
        };
        let Ok(response) = super::get::range(rpc, None, oldest).await else {
            return Ok(());
        };
        let revision = response.header.unwrap_or_default().revision;
        let (header, leader) = match response.kvs.into_iter().next() {
            Some(leader) => (response.header, leader),
            None => match first_put(rpc, &prefix, revision).await {
                Ok(found) => found,
                Err(_) => return Ok(()),
            },
        };
        let from = header.unwrap_or_default().revision + 1;
        let key = leader.key.clone();
        show_leader(display, header, leader)?;
        if follow(rpc, display, key, from).await?.is_none() {
            return Ok(());
        }
    }
}

fn show_leader(
    display: Display,
    header: Option<pb::ResponseHeader>,
    leader: KeyValue,
) -> Result<(), Exit> {
    display.show(Answer::Get(&pb::RangeResponse {
        header,
        kvs: vec![leader],
        ..Default::default()
    }))
}

/// The first key put under a prefix, in the header of the revision that put it.
async fn first_put(
    rpc: &Rpc,
    prefix: &Bytes,
    revision: i64,
) -> Result<(Option<pb::ResponseHeader>, KeyValue), RpcError> {
    let mut stream = WatchStream::new(rpc, false);
    let create = pb::WatchCreateRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        start_revision: revision,
        ..Default::default()
    };
    stream.add(create).await;
    loop {
        let Notice::Response(_, response, None) = stream.next().await? else {
            return Err(RpcError::deadline_exceeded());
        };
        let puts = response
            .events
            .into_iter()
            .filter(|event| event.r#type == EventType::Put as i32);
        if let Some(pair) = puts.filter_map(|event| event.kv).next() {
            let header = response.header.map(|header| pb::ResponseHeader {
                revision: pair.mod_revision,
                ..header
            });
            return Ok((header, pair));
        }
    }
}

/// Prints what the leader puts into its key until it is deleted; nothing when the watch is lost.
async fn follow(rpc: &Rpc, display: Display, key: Bytes, from: i64) -> Result<Option<()>, Exit> {
    let mut stream = WatchStream::new(rpc, false);
    let create = pb::WatchCreateRequest {
        key,
        start_revision: from,
        ..Default::default()
    };
    stream.add(create).await;
    loop {
        let Ok(Notice::Response(_, response, None)) = stream.next().await else {
            return Ok(None);
        };
        for event in response.events {
            if event.r#type == EventType::Delete as i32 {
                return Ok(Some(()));
            }
            show_leader(display, response.header, event.kv.unwrap_or_default())?;
        }
    }
}
