//! A real Kubernetes to play with: it runs until the end of standard input.

use anyhow::Result;
use quorate_e2e::kubernetes::real::Real;
use std::io::Write;
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let real = Real::start().await?;
    let mut output = std::io::stdout();
    writeln!(output, "Kubernetes runs. From another shell, as root:")?;
    writeln!(output, "{}", real.kube.hint()?)?;
    writeln!(
        output,
        "Logs: {}. It ends with this shell's Ctrl-D.",
        real.dir().display()
    )?;
    let mut input = Vec::new();
    tokio::io::stdin().read_to_end(&mut input).await?;
    Ok(())
}
