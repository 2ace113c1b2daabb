//! `txn`: a transaction read line by line.

use super::setup::Setup;
use super::{get, group, kv};
use crate::cli::{Call, Command, Flag, find, help_text, usage_text};
use crate::go::{self, Comparison, scan_comparison, split_arguments};
use crate::log::write_error;
use crate::outcome::{Exit, code};
use crate::print::{Answer, emit, emit_line};
use crate::rpc::Effect;
use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;
use std::io::BufRead;

/// `txn`.
pub static TXN: Command = Command {
    usage: "txn [options]",
    short: "Txn processes all the requests in one transaction",
    long: "Txn reads a transaction from standard input and applies it as one.

It has three parts, each ended by an empty line:
1) comparisons,
2) requests that are done when all comparisons hold,
3) requests that are done when one of them does not.

An example, typed at the prompts of -i:

---
{program} txn -i
# compares:
mod(\"key1\") > \"0\"

# success requests (get, put, delete):
put key1 \"overwrote-key1\"

# failure requests (get, put, delete):
put key1 \"created-key1\"
put key2 \"some extra key\"
---

A comparison is mod, create, version, value or lease of a key in parentheses, then =, !=, < or >,
then the value in quotes (of a lease: its ID in hexadecimal).",
    group: group::KV,
    flags: &[Flag::off("interactive", "Input transaction in interactive mode").letter('i')],
    run: Some(|call| Box::pin(txn(call))),
    ..Command::EMPTY
};

/// What a line of the second and third part may be.
static OPERATIONS: Command = Command {
    children: &[&kv::DEL, &get::GET, &kv::PUT],
    ..Command::EMPTY
};

async fn txn(mut call: Call) -> Result<(), Exit> {
    if !call.arguments.is_empty() {
        return Err(Exit::bad_arguments("txn command does not accept argument"));
    }
    let prompts = call.flags.bool("interactive");
    let setup = Setup::new(&mut call)?;
    let rpc = setup.connect().await?;
    let mut input = std::io::stdin().lock();
    let prompt = |text: &str| if prompts { emit_line(text) } else { Ok(()) };

    prompt("compares:")?;
    let mut compare = Vec::new();
    while let Some(line) = next_line(&mut input)? {
        compare.push(read_compare(&line).map_err(invalid)?);
    }
    prompt("success requests (get, put, del):")?;
    let success = read_operations(&mut input).await?;
    prompt("failure requests (get, put, del):")?;
    let failure = read_operations(&mut input).await?;

    let request = pb::TxnRequest {
        compare,
        success,
        failure,
    };
    // etcdctl waits for a transaction without a limit.
    let method = "/etcdserverpb.KV/Txn";
    let answer = rpc.call(
        Effect::Write,
        method,
        None,
        request,
        async |client, request| client.kv().txn(request).await,
    );
    let response = answer.await.map_err(Exit::error)?;
    setup.display.show(Answer::Txn(&response))
}

fn invalid(text: String) -> Exit {
    Exit::new(code::INVALID_INPUT, text)
}

/// The next line of a part; nothing at its end.
fn next_line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, Exit> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(invalid("EOF".into()));
    }
    let line = line.trim_ascii();
    Ok((!line.is_empty()).then(|| line.to_vec()))
}

async fn read_operations(input: &mut impl BufRead) -> Result<Vec<pb::RequestOp>, Exit> {
    let mut operations = Vec::new();
    while let Some(line) = next_line(input)? {
        let request = read_operation(&line).await?;
        operations.push(pb::RequestOp {
            request: Some(request),
        });
    }
    Ok(operations)
}

async fn read_operation(line: &[u8]) -> Result<Request, Exit> {
    let shown = String::from_utf8_lossy(line);
    let words = split_arguments(line).map_err(invalid)?;
    if words.len() < 2 {
        return Err(invalid(format!("invalid txn compare request: {shown}")));
    }
    let refused = || invalid(format!("invalid txn request: {shown}"));
    let found = find("", &OPERATIONS, &words);
    if found.error.is_some() || found.path.parents().is_empty() {
        return Err(refused());
    }
    let mut flags = found.path.flag_set();
    let Ok(arguments) = flags.parse(&found.rest) else {
        write_error(&format!("{}\n", usage_text(&found.path)));
        return Err(refused());
    };
    if flags.bool("help") {
        emit(help_text(&found.path).as_bytes())?;
        return Err(refused());
    }
    let call = Call {
        path: found.path,
        flags,
        arguments,
        typed: words,
    };
    Ok(match call.path.command().name() {
        "get" => Request::RequestRange(get::range_request(&call)?),
        "put" => Request::RequestPut(kv::put_request(&call, false)?),
        _ => Request::RequestDeleteRange(kv::delete_request(&call).await?),
    })
}

fn read_compare(line: &[u8]) -> Result<pb::Compare, String> {
    let Comparison {
        target,
        key,
        operator,
        value,
    } = scan_comparison(line)?;
    let shown = String::from_utf8_lossy(line);
    let number = |base: u32| {
        go::parse_int(&value, base).map_err(|_| format!("invalid txn compare request: {shown}"))
    };
    let (target, union) = match target.as_str() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (
            CompareTarget::Create,
            TargetUnion::CreateRevision(number(10)?),
        ),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (
            CompareTarget::Value,
            TargetUnion::Value(value.clone().into()),
        ),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        other => {
            return Err(format!(
                "malformed comparison: {shown} (unknown target {other})"
            ));
        }
    };
    let result = match operator.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => {
            return Err(format!(
                "malformed comparison: {shown} (unknown operator {other})"
            ));
        }
    };
    Ok(pb::Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(union),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_targets() {
        let compare = read_compare(br#"lease("k") != "1f""#).unwrap();
        assert_eq!(compare.target_union, Some(TargetUnion::Lease(31)));
        assert_eq!(compare.result(), CompareResult::NotEqual);
        let compare = read_compare(br#"val("k") = "a\n""#).unwrap();
        assert_eq!(compare.target_union, Some(TargetUnion::Value("a\n".into())));
        for line in [
            r#"mod("k") = "x""#,
            r#"mod("k") == "1""#,
            r#"foo("k") = "1""#,
        ] {
            assert!(read_compare(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_part_ends_at_an_empty_line_and_not_at_the_end_of_input() {
        let mut input = &b"  a b \n\t\nrest"[..];
        assert_eq!(next_line(&mut input).unwrap(), Some(b"a b".to_vec()));
        assert_eq!(next_line(&mut input).unwrap(), None);
        assert_eq!(next_line(&mut input).unwrap_err().code, code::INVALID_INPUT);
    }
}
