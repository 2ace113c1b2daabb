//! Commands that `watch` and `lock` run.

use crate::go::quote;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;

/// Go's names of the signals 1 to 15.
const SIGNALS: [&str; 15] = [
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
];

/// Runs a command to its end.
///
/// # Errors
/// What Go says of it: `exit status 1`, `signal: killed`, or why it could not be started.
pub async fn run_to_end(program: &OsStr, mut child: tokio::process::Command) -> Result<(), String> {
    let status = child.status().await.map_err(|error| {
        let name = quote(program.as_bytes());
        match error.kind() {
            std::io::ErrorKind::NotFound if !program.as_bytes().contains(&b'/') => {
                format!("exec: {name}: executable file not found in $PATH")
            }
            _ => format!("fork/exec {}: {error}", program.to_string_lossy()),
        }
    })?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("exit status {code}")),
        (None, Some(signal)) => {
            let dumped = if status.core_dumped() {
                " (core dumped)"
            } else {
                ""
            };
            Err(format!("signal: {}{dumped}", signal_name(signal)))
        }
        (None, None) => Err(status.to_string()),
    }
}

fn signal_name(signal: i32) -> String {
    let at = usize::try_from(signal - 1).ok();
    match at.and_then(|at| SIGNALS.get(at)) {
        Some(name) => (*name).to_owned(),
        None => format!("signal {signal}"),
    }
}
