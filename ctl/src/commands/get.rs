//! `get`.

use super::group;
use super::kv::{ONE_OF_PREFIX_AND_FROM_KEY, both_ends, bounds};
use super::setup::Setup;
use crate::cli::{Call, Command, Flag};
use crate::go::quote;
use crate::outcome::{Exit, code};
use crate::print::{Answer, Format};
use crate::rpc::{Effect, Rpc, RpcError};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use tokio::time::{Instant, timeout_at};

/// `get`.
pub static GET: Command = Command {
    usage: "get [options] <key> [range_end]",
    short: "Gets the key or a range of keys",
    group: group::KV,
    flags: &[
        Flag::text("consistency", "l", "Linearizable(l) or Serializable(s)"),
        Flag::text(
            "order",
            "",
            "Order of results; ASCEND or DESCEND (ASCEND by default)",
        ),
        Flag::text(
            "sort-by",
            "",
            "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION",
        ),
        Flag::int("limit", "Maximum number of results"),
        Flag::off("prefix", "Get keys with matching prefix"),
        Flag::off(
            "from-key",
            "Get keys that are greater than or equal to the given key using byte compare",
        ),
        Flag::int("rev", "Specify the kv revision"),
        Flag::off("keys-only", "Get only the keys"),
        Flag::off("count-only", "Get only the count"),
        Flag::off(
            "print-value-only",
            "Only write values when using the \"simple\" output format",
        ),
        Flag::int("min-create-rev", "Minimum create revision"),
        Flag::int("max-create-rev", "Maximum create revision"),
        Flag::int("min-mod-rev", "Minimum modification revision"),
        Flag::int("max-mod-rev", "Maximum modification revision"),
        Flag::off("stream", "Use the RangeStream RPC"),
    ],
    run: Some(|call| Box::pin(get(call))),
    ..Command::EMPTY
};

async fn get(mut call: Call) -> Result<(), Exit> {
    let request = range_request(&call)?;
    let mut setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let deadline = setup.deadline();
    let answer = if call.flags.bool("stream") {
        range_stream(&rpc, deadline, request).await
    } else {
        range(&rpc, deadline, request).await
    };
    let response = answer.map_err(Exit::error)?;
    if call.flags.bool("count-only") && setup.display.format != Format::Fields {
        let text = "--count-only is only for `--write-out=fields`";
        return Err(Exit::bad_arguments(text));
    }
    if call.flags.bool("print-value-only") {
        if setup.display.format != Format::Simple {
            let text = "print-value-only is only for `--write-out=simple`";
            return Err(Exit::bad_arguments(text));
        }
        setup.display.value_only = true;
    }
    setup.display.show(Answer::Get(&response))
}

/// One read.
///
/// # Errors
/// What the server said.
pub async fn range(
    rpc: &Rpc,
    deadline: Option<Instant>,
    request: pb::RangeRequest,
) -> Result<pb::RangeResponse, RpcError> {
    let method = "/etcdserverpb.KV/Range";
    rpc.call(
        Effect::Read,
        method,
        deadline,
        request,
        async |client, request| client.kv().range(request).await,
    )
    .await
}

/// One read whose answer comes in pieces.
async fn range_stream(
    rpc: &Rpc,
    deadline: Option<Instant>,
    request: pb::RangeRequest,
) -> Result<pb::RangeResponse, RpcError> {
    let pieces = async {
        let request = rpc.request(request);
        let mut stream = rpc.client().kv().range_stream(request).await?.into_inner();
        let mut whole = pb::RangeResponse::default();
        while let Some(piece) = stream.message().await? {
            let piece = piece.range_response.unwrap_or_default();
            whole.header = piece.header.or(whole.header);
            whole.kvs.extend(piece.kvs);
            whole.more |= piece.more;
            whole.count = piece.count.max(whole.count);
        }
        Ok(whole)
    };
    let limited = async {
        match deadline {
            Some(deadline) => timeout_at(deadline, pieces).await,
            None => Ok(pieces.await),
        }
    };
    match limited.await {
        Ok(result) => result.map_err(|status| RpcError::from_status(&status)),
        Err(_) => Err(RpcError::deadline_exceeded()),
    }
}

/// What a `get` asks for.
///
/// # Errors
/// For arguments and flags that do not go together.
pub fn range_request(call: &Call) -> Result<pb::RangeRequest, Exit> {
    let flags = &call.flags;
    let Some(key) = call.arguments.first() else {
        return Err(Exit::bad_arguments(
            "get command needs one argument as key and an optional argument as range_end",
        ));
    };
    if both_ends(call) {
        return Err(Exit::bad_arguments(ONE_OF_PREFIX_AND_FROM_KEY));
    }
    if flags.bool("keys-only") && flags.bool("count-only") {
        return Err(Exit::bad_arguments(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ));
    }
    let serializable = is_serializable(&flags.text("consistency"))?;
    let (key, range_end) = bounds(call, key)?;
    let (sort_target, sort_order) = sort(call)?;
    let revisions = |least: &str, most: &str, what: &str| {
        let (min, max) = (flags.int(least).max(0), flags.int(most).max(0));
        if max > 0 && min > max {
            let given = flags.int(least);
            let text = format!("getMin{what}Rev(={given}) > getMax{what}Rev(={max})");
            return Err(Exit::new(code::BAD_FEATURE, text));
        }
        Ok((min, max))
    };
    let (min_create_revision, max_create_revision) =
        revisions("min-create-rev", "max-create-rev", "Create")?;
    let (min_mod_revision, max_mod_revision) = revisions("min-mod-rev", "max-mod-rev", "Mod")?;
    Ok(pb::RangeRequest {
        key,
        range_end,
        limit: flags.int("limit"),
        revision: flags.int("rev").max(0),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only: flags.bool("keys-only"),
        count_only: flags.bool("count-only"),
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

fn sort(call: &Call) -> Result<(SortTarget, SortOrder), Exit> {
    let bad =
        |what: &str, given: &str| Exit::new(code::BAD_FEATURE, format!("bad sort {what} {given}"));
    let given = call.flags.text("order");
    let order = match given.to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => return Err(bad("order", &given)),
    };
    let given = call.flags.text("sort-by");
    let target = match given.to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(bad("target", &given)),
    };
    // Keys come in ascending order anyhow; asking for it would make the server sort them all.
    if (target, order) == (SortTarget::Key, SortOrder::Ascend) {
        return Ok((target, SortOrder::None));
    }
    Ok((target, order))
}

/// Reads `--consistency`.
///
/// # Errors
/// For anything but `l` and `s`.
pub fn is_serializable(consistency: &str) -> Result<bool, Exit> {
    match consistency {
        "l" => Ok(false),
        "s" => Ok(true),
        other => {
            let text = format!("unknown consistency flag {}", quote(other.as_bytes()));
            Err(Exit::new(code::BAD_FEATURE, text))
        }
    }
}
