//! `quorate-bench`: Quorate beside the real etcd, on one and three members, with fsync on in both.
//!
//! Both servers run at once and take turns within a round, so that the machine's moods hit both.
//! The load generator shares the machine with the servers: rates are bound by it, and the CPU the
//! servers use for an operation is the figure that carries over to other machines.

mod flags;
mod load;
mod machine;
mod million;
mod report;
mod restore;
mod rows;
mod save;
mod tls;
mod watchers;

use anyhow::Result;
use clap::Parser;
use std::io::Write;

fn main() -> Result<()> {
    let flags = flags::Flags::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(run(&flags))?;
    std::io::stdout().write_all(report.text().as_bytes())?;
    if let Some(path) = flags.page() {
        std::fs::write(path, report.document(&flags)?)?;
    }
    Ok(())
}

async fn run(flags: &flags::Flags) -> Result<report::Report> {
    let mut report = report::Report::default();
    let asked = |name: &String| rows::is_row(name);
    if flags.only.is_empty() || flags.only.iter().any(asked) {
        for &members in &flags.members {
            rows::run(flags, members, &mut report).await?;
        }
    }
    if flags.wants(tls::NAME) {
        tls::run(flags, &mut report).await?;
    }
    if flags.wants(million::NAME) {
        million::run(flags, &mut report).await?;
    }
    if flags.wants(save::NAME) {
        save::run(flags, &mut report).await?;
    }
    if flags.wants(restore::NAME) {
        restore::run(flags, &mut report).await?;
    }
    if flags.restart_keys > 0 {
        restore::run_restart(flags, &mut report).await?;
    }
    Ok(report)
}
