//! `quoratectl`: etcdctl of etcd 3.7, command for command and byte for byte.

mod cli;
mod commands;
mod go;
mod log;
mod outcome;
mod print;
mod refusals;
mod rpc;

use cli::{Call, FlagSet, Path, find, help_text, usage_text};
use commands::{ROOT, UTILITY_ROOT};
use log::write_error;
use outcome::{Exit, code};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// The name under which the program prints itself, unless it is called `etcdctl`.
const NAME: &str = "quoratectl";
const ETCDCTL: &str = "etcdctl";
const ETCDUTL: &str = "etcdutl";

/// Runs a command line, the name of the program first; gives back the exit code.
pub fn run(words: impl IntoIterator<Item = OsString>) -> i32 {
    let mut words = words.into_iter();
    let called = words.next().unwrap_or_default();
    let called = std::path::Path::new(&called)
        .file_name()
        .unwrap_or_default();
    let names = [ETCDCTL, ETCDUTL];
    let program = names.into_iter().find(|name| called == *name);
    let program = program.unwrap_or(NAME);
    let typed: Vec<Vec<u8>> = words.map(OsString::into_vec).collect();
    let Err(exit) = dispatch(program, typed) else {
        return 0;
    };
    if let Some(message) = exit.message {
        write_error(&format!("Error: {message}\n"));
    }
    exit.code
}

fn dispatch(program: &'static str, typed: Vec<Vec<u8>>) -> Result<(), Exit> {
    let root = if program == ETCDUTL {
        &UTILITY_ROOT
    } else {
        &ROOT
    };
    let found = find(program, root, &typed);
    let path = found.path;
    if let Some(error) = found.error {
        let names = path.names();
        write_error(&format!(
            "Error: {error}\nRun '{names} --help' for usage.\n"
        ));
        return Err(refused(&path, &error));
    }
    let mut flags = path.flag_set();
    let arguments = match flags.parse(&found.rest) {
        Ok(arguments) => arguments,
        Err(error) => return Err(refuse(&path, &error.0)),
    };
    let command = path.command();
    let Some(run) = command.run.filter(|_| !flags.bool("help")) else {
        return print::emit(help_text(&path).as_bytes());
    };
    check_arguments(&path, &arguments)?;
    check_required(&path, &flags)?;
    let call = Call {
        path,
        flags,
        arguments,
        typed,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(run(call));
    // A thread may still wait for standard input; it must not hold up the end.
    runtime.shutdown_background();
    result
}

fn refuse(path: &Path, error: &str) -> Exit {
    write_error(&format!("Error: {error}\n{}\n", usage_text(path)));
    refused(path, error)
}

/// The end after a command line that was told to be wrong; etcdutl tells it once more.
fn refused(path: &Path, error: &str) -> Exit {
    if path.program == ETCDUTL {
        Exit::error(error)
    } else {
        Exit::silent(code::ERROR)
    }
}

/// Checks the argument of a command that takes just one, perhaps one of a few words.
fn check_arguments(path: &Path, arguments: &[Vec<u8>]) -> Result<(), Exit> {
    let allowed = path.command().one_of;
    if allowed.is_empty() && !path.command().takes_one {
        return Ok(());
    }
    let [argument] = arguments else {
        let text = format!("accepts 1 arg(s), received {}", arguments.len());
        return Err(refuse(path, &text));
    };
    if allowed.is_empty() || allowed.iter().any(|word| word.as_bytes() == argument) {
        return Ok(());
    }
    let (argument, names) = (go::quote(argument), path.names());
    let text = format!("invalid argument {argument} for \"{names}\"");
    Err(refuse(path, &text))
}

fn check_required(path: &Path, flags: &FlagSet) -> Result<(), Exit> {
    let required = path.command().required.iter();
    let missing = required.filter(|name| !flags.changed(name));
    let missing: Vec<String> = missing.map(|name| format!("\"{name}\"")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("required flag(s) {} not set", missing.join(", "));
    Err(refuse(path, &text))
}
