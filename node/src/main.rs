//! `quorate`, the node: flags, logs, then the server until a signal or a failure.

use std::io::Write;
use std::process::ExitCode;

use quorate::config::{self, Action, Config, Error};
use quorate::server::{Server, probe};
use quorate::telemetry::log;

/// For the node's own memory; RocksDB keeps the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line was not understood.
const USAGE_EXIT: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, path] = arguments.as_slice()
        && command == probe::COMMAND
    {
        return print(&probe::report(path.as_ref()));
    }
    match config::read(&arguments, std::env::vars()) {
        Ok(Action::Help) => print(&config::help::flags()),
        Ok(Action::Version) => print(&config::help::version()),
        Ok(Action::Run(config)) => run(*config),
        Err(Error::Usage(error)) => complain(
            &format!("{error}\n{}", config::help::USAGE),
            ExitCode::from(USAGE_EXIT),
        ),
        Err(Error::Invalid(error)) => complain(
            &format!("failed to verify flags: {error}\n"),
            ExitCode::FAILURE,
        ),
    }
}

fn run(config: Config) -> ExitCode {
    if let Err(error) = log::init(&config.log) {
        let text = format!("failed to set up logs: {error}\n");
        return complain(&text, ExitCode::FAILURE);
    }
    end_on_panic();
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "huge pages stay on; the process takes more memory");
    }
    for notice in &config.notices {
        tracing::warn!(flag = notice.flag, value = notice.value, "{}", notice.text);
    }
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))
        .and_then(|runtime| runtime.block_on(Server::run(config)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(target: log::FATAL, error, "the member stops");
            ExitCode::FAILURE
        }
    }
}

/// A part that panicked must not leave the rest running as if nothing had happened.
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::force_capture();
        tracing::error!(target: log::FATAL, %trace, "panic: {panic}");
        std::process::abort();
    }));
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says why it ends, before there are logs. Without standard error the code alone must tell.
fn complain(text: &str, code: ExitCode) -> ExitCode {
    match std::io::stderr().write_all(text.as_bytes()) {
        Ok(()) | Err(_) => code,
    }
}
