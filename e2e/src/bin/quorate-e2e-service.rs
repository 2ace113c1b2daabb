//! A service for the discovery test: it registers its address and lives until it is killed.

use anyhow::{Context, Result};
use quorate_client::discovery::register;
use quorate_client::{Client, ClientConfig};
use std::io::Write;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, service, address, ttl_seconds] = args.as_slice() else {
        anyhow::bail!("arguments: ENDPOINTS SERVICE ADDRESS TTL");
    };
    let ttl_seconds = ttl_seconds.parse().context("the TTL is in seconds")?;
    let client = Client::connect(ClientConfig::new(endpoints.split(','))).await?;
    let mut registration = register(&client, service, address, ttl_seconds).await?;
    writeln!(std::io::stdout(), "registered {address}")?;
    loop {
        // A lease that was lost in an outage is followed by a new one.
        registration.registered_anew().await?;
    }
}
