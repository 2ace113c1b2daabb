//! Load for a cluster on Kubernetes: it writes numbered keys and prints those that were
//! acknowledged, until it is killed.

use anyhow::{Context, Result};
use quorate_client::{Client, ClientConfig, TlsConfig};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Between two writes: enough to be in the middle of whatever happens, and cheap.
const PAUSE: Duration = Duration::from_millis(40);

/// A write that takes longer may or may not have happened; the next one follows.
const WRITE_DEADLINE: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, certificates] = args.as_slice() else {
        anyhow::bail!(
            "arguments: ENDPOINT DIRECTORY; the directory holds ca.crt, tls.crt, tls.key"
        );
    };
    let file = |name: &str| Some(PathBuf::from(certificates).join(name));
    let client = Client::connect_lazy(ClientConfig {
        dial_timeout: WRITE_DEADLINE,
        request_timeout: WRITE_DEADLINE,
        tls: Some(TlsConfig {
            trusted_ca_file: file("ca.crt"),
            cert_file: file("tls.crt"),
            key_file: file("tls.key"),
            ..TlsConfig::default()
        }),
        ..ClientConfig::new([endpoint])
    })?;
    let mut output = std::io::stdout();
    let mut ticks = tokio::time::interval(PAUSE);
    for number in 0_u64.. {
        ticks.tick().await;
        match client
            .put(format!("load/{number:08}"), number.to_string())
            .await
        {
            Ok(answer) => {
                let header = answer.header.context("an answer without a header")?;
                writeln!(output, "acked {number} {}", header.revision)?;
            }
            Err(error) => writeln!(output, "unknown {number} {error}")?,
        }
    }
    Ok(())
}
