//! `help`, `options`, `version`, and the commands that are not there yet.

use super::{ROOT, group, not_there_yet};
use crate::cli::{Call, Command, Flag, Kind, find, help_text, options_text, usage_text};
use crate::log::write_error;
use crate::outcome::Exit;
use crate::print::{emit, emit_line};

/// The release of etcd whose etcdctl this one equals.
const VERSION: &str = "3.7.3";
const API_VERSION: &str = "3.7";

const COMPACT_AFTER: Flag = Flag::off(
    "auto-compact",
    "Compact storage with last revision after test is finished.",
);
const DEFRAG_AFTER: Flag = Flag::off("auto-defrag", "Defragment storage after test is finished.");

/// `help`.
pub static HELP: Command = Command {
    usage: "help [command]",
    short: "Help about any command",
    long: "Help provides help for any command in the application.
Simply type {program} help [path to command] for full details.",
    group: group::UTILITY,
    run: Some(|call| Box::pin(help(call))),
    ..Command::EMPTY
};

/// `options`.
pub static OPTIONS: Command = Command {
    usage: "options",
    short: "Show the global command-line flags",
    group: group::UTILITY,
    run: Some(|call| Box::pin(async move { emit(options_text(&call.path).as_bytes()) })),
    ..Command::EMPTY
};

/// `version`.
pub static VERSION_COMMAND: Command = Command {
    usage: "version",
    short: "Prints the version of {program}",
    group: group::UTILITY,
    run: Some(|call| {
        Box::pin(async move {
            emit_line(&format!("{} version: {VERSION}", call.path.program))?;
            emit_line(&format!("API version: {API_VERSION}"))
        })
    }),
    ..Command::EMPTY
};

/// `check`.
pub static CHECK: Command = Command {
    usage: "check <subcommand>",
    short: "commands for checking properties of the etcd cluster. Use `{program} check --help` \
     to see subcommands",
    long: "commands for checking properties of the etcd cluster",
    group: group::UTILITY,
    children: &[&CHECK_DATASCALE, &CHECK_PERF],
    ..Command::EMPTY
};

static CHECK_PERF: Command = Command {
    usage: "perf [options]",
    short: "Check the performance of the etcd cluster",
    flags: &[
        Flag::text(
            "load",
            "s",
            "The performance check's workload model: s(small), m(medium), l(large), xl(xLarge). \
             They differ in the number of clients and in the throughput that is expected.",
        ),
        Flag::text(
            "prefix",
            "/etcdctl-check-perf/",
            "The prefix for writing the performance check's keys.",
        ),
        COMPACT_AFTER,
        DEFRAG_AFTER,
    ],
    run: Some(|_| Box::pin(async { Err(not_there_yet("check perf")) })),
    ..Command::EMPTY
};

static CHECK_DATASCALE: Command = Command {
    usage: "datascale [options]",
    short: "Check the memory usage of holding data for different workloads on a given server \
     endpoint.",
    long: "The first endpoint that is given is checked; localhost if none is.",
    flags: &[
        Flag::text(
            "load",
            "s",
            "The datascale check's workload model: s(small), m(medium), l(large), xl(xLarge)",
        ),
        Flag::text(
            "prefix",
            "/etcdctl-check-datascale/",
            "The prefix for writing the datascale check's keys.",
        ),
        COMPACT_AFTER,
        DEFRAG_AFTER,
    ],
    run: Some(|_| Box::pin(async { Err(not_there_yet("check datascale")) })),
    ..Command::EMPTY
};

/// `completion`.
pub static COMPLETION: Command = Command {
    usage: "completion [bash|zsh|fish|powershell]",
    short: "Generate completion script",
    long: "Prints a script that completes commands in a shell. To load it:

Bash:

  $ source <({program} completion bash)

Zsh:

  $ {program} completion zsh > \"${fpath[1]}/_{program}\"

fish:

  $ {program} completion fish | source

PowerShell:

  PS> {program} completion powershell | Out-String | Invoke-Expression
",
    group: group::UTILITY,
    one_of: &["bash", "zsh", "fish", "powershell"],
    run: Some(|_| Box::pin(async { Err(not_there_yet("completion")) })),
    ..Command::EMPTY
};

/// `make-mirror`.
pub static MAKE_MIRROR: Command = Command {
    usage: "make-mirror [options] <destination>",
    short: "Makes a mirror at the destination etcd cluster",
    group: group::UTILITY,
    flags: &[
        Flag::text("prefix", "", "Key-value prefix to mirror"),
        Flag::int("rev", "Specify the kv revision to start to mirror"),
        Flag::of(
            Kind::Uint,
            "max-txn-ops",
            "128",
            "Maximum number of operations permitted in a transaction during syncing updates.",
        ),
        Flag::text(
            "dest-prefix",
            "",
            "destination prefix to mirror a prefix to a different prefix in the destination \
             cluster",
        ),
        Flag::off(
            "no-dest-prefix",
            "mirror key-values to the root of the destination cluster",
        ),
        Flag::text(
            "dest-cert",
            "",
            "Identify secure client using this TLS certificate file for the destination cluster",
        ),
        Flag::text(
            "dest-key",
            "",
            "Identify secure client using this TLS key file",
        ),
        Flag::text(
            "dest-cacert",
            "",
            "Verify certificates of TLS enabled secure servers using this CA bundle",
        ),
        Flag::on(
            "dest-insecure-transport",
            "Disable transport security for client connections",
        ),
        Flag::text(
            "dest-user",
            "",
            "Destination username[:password] for authentication (prompt if password is not \
             supplied)",
        ),
        Flag::text(
            "dest-password",
            "",
            "Destination password for authentication (if this option is used, --user option \
             shouldn't include password)",
        ),
    ],
    run: Some(|_| Box::pin(async { Err(not_there_yet("make-mirror")) })),
    ..Command::EMPTY
};

async fn help(call: Call) -> Result<(), Exit> {
    let found = find(call.path.program, &ROOT, &call.arguments);
    if found.error.is_none() {
        return emit(help_text(&found.path).as_bytes());
    }
    let words = call
        .arguments
        .iter()
        .map(|word| String::from_utf8_lossy(word));
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    let root = find(call.path.program, &ROOT, &[]);
    let text = format!("Unknown help topic [{}]\n", words.join(" "));
    write_error(&(text + &usage_text(&root.path)));
    Ok(())
}
