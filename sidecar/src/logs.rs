//! Logs on standard error: lines for a terminal, one JSON object a line for everything else.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// A filter in the syntax of `RUST_LOG`.
const FILTER_VARIABLE: &str = "QUORATE_LOG";
const FILTER: &str = "info,hyper=warn,h2=warn,tonic=warn,tower=warn,rustls=warn,reqwest=warn";

/// Sets up logs for the process.
///
/// # Errors
/// The filter is not understood.
pub fn init() -> Result<(), String> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(filter) if !filter.is_empty() => filter,
        Ok(_) | Err(_) => FILTER.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| format!("{FILTER_VARIABLE}={filter:?}: {error}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let set = match std::io::stderr().is_terminal() {
        true => builder.try_init(),
        false => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|error| error.to_string())
}
