//! `quorate-operator`.

use clap::Parser as _;
use quorate_operator::config::{Cli, Command};

fn main() -> std::process::ExitCode {
    let Command::Run(arguments) = Cli::parse().command;
    quorate_tls::use_ring();
    let filter = match tracing_subscriber::EnvFilter::try_new(&arguments.log) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!(
                "--log {:?}: {error}: give words such as info or quorate_operator=debug",
                arguments.log
            );
            return std::process::ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return std::process::ExitCode::FAILURE;
        }
    };
    match runtime.block_on(quorate_operator::controller::run(*arguments)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the operator ends");
            std::process::ExitCode::FAILURE
        }
    }
}
