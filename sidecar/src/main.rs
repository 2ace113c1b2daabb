//! `quorate-sidecar`, beside each member of a cluster on Kubernetes.
//!
//! Its floors, each of which imports only from those above it:
//! ```text
//! failure                                    reasons that stay the same
//! tasks · store · member · metrics           named tasks; object stores; members; numbers
//! backup · restore                           snapshot → store, store → snapshot
//! verify · gate · api                        proofs; the start; the operator's requests
//! serve · config · logs                      wiring
//! ```

mod api;
mod backup;
mod config;
mod failure;
mod gate;
mod logs;
mod member;
mod metrics;
mod restore;
mod serve;
mod store;
mod tasks;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Command, Flags, HandoffFlags};

/// What a shell says of a process that SIGTERM ended.
const TERMINATED: i32 = 143;

fn main() -> ExitCode {
    let flags = Flags::parse();
    quorate_tls::use_ring();
    // What is written are copies of the store: for nobody else to read.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Err(error) = logs::init() {
        return complain(&error);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("no runtime: {error}")),
    };
    let code = runtime.block_on(run(flags.command));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

async fn run(command: Command) -> i32 {
    match command {
        Command::Gate(flags) => unless_terminated(gate::run(&flags)).await,
        Command::Handoff(flags) => unless_terminated(hand_off(flags)).await,
        Command::Serve(flags) => match serve::run(*flags).await {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!(error, "the sidecar stops");
                1
            }
        },
    }
}

/// The first process of a container does not die of SIGTERM by itself.
async fn unless_terminated(work: impl Future<Output = i32>) -> i32 {
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::error!(%error, "no signals");
            return 1;
        }
    };
    tokio::select! {
        code = work => code,
        _ = terminate.recv() => TERMINATED,
    }
}

/// A stop is never held up: whatever happens, the code is 0.
async fn hand_off(flags: HandoffFlags) -> i32 {
    let members = flags.member.members();
    let leaving = flags.leaving.into_iter().collect();
    match member::handoff::hand_off(&members, &leaving, flags.timeout).await {
        Ok(handed) => tracing::info!(
            was_leader = handed.was_leader,
            leader = handed.leader,
            "done"
        ),
        Err(failure) => tracing::warn!(%failure, "leadership was not handed over"),
    }
    0
}

/// Says why it ends, before there are logs. Without standard error the code alone must tell.
fn complain(text: &str) -> ExitCode {
    use std::io::Write as _;
    match std::io::stderr().write_all(format!("{text}\n").as_bytes()) {
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}
