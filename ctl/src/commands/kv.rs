//! `put`, `del` and `compaction`.

use super::group;
use super::setup::Setup;
use crate::cli::{Call, Command, Flag};
use crate::go::{self, quote};
use crate::log::write_error;
use crate::outcome::Exit;
use crate::print::{Answer, emit_line, prefix_end};
use crate::rpc::{Effect, Rpc, RpcError};
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use std::io::Read as _;
use std::time::Duration;
use tokio::time::Instant;

/// How long `del` waits before it deletes a range that was not asked for with `--range`.
const RANGE_DELETE_PAUSE: Duration = Duration::from_secs(2);
/// A range has one kind of end.
pub const ONE_OF_PREFIX_AND_FROM_KEY: &str =
    "`--prefix` and `--from-key` cannot be set at the same time, choose one";
const ONE_ARGUMENT_WITH_PREFIX: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
const PUT_ARGUMENTS: &str = "put command needs 1 argument and input from stdin or 2 arguments";

/// `put`.
pub static PUT: Command = Command {
    usage: "put [options] <key> <value> (<value> can also be given from stdin)",
    short: "Puts the given key into the store",
    long: "
Puts the given key into the store.

A <value> that begins with '-' is taken for a flag, unless '--' stands before it:

$ put <key> -- <value>
$ put -- <key> <value>

Without a <value> on the command line, and without '--ignore-value', the value is read from
standard input:

$ cat file | put <key>

stores what is in the file under <key>.
",
    group: group::KV,
    flags: &[
        Flag::text(
            "lease",
            "0",
            "lease ID (in hexadecimal) to attach to the key",
        ),
        Flag::off(
            "prev-kv",
            "return the previous key-value pair before modification",
        ),
        Flag::off("ignore-value", "updates the key using its current value"),
        Flag::off("ignore-lease", "updates the key using its current lease"),
    ],
    run: Some(|call| Box::pin(put(call))),
    ..Command::EMPTY
};

/// `del`.
pub static DEL: Command = Command {
    usage: "del [options] <key> [range_end]",
    short: "Removes the specified key or range of keys [key, range_end)",
    group: group::KV,
    flags: &[
        Flag::off("prefix", "delete keys with matching prefix"),
        Flag::off("prev-kv", "return deleted key-value pairs"),
        Flag::off(
            "from-key",
            "delete keys that are greater than or equal to the given key using byte compare",
        ),
        Flag::off("range", "delete range of keys"),
    ],
    run: Some(|call| Box::pin(del(call))),
    ..Command::EMPTY
};

/// `compaction`.
pub static COMPACTION: Command = Command {
    usage: "compaction [options] <revision>",
    short: "Compacts the event history in etcd",
    group: group::KV,
    flags: &[Flag::off(
        "physical",
        "'true' to wait for compaction to physically remove all old revisions",
    )],
    run: Some(|call| Box::pin(compaction(call))),
    ..Command::EMPTY
};

/// Whether both kinds of end are asked for.
pub fn both_ends(call: &Call) -> bool {
    call.flags.bool("prefix") && call.flags.bool("from-key")
}

/// The first key and the end of the range that arguments and flags mean.
///
/// # Errors
/// For an end given twice.
pub fn bounds(call: &Call, key: &[u8]) -> Result<(Bytes, Bytes), Exit> {
    let (prefix, from_key) = (call.flags.bool("prefix"), call.flags.bool("from-key"));
    if let Some(end) = call.arguments.get(1) {
        if prefix || from_key {
            return Err(Exit::bad_arguments(ONE_ARGUMENT_WITH_PREFIX));
        }
        return Ok((Bytes::copy_from_slice(key), Bytes::copy_from_slice(end)));
    }
    let first = if key.is_empty() && (prefix || from_key) {
        Bytes::from_static(b"\0")
    } else {
        Bytes::copy_from_slice(key)
    };
    let end = match (prefix, from_key) {
        (true, _) => prefix_end(key),
        (_, true) => Bytes::from_static(b"\0"),
        _ => Bytes::new(),
    };
    Ok((first, end))
}

async fn put(mut call: Call) -> Result<(), Exit> {
    let request = put_request(&call, true)?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.KV/Put";
    let answer = rpc.call(
        Effect::Write,
        method,
        setup.deadline(),
        request,
        async |client, request| client.kv().put(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::Put(&response))
}

/// What a `put` asks for; a missing value is read from standard input if that may be.
///
/// # Errors
/// For arguments and flags that do not go together.
pub fn put_request(call: &Call, may_read_input: bool) -> Result<pb::PutRequest, Exit> {
    let flags = &call.flags;
    let Some(key) = call.arguments.first() else {
        return Err(Exit::bad_arguments(PUT_ARGUMENTS));
    };
    let ignore_value = flags.bool("ignore-value");
    if ignore_value && call.arguments.len() > 1 {
        let text = "put command needs only 1 argument when 'ignore-value' is set";
        return Err(Exit::bad_arguments(text));
    }
    let value = match call.arguments.get(1) {
        _ if ignore_value => Vec::new(),
        Some(value) => value.clone(),
        None if may_read_input => input()?,
        None => return Err(Exit::bad_arguments(PUT_ARGUMENTS)),
    };
    let lease = go::parse_int(flags.bytes("lease"), 16).map_err(|reason| {
        Exit::bad_arguments(format!("bad lease ID ({reason}), expecting ID in Hex"))
    })?;
    Ok(pb::PutRequest {
        key: Bytes::copy_from_slice(key),
        value: value.into(),
        lease,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}

fn input() -> Result<Vec<u8>, Exit> {
    let mut value = Vec::new();
    match std::io::stdin().read_to_end(&mut value) {
        Ok(0) | Err(_) => Err(Exit::bad_arguments(PUT_ARGUMENTS)),
        Ok(_) => Ok(value),
    }
}

async fn del(mut call: Call) -> Result<(), Exit> {
    let request = delete_request(&call).await?;
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let response = delete(&rpc, setup.deadline(), request).await;
    setup
        .display
        .show(Answer::Delete(&response.map_err(Exit::error)?))
}

/// One removal.
///
/// # Errors
/// What the server said.
pub async fn delete(
    rpc: &Rpc,
    deadline: Option<Instant>,
    request: pb::DeleteRangeRequest,
) -> Result<pb::DeleteRangeResponse, RpcError> {
    let method = "/etcdserverpb.KV/DeleteRange";
    rpc.call(
        Effect::Write,
        method,
        deadline,
        request,
        async |client, request| client.kv().delete_range(request).await,
    )
    .await
}

/// What a `del` asks for. A range without `--range` leaves two seconds to think again.
///
/// # Errors
/// For arguments and flags that do not go together.
pub async fn delete_request(call: &Call) -> Result<pb::DeleteRangeRequest, Exit> {
    let flags = &call.flags;
    let (key, end) = match call.arguments.as_slice() {
        [key] => (key, None),
        [key, end] => (key, Some(end)),
        _ => {
            return Err(Exit::bad_arguments(
                "del command needs one argument as key and an optional argument as range_end",
            ));
        }
    };
    if both_ends(call) {
        return Err(Exit::bad_arguments(ONE_OF_PREFIX_AND_FROM_KEY));
    }
    let (first, range_end) = bounds(call, key)?;
    if let Some(end) = end.filter(|_| !flags.bool("range")) {
        write_error(&format!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within \
             next 2 seconds to cancel. You can provide `--range` flag to avoid the delay.\n",
            quote(key),
            quote(end)
        ));
        tokio::time::sleep(RANGE_DELETE_PAUSE).await;
    }
    Ok(pb::DeleteRangeRequest {
        key: first,
        range_end,
        prev_kv: flags.bool("prev-kv"),
    })
}

async fn compaction(mut call: Call) -> Result<(), Exit> {
    let [argument] = call.arguments.as_slice() else {
        return Err(Exit::bad_arguments("compaction command needs 1 argument"));
    };
    let revision = go::parse_int(argument, 10).map_err(Exit::error)?;
    let request = pb::CompactionRequest {
        revision,
        physical: call.flags.bool("physical"),
    };
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let method = "/etcdserverpb.KV/Compact";
    let answer = rpc.call(
        Effect::Write,
        method,
        setup.deadline(),
        request,
        async |client, request| client.kv().compact(request).await,
    );
    answer.await.map_err(Exit::error)?;
    emit_line(&format!("compacted revision {revision}"))
}
